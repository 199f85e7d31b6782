"""SVHN and STL-10: pixels and labels in their places, and damage named."""

from pathlib import Path

import numpy as np
import pytest
from fake_files import write_stl, write_svhn
from scipy.io import savemat

from lab.data import load, stl10, svhn
from lab.errors import DataError


def test_svhn_images_stand_upright_and_label_10_is_the_digit_0(tmp_path: Path) -> None:
    images = np.zeros((32, 32, 3, 2), dtype=np.uint8)
    images[4, 9, 2, 1] = 200  # row 4, column 9, blue, second image
    savemat(tmp_path / "a.mat", {"X": images, "y": np.array([[10], [3]], dtype=np.uint8)})
    read, labels = svhn.read_part(tmp_path / "a.mat")
    assert read.shape == (2, 3, 32, 32)
    assert read[1, 2, 4, 9] == 200
    assert read.sum() == 200
    assert labels.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "no arrays X and y"),
        ({"X": np.zeros((32, 32, 2), np.uint8), "y": np.ones((2, 1))}, r"shape \(32, 32, 2\)"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))}, "float64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [1]])}, "labels 0 to 1, expected 1 to 10"),
    ],
)
def test_an_svhn_file_with_other_contents_is_named(here: Path, arrays: dict, message: str) -> None:
    write_svhn(here)
    savemat(here / "test_32x32.mat", arrays)
    with pytest.raises(DataError, match=rf"test_32x32\.mat.*{message}.*--data-dir"):
        load("svhn", seed=0, data_dir=here)


@pytest.mark.parametrize("content", [b"", b"not a mat file", None])
def test_an_svhn_file_that_is_cut_off_or_none_is_named(here: Path, content: bytes | None) -> None:
    write_svhn(here)
    path = here / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(DataError, match=r"train_32x32\.mat cannot be read"):
        load("svhn", seed=0, data_dir=here)


def test_one_missing_file_is_named(here: Path) -> None:
    write_svhn(here)
    (here / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"test_32x32\.mat is missing"):
        load("svhn", seed=0, data_dir=here)


def test_stl_images_are_stored_by_columns(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 96, 96), dtype=np.uint8)
    pixels[0, 1, 7, 2] = 99  # as stored: column 7, row 2
    (tmp_path / "train_X.bin").write_bytes(pixels.tobytes())
    (tmp_path / "train_y.bin").write_bytes(bytes([10]))
    images, labels = stl10.read_part(tmp_path, "train", 1)
    assert images[0, 1, 2, 7] == 99
    assert labels.tolist() == [9]


@pytest.mark.parametrize(("file", "message"), [("train_X.bin", "bytes, expected"), ("test_y.bin", "bytes, expected")])
def test_an_stl_file_of_another_size_is_named(here: Path, file: str, message: str) -> None:
    write_stl(here)
    (here / file).write_bytes((here / file).read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{file}.*{message}"):
        load("stl10", seed=0, data_dir=here)


def test_an_stl_label_out_of_range_is_named(here: Path) -> None:
    write_stl(here)
    labels = bytearray((here / "test_y.bin").read_bytes())
    labels[3] = 0
    (here / "test_y.bin").write_bytes(bytes(labels))
    with pytest.raises(DataError, match=r"test_y\.bin has labels 0 to 10, expected 1 to 10"):
        load("stl10", seed=0, data_dir=here)


@pytest.mark.parametrize("name", ["svhn", "stl10", "kmnist", "emnist", "cifar100"])
def test_without_files_and_network_the_error_says_what_to_get(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    with pytest.raises(DataError, match=rf"{name}: .*download failed \(no network here\): .*--data-dir"):
        load(name, seed=0)


def test_addresses_and_checksums_are_those_of_torchvision() -> None:
    from torchvision import datasets

    assert datasets.STL10.url == stl10.ARCHIVE
    assert datasets.STL10.tgz_md5 == stl10.MD5
    published = [datasets.SVHN.split_list[part] for part in ("train", "test")]
    assert [(f"{svhn.ADDRESS}/{file}", file, md5) for file, md5 in zip(svhn.FILES, svhn.MD5, strict=True)] == [
        tuple(entry) for entry in published
    ]
