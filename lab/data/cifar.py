"""CIFAR-10 (Krizhevsky 2009) from its binary version, `cifar-10-batches-bin`.

A record is 3,073 bytes: the label, then the 32×32 planes red, green and blue. torchvision keeps the Python version
(`cifar-10-batches-py`), whose batches are pickles: to load one is to run the code in it, and its checksum says only
that it was downloaded whole. The lab loads no pickle from anywhere, so it asks for the binary version, which holds
the same images and can be checked: the size of each file is known, and a label is 0 to 9.
"""

from pathlib import Path

import numpy as np

from lab.data.idx import Published, check_directory
from lab.errors import DataError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST_FILE = "test_batch.bin"
RECORDS = 10_000  # a file
RECORD_BYTES = 1 + 3 * 32 * 32
HOW = (
    "get cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, unpack it, "
    f"and give the folder that holds {FOLDER} as --data-dir"
)


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 3, 32, 32) uint8 and labels (N,) int64 of one binary batch.

    Raises:
        DataError: The file cannot be read, has another size than the published one, or a label is above 9.
    """
    expected = RECORDS * RECORD_BYTES
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size == expected else b""
    except OSError as error:
        raise DataError(f"cifar10: {path} cannot be read ({error.strerror}): {HOW}") from error
    if len(content) != expected:
        raise DataError(f"cifar10: {path} has {size} bytes, expected {expected}: it is damaged or another file: {HOW}")
    records = np.frombuffer(content, dtype=np.uint8).reshape(RECORDS, RECORD_BYTES)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASS_NAMES):
        raise DataError(f"cifar10: {path} has a label {labels.max()}, expected 0 to 9: it is damaged: {HOW}")
    return records[:, 1:].reshape(RECORDS, 3, 32, 32), labels


def load(data_dir: Path | None) -> Published:
    """Return CIFAR-10 from `data_dir` or ./data, either the folder `cifar-10-batches-bin` in it or its files.

    Raises:
        DataError: It is not there, or a file is not what it claims to be.
    """
    check_directory("cifar10", data_dir)
    bases = [*([data_dir] if data_dir is not None else []), Path("data")]
    pickled = None
    for base in bases:
        for folder in (base / FOLDER, base):
            present = [(folder / file).is_file() for file in (*TRAIN_FILES, TEST_FILE)]
            if not any(present):
                continue
            if not all(present):
                missing = (*TRAIN_FILES, TEST_FILE)[present.index(False)]
                raise DataError(f"cifar10: {folder / missing} is missing, though other batches are there: {HOW}")
            batches = [read_batch(folder / file) for file in TRAIN_FILES]
            images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
            source = "CIFAR-10 (Krizhevsky 2009), binary version, sizes and labels checked"
            return Published(images, labels, *read_batch(folder / TEST_FILE), CLASS_NAMES, source)
        if (base / "cifar-10-batches-py").is_dir():
            pickled = pickled or base / "cifar-10-batches-py"
    if pickled is not None:
        raise DataError(f"cifar10: {pickled} is the Python version, pickles, which the lab does not load: {HOW}")
    looked = " or ".join(str(base / FOLDER) for base in bases)
    raise DataError(f"cifar10: {TRAIN_FILES[0]} and the other batches are not in {looked}: {HOW}")
