"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their binary versions.

A record is the label (CIFAR-100: the coarse label, then the fine one, which is used), then the 32×32 planes red, green
and blue. torchvision keeps the Python versions (`cifar-10-batches-py`), whose batches are pickles: to load one is to
run the code in it, and its checksum says only that it was downloaded whole. The lab loads no pickle from anywhere, so
it reads the binary versions, which hold the same images and can be checked: the size of each file and the range of a
label are known.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from lab.data import published
from lab.data.published import DOWNLOADS, Published
from lab.errors import DataError

PIXEL_BYTES = 3 * 32 * 32
PAGE = "https://www.cs.toronto.edu/~kriz"


class Edition(NamedTuple):
    """One of the two data sets as it is published. `md5` is that of the archive, from the page of the data set."""

    title: str
    folder: str
    archive: str
    md5: str
    pickled: str  # the folder of the version that is not read
    train_files: tuple[str, ...]
    test_file: str
    n_train: int  # records a training file
    n_test: int
    label_bytes: int
    class_names: tuple[str, ...]


EDITIONS = {
    "cifar10": Edition(
        title="CIFAR-10",
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        pickled="cifar-10-batches-py",
        train_files=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        test_file="test_batch.bin",
        n_train=10_000,
        n_test=10_000,
        label_bytes=1,
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Edition(
        title="CIFAR-100, fine labels",
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        pickled="cifar-100-python",
        train_files=("train.bin",),
        test_file="test.bin",
        n_train=50_000,
        n_test=10_000,
        label_bytes=2,
        class_names=(
            "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl",
            "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair",
            "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin",
            "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp",
            "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
            "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck",
            "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
            "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
            "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger",
            "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman",
            "worm",
        ),
    ),
}  # fmt: skip


def _how(edition: Edition) -> str:
    return (
        f"get {edition.archive} from {PAGE}/cifar.html, unpack it, "
        f"and give the folder that holds {edition.folder} as --data-dir"
    )


def read_batch(name: str, path: Path, n_records: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 3, 32, 32) uint8 and labels (N,) int64 of one binary file.

    Raises:
        DataError: The file cannot be read, has another size than the published one, or a label is no class.
    """
    edition = EDITIONS[name]
    record_bytes = edition.label_bytes + PIXEL_BYTES
    content = published.read_bytes(name, path, n_records * record_bytes, _how(edition))
    records = np.frombuffer(content, dtype=np.uint8).reshape(n_records, record_bytes)
    labels = records[:, edition.label_bytes - 1].astype(np.int64)
    last = len(edition.class_names) - 1
    if labels.max() > last:
        raise DataError(
            f"{name}: {path} has a label {labels.max()}, expected 0 to {last}: it is damaged: {_how(edition)}"
        )
    return records[:, edition.label_bytes :].reshape(n_records, 3, 32, 32), labels


def load(name: str, data_dir: Path | None) -> Published:
    """Return CIFAR-10 or CIFAR-100 from `data_dir` or ./data, either its folder in it or its files, or download it.

    Raises:
        DataError: It is not there and cannot be downloaded, or a file is not what it claims to be.
    """
    edition = EDITIONS[name]
    files = (*edition.train_files, edition.test_file)
    folder = published.find_folder(name, data_dir, edition.folder, files, _how(edition))
    if folder is None:
        _refuse_pickles(name, data_dir)
        folder = DOWNLOADS / edition.folder
        published.download(
            name, [(f"{PAGE}/{edition.archive}", edition.md5)], folder, wanted=files,
            missing=f"{files[0]} and its companions are not in {data_dir or DOWNLOADS}", how=_how(edition),
            unpack=edition.folder,
        )  # fmt: skip
    batches = [read_batch(name, folder / file, edition.n_train) for file in edition.train_files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    test_images, test_labels = read_batch(name, folder / edition.test_file, edition.n_test)
    source = f"{edition.title} (Krizhevsky 2009), binary version, sizes and labels checked"
    return Published(images, labels, test_images, test_labels, edition.class_names, source)


def _refuse_pickles(name: str, data_dir: Path | None) -> None:
    edition = EDITIONS[name]
    for base in (data_dir, DOWNLOADS):
        if base is not None and (base / edition.pickled).is_dir():
            raise DataError(
                f"{name}: {base / edition.pickled} is the Python version, pickles, which the lab does not load: "
                f"{_how(edition)}"
            )
