"""Small files in the formats of the published ones, for the tests of lab.data.

Images are random bytes, so no two are alike and splits can be compared by content. Nothing here reads the network or
what the machine has installed, except the case `fashion_mnist-debian`.
"""

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lab.data import Dataset, cifar, idx, mnist1d, stl10

N_TRAIN, N_TEST = 400, 150
CIFAR_RECORDS = {"cifar10": 80, "cifar100": 800}
STL_RECORDS = {"N_TRAIN": 220, "N_TEST": 90}
N_MNIST1D = 500
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

IDX_CASES = [
    f"{name}-{layout}"
    for name in ("fashion_mnist", "mnist")
    for layout in ("torchvision-gz", "torchvision-unpacked", "flat-gz", "flat-unpacked", "cwd-gz")
]
CASES = [
    "digits", "gaussians", "teacher", "teacher_fashion_mnist-torchvision-gz", "mnist1d", *IDX_CASES,
    "fashion_mnist-system", "fashion_mnist-debian",
    "kmnist-torchvision-gz", "emnist-flat-unpacked",
    "cifar10-folder", "cifar10-flat", "cifar10-cwd", "cifar100-folder",
    "svhn-folder", "svhn-cwd", "stl10-flat",
]  # fmt: skip


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(
    folder: Path, name: str = "mnist", *, packed: bool = True, n_train: int = N_TRAIN, n_test: int = N_TEST
) -> np.ndarray:
    """Write four idx files and return the labels of the test part."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    origin = idx.ORIGINS[name]
    n_classes = len(origin.class_names)
    labels = np.zeros(0)
    for part, n in enumerate((n_train, n_test)):
        images = rng.integers(0, 256, size=(n, 28, 28), dtype=np.uint8)
        labels = (rng.random(n) ** 2 * n_classes).astype(np.uint8)  # classes of unequal size: stratifying is seen
        if n_classes > 10:
            labels[: 3 * n_classes] = np.arange(3 * n_classes) % n_classes  # every class is there
        for file, array in zip(origin.files[2 * part : 2 * part + 2], (images, labels), strict=True):
            if packed:
                (folder / f"{file}.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))
            else:
                (folder / file).write_bytes(idx_bytes(array))
    return labels


def write_cifar(folder: Path, name: str = "cifar10") -> np.ndarray:
    """Write the binary batches and return the labels of the test part."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(8)
    edition = cifar.EDITIONS[name]
    n_classes = len(edition.class_names)
    records = np.zeros((0, 0))
    for file in (*edition.train_files, edition.test_file):
        size = (CIFAR_RECORDS[name], edition.label_bytes + cifar.PIXEL_BYTES)
        records = rng.integers(0, 256, size=size, dtype=np.uint8)
        records[:, edition.label_bytes - 1] = np.arange(len(records)) % n_classes
        (folder / file).write_bytes(records.tobytes())
    return records[:, edition.label_bytes - 1]


def write_svhn(folder: Path) -> np.ndarray:
    """Write the two .mat files and return the labels of the test part, 0 to 9."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(9)
    stored = np.zeros(0)
    for file, n in (("train_32x32.mat", N_TRAIN), ("test_32x32.mat", N_TEST)):
        images = rng.integers(0, 256, size=(32, 32, 3, n), dtype=np.uint8)
        stored = rng.integers(1, 11, size=n).astype(np.uint8)
        savemat(folder / file, {"X": images, "y": stored[:, None]}, do_compression=True)
    return stored % 10


def write_stl(folder: Path) -> np.ndarray:
    """Write the four binary files and return the labels of the test part, 0 to 9."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(10)
    stored = np.zeros(0)
    for part, n in (("train", STL_RECORDS["N_TRAIN"]), ("test", STL_RECORDS["N_TEST"])):
        images = rng.integers(0, 256, size=(n, 3, 96, 96), dtype=np.uint8)
        stored = (np.arange(n) % 10 + 1).astype(np.uint8)
        (folder / f"{part}_X.bin").write_bytes(images.tobytes())
        (folder / f"{part}_y.bin").write_bytes(stored.tobytes())
    return stored - 1


def isolate(monkeypatch: pytest.MonkeyPatch, root: Path, system: Path | None = None) -> None:
    """Work in `root`, with the files of CIFAR, STL-10 and MNIST-1D small and no Debian package but the given folder."""
    monkeypatch.chdir(root)
    for name, n in CIFAR_RECORDS.items():
        monkeypatch.setitem(cifar.EDITIONS, name, cifar.EDITIONS[name]._replace(n_train=n, n_test=n))
    for name, n in STL_RECORDS.items():
        monkeypatch.setattr(stl10, name, n)
    monkeypatch.setattr(mnist1d, "N_EXAMPLES", N_MNIST1D)
    monkeypatch.setitem(idx.ORIGINS, "fashion_mnist", idx.ORIGINS["fashion_mnist"]._replace(system=system))


@dataclass(frozen=True)
class Case:
    name: str
    load: Callable[..., Dataset]
    official_test_labels: np.ndarray | None  # None: the test set is cut from the same examples as the rest
