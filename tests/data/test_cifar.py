"""CIFAR is read from its binary version only, and checked."""

import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from fake_files import CIFAR_RECORDS, write_cifar

from lab.data import cifar, load
from lab.errors import DataError

FOLDER = "cifar-10-batches-bin"


def no_network(*_: object, **__: object) -> None:
    raise urllib.error.URLError("no network here")


@pytest.fixture
def batches(here: Path) -> Path:
    folder = here / "files" / FOLDER
    write_cifar(folder)
    return folder


@pytest.mark.parametrize(("name", "label_bytes", "label"), [("cifar10", [7], 7), ("cifar100", [3, 98], 98)])
def test_a_record_is_its_label_and_three_planes(here: Path, name: str, label_bytes: list[int], label: int) -> None:
    red, green, blue = (np.full((32, 32), value, dtype=np.uint8) for value in (1, 2, 3))
    red[0, 5] = 99
    (here / "one.bin").write_bytes(bytes(label_bytes) + red.tobytes() + green.tobytes() + blue.tobytes())
    images, labels = cifar.read_batch(name, here / "one.bin", 1)
    np.testing.assert_array_equal(images, np.stack([red, green, blue])[None])
    assert labels.tolist() == [label]


def test_all_five_training_batches_are_read(batches: Path) -> None:
    dataset = load("cifar10", seed=0, data_dir=batches.parent, n_test=30)
    assert len(dataset.pool) + len(dataset.validation) == 5 * CIFAR_RECORDS["cifar10"]
    assert dataset.image_shape == (3, 32, 32)


@pytest.mark.parametrize("file", ["data_batch_3.bin", "test_batch.bin"])
@pytest.mark.parametrize("change", [-1, -3073, 1])
def test_a_file_of_another_size_is_named(batches: Path, file: str, change: int) -> None:
    content = (batches / file).read_bytes()
    (batches / file).write_bytes(content[:change] if change < 0 else content + b"\0")
    with pytest.raises(DataError, match=rf"{file} has {len(content) + change} bytes, expected {len(content)}"):
        load("cifar10", seed=0, data_dir=batches)


def test_a_label_out_of_range_is_named(batches: Path) -> None:
    path = batches / "test_batch.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"test_batch\.bin has a label 10, expected 0 to 9"):
        load("cifar10", seed=0, data_dir=batches)


def test_a_missing_batch_is_named(batches: Path) -> None:
    (batches / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin is missing"):
        load("cifar10", seed=0, data_dir=batches)


def test_without_files_and_network_the_error_says_how_to_get_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    with pytest.raises(DataError, match=r"data_batch_1\.bin.*cifar-10-binary\.tar\.gz"):
        load("cifar10", seed=0)


def test_the_python_version_is_not_opened_but_explained(here: Path) -> None:
    folder = here / "cifar-10-batches-py"
    folder.mkdir()
    # a pickle that would make a file if it were loaded: os.mkdir("loaded")
    (folder / "data_batch_1").write_bytes(b"cos\nmkdir\n(S'loaded'\ntR.")
    with pytest.raises(DataError, match=r"cifar-10-batches-py is the Python version.*cifar-10-binary"):
        load("cifar10", seed=0, data_dir=here)
    assert not (here / "loaded").exists()


def test_a_downloaded_archive_is_unpacked_and_only_its_batches_are_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = here / "published" / FOLDER
    write_cifar(published)
    (published / "readme.html").write_text("not needed")
    asked = []

    def copy(url: str, root: str, filename: str, md5: str) -> None:
        asked.append((url, md5))
        with tarfile.open(Path(root) / filename, "w:gz") as archive:
            archive.add(published, arcname=FOLDER)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", copy)
    dataset = load("cifar10", seed=0)
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")]
    assert len(list((here / "data" / FOLDER).iterdir())) == 6
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    assert load("cifar10", seed=0).digest == dataset.digest


def test_an_archive_without_the_batches_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(url: str, root: str, filename: str, md5: str) -> None:
        with tarfile.open(Path(root) / filename, "w:gz"):
            pass

    monkeypatch.setattr("torchvision.datasets.utils.download_url", copy)
    with pytest.raises(DataError, match="the download failed"):
        load("cifar10", seed=0)
    assert not (here / "data" / FOLDER).exists()
