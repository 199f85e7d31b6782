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

from lab.data import Dataset, cifar, idx

N_TRAIN, N_TEST = 400, 150
CIFAR_RECORDS = 80
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

IDX_CASES = [
    f"{name}-{layout}"
    for name in ("fashion_mnist", "mnist")
    for layout in ("torchvision-gz", "torchvision-unpacked", "flat-gz", "flat-unpacked", "cwd-gz")
]
CASES = [
    "digits", "gaussians", *IDX_CASES, "fashion_mnist-system", "fashion_mnist-debian",
    "cifar10-folder", "cifar10-flat", "cifar10-cwd",
]  # fmt: skip


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, *, packed: bool = True, n_train: int = N_TRAIN, n_test: int = N_TEST) -> np.ndarray:
    """Write four idx files and return the labels of the test part."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    labels = np.zeros(0)
    for part, n in (("train", n_train), ("t10k", n_test)):
        images = rng.integers(0, 256, size=(n, 28, 28), dtype=np.uint8)
        labels = (rng.random(n) ** 2 * 10).astype(np.uint8)  # classes of unequal size: stratifying is seen
        for file, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            if packed:
                (folder / f"{file}.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))
            else:
                (folder / file).write_bytes(idx_bytes(array))
    return labels


def write_cifar(folder: Path) -> np.ndarray:
    """Write six binary batches and return the labels of the test part."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(8)
    records = np.zeros((0, 0))
    for file in (*cifar.TRAIN_FILES, cifar.TEST_FILE):
        records = rng.integers(0, 256, size=(CIFAR_RECORDS, cifar.RECORD_BYTES), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / file).write_bytes(records.tobytes())
    return records[:, 0]


def isolate(monkeypatch: pytest.MonkeyPatch, root: Path, system: Path | None = None) -> None:
    """Work in `root`, with CIFAR batches small and no Debian package but the given folder."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(cifar, "RECORDS", CIFAR_RECORDS)
    monkeypatch.setitem(idx.ORIGINS, "fashion_mnist", idx.ORIGINS["fashion_mnist"]._replace(system=system))


@dataclass(frozen=True)
class Case:
    name: str
    load: Callable[..., Dataset]
    official_test_labels: np.ndarray | None  # None: the test set is cut from the same examples as the rest
