"""SVHN, house numbers in street views (Netzer et al. 2011), cropped digits, from its two .mat files.

A .mat file of MATLAB 5 holds numeric arrays in a published layout (no code is run to read it): X, 32×32×3×N uint8, and
y, N labels from 1 to 10, where 10 is the digit 0.
"""

import hashlib
import zlib
from pathlib import Path

import numpy as np

from lab.data import published
from lab.data.published import DOWNLOADS, Published
from lab.errors import DataError

FILES = ("train_32x32.mat", "test_32x32.mat")
MD5 = ("e26dedcc434d2e4c54c9b2d4a06d8373", "eb5a983be6a315427106f1b164d9cef3")  # as in torchvision's SVHN
ADDRESS = "http://ufldl.stanford.edu/housenumbers"
HOW = f"get {FILES[0]} and {FILES[1]} from {ADDRESS} and give their folder as --data-dir"


def read_part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 3, 32, 32) uint8 and labels (N,) int64 of one file.

    Raises:
        DataError: It cannot be read, its arrays have other shapes or types, or a label is not 1 to 10.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        arrays = loadmat(path, variable_names=["X", "y"])
    except (OSError, ValueError, TypeError, NotImplementedError, zlib.error, MatReadError) as error:
        raise DataError(f"svhn: {path} cannot be read, it is damaged or truncated ({error}): {HOW}") from error
    if not {"X", "y"} <= set(arrays):
        raise DataError(f"svhn: {path} holds no arrays X and y: it is another file: {HOW}")
    images, labels = arrays["X"], arrays["y"].ravel()
    if images.shape != (32, 32, 3, len(labels)) or images.dtype != np.uint8 or not len(labels):
        raise DataError(
            f"svhn: {path} has X of shape {images.shape}, {images.dtype}, with {len(labels)} labels, "
            f"expected (32, 32, 3, N), uint8: {HOW}"
        )
    if labels.min() < 1 or labels.max() > 10:
        raise DataError(f"svhn: {path} has labels {labels.min()} to {labels.max()}, expected 1 to 10: {HOW}")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10


def load(data_dir: Path | None) -> Published:
    """Return SVHN from `data_dir` or ./data, or download it.

    Raises:
        DataError: It is not there and cannot be downloaded, or a file is not what it claims to be.
    """
    folder = published.find_folder("svhn", data_dir, "svhn", FILES, HOW)
    if folder is None:
        folder = DOWNLOADS / "svhn"
        published.download(
            "svhn", [(f"{ADDRESS}/{file}", md5) for file, md5 in zip(FILES, MD5, strict=True)], folder, wanted=FILES,
            missing=f"{FILES[0]} and {FILES[1]} are not in {data_dir or DOWNLOADS}", how=HOW,
        )  # fmt: skip
    parts = [read_part(folder / file) for file in FILES]
    known = [_md5(folder / file) == md5 for file, md5 in zip(FILES, MD5, strict=True)]
    checked = "published files by checksum" if all(known) else "not the published files byte by byte"
    source = f"SVHN, cropped digits (Netzer et al. 2011), .mat files ({checked})"
    return Published(*parts[0], *parts[1], tuple("0123456789"), source)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
