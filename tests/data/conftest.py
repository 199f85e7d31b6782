"""Fixtures: an isolated working directory, and `case`, one way to load every data set."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from fake_files import CASES, DEBIAN, Case, isolate, write_cifar, write_idx, write_stl, write_svhn

from lab.data import Dataset, cifar, idx, load, stl10

FOLDERS = {
    "cifar10": (cifar.EDITIONS["cifar10"].folder, write_cifar),
    "cifar100": (cifar.EDITIONS["cifar100"].folder, lambda folder: write_cifar(folder, "cifar100")),
    "svhn": ("svhn", write_svhn),
    "stl10": (stl10.FOLDER, write_stl),
}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory, isolated."""
    isolate(monkeypatch, tmp_path)
    return tmp_path


def _build(case: str, root: Path) -> tuple[Path | None, Path | None, np.ndarray | None]:
    """Write the files of a case; return data_dir, the system folder and the labels of the official test part."""
    name, _, layout = case.partition("-")
    if name in FOLDERS:
        subfolder, write = FOLDERS[name]
        base = root / "data" if layout == "cwd" else root
        labels = write(base if layout == "flat" else base / subfolder)
        return None if layout == "cwd" else root, None, labels
    if layout == "debian":
        if not DEBIAN.is_dir():
            pytest.skip("the Debian package dataset-fashion-mnist is not installed")
        raw = gzip.decompress((DEBIAN / "t10k-labels-idx1-ubyte.gz").read_bytes())
        return None, DEBIAN, np.frombuffer(raw, dtype=np.uint8, offset=8)
    if layout == "system":
        return None, root / "system", write_idx(root / "system")
    if layout:
        place, packing = layout.split("-")
        base = root / "data" if place == "cwd" else root
        name = name.removeprefix("teacher_")
        folder = base if place == "flat" else base / idx.ORIGINS[name].folder / "raw"
        return (
            None if place == "cwd" else root,
            None,
            write_idx(folder, name, packed=packing == "gz"),
        )
    return None, None, None


@pytest.fixture(scope="session", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Every data set, in every layout of its files. What was loaded once is kept: arrays are not to be changed."""
    root = tmp_path_factory.mktemp("case")
    data_dir, system, labels = _build(request.param, root)
    name = request.param.partition("-")[0]
    kept: dict[str, Dataset] = {}

    def load_case(seed: int = 0, *, anew: bool = False, **sizes: int) -> Dataset:
        key = repr((seed, sizes))
        if anew or key not in kept:
            with pytest.MonkeyPatch.context() as monkeypatch:
                isolate(monkeypatch, root, system)
                kept[key] = load(name, seed=seed, data_dir=data_dir, **sizes)
        return kept[key]

    return Case(name, load_case, None if name.startswith("teacher") else labels)  # a teacher takes the training part
