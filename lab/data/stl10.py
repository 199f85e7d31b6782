"""STL-10 (Coates, Ng & Lee 2011) from its binary files: 96×96 in colour, 5,000 training and 8,000 test images.

An image is its red, green and blue plane, each column by column; a label is one byte from 1 to 10. The unlabelled
images are not used.
"""

from pathlib import Path

import numpy as np

from lab.data import published
from lab.data.published import DOWNLOADS, Published
from lab.errors import DataError

FOLDER = "stl10_binary"
FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
N_TRAIN, N_TEST = 5000, 8000
SIDE = 96
ARCHIVE = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
MD5 = "91f7769df0f17e558f3565bffb0c7dfb"  # as in torchvision's STL10
CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
HOW = f"get {ARCHIVE}, unpack it, and give the folder that holds {FOLDER} as --data-dir"


def read_part(folder: Path, part: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, 3, 96, 96) uint8 and labels (n,) int64 of "train" or "test".

    Raises:
        DataError: A file cannot be read or has another size than the published one, or a label is not 1 to 10.
    """
    pixels = published.read_bytes("stl10", folder / f"{part}_X.bin", n * 3 * SIDE * SIDE, HOW)
    path = folder / f"{part}_y.bin"
    labels = np.frombuffer(published.read_bytes("stl10", path, n, HOW), dtype=np.uint8).astype(np.int64)
    if labels.min() < 1 or labels.max() > len(CLASS_NAMES):
        raise DataError(f"stl10: {path} has labels {labels.min()} to {labels.max()}, expected 1 to 10: {HOW}")
    by_columns = np.frombuffer(pixels, dtype=np.uint8).reshape(n, 3, SIDE, SIDE)
    return np.ascontiguousarray(by_columns.transpose(0, 1, 3, 2)), labels - 1


def load(data_dir: Path | None) -> Published:
    """Return STL-10 from `data_dir` or ./data, either its folder in it or its files, or download it (2.6 GB).

    Raises:
        DataError: It is not there and cannot be downloaded, or a file is not what it claims to be.
    """
    folder = published.find_folder("stl10", data_dir, FOLDER, FILES, HOW)
    if folder is None:
        folder = DOWNLOADS / FOLDER
        published.download(
            "stl10", [(ARCHIVE, MD5)], folder, wanted=FILES,
            missing=f"{FILES[0]} and its companions are not in {data_dir or DOWNLOADS}", how=HOW, unpack=FOLDER,
        )  # fmt: skip
    source = "STL-10 (Coates, Ng & Lee 2011), binary files, sizes and labels checked"
    return Published(*read_part(folder, "train", N_TRAIN), *read_part(folder, "test", N_TEST), CLASS_NAMES, source)
