"""Files that are missing, damaged or another data set's are named in the error; good ones are found and checked."""

import gzip
import socket
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake_files import DEBIAN, idx_bytes, write_idx

from lab.data import idx, load, published
from lab.errors import DataError

IMAGES_FILE, LABELS_FILE = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def files(here: Path) -> Path:
    folder = here / "files"
    write_idx(folder, packed=False, n_train=40, n_test=20)
    return folder


def test_values_come_back_as_they_were_written(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(array)))
    plain, packed = idx.read_idx(tmp_path / "a", 3), idx.read_idx(tmp_path / "a.gz", 3)
    np.testing.assert_array_equal(plain[0], array)
    np.testing.assert_array_equal(packed[0], array)
    assert plain[1] == packed[1]


def truncated(content: bytes) -> bytes:
    return content[:-1]


def cut_in_header(content: bytes) -> bytes:
    return content[:6]


def too_long(content: bytes) -> bytes:
    return content + b"\0"


def wrong_magic(content: bytes) -> bytes:
    return b"\0\0\x0d" + content[3:]


def empty(content: bytes) -> bytes:
    return b""


def absurd_size(content: bytes) -> bytes:
    return content[:4] + b"\xff" * 12 + content[16:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "31359 bytes of values, expected 31360"),
        (cut_in_header, "damaged"),
        (too_long, "more of values, expected 31360"),
        (wrong_magic, "magic number 00000d03, expected 00000803"),
        (empty, "magic number , expected 00000803"),
        (absurd_size, "the header claims"),
    ],
)
def test_a_damaged_file_is_named(files: Path, damage, message: str) -> None:
    path = files / IMAGES_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{IMAGES_FILE}.*{message}"):
        load("mnist", seed=0, data_dir=files)


def flipped(packed: bytes) -> bytes:
    middle = len(packed) // 2
    return packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :]


@pytest.mark.parametrize("damage", [truncated, cut_in_header, flipped, wrong_magic])
def test_a_damaged_gz_file_is_named(here: Path, damage) -> None:
    write_idx(here, n_train=40, n_test=20)
    path = here / f"{IMAGES_FILE}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{IMAGES_FILE}\.gz: .*damaged"):
        load("mnist", seed=0, data_dir=here)


def test_labels_out_of_range_are_named(files: Path) -> None:
    (files / LABELS_FILE).write_bytes(idx_bytes(np.full(40, 10, dtype=np.uint8)))
    with pytest.raises(DataError, match=f"{LABELS_FILE} has a label 10, expected 0 to 9"):
        load("mnist", seed=0, data_dir=files)


def test_another_number_of_labels_than_of_images_is_named(files: Path) -> None:
    (files / LABELS_FILE).write_bytes(idx_bytes(np.zeros(39, dtype=np.uint8)))
    with pytest.raises(DataError, match=f"40 images, {LABELS_FILE} 39 labels"):
        load("mnist", seed=0, data_dir=files)


@pytest.mark.parametrize("shape", [(40, 28, 27), (40, 8, 8), (0, 28, 28)])
def test_images_of_another_shape_are_named(files: Path, shape: tuple[int, ...]) -> None:
    (files / IMAGES_FILE).write_bytes(idx_bytes(np.zeros(shape, dtype=np.uint8)))
    with pytest.raises(DataError, match=rf"{IMAGES_FILE} has images of shape .*expected \(N, 28, 28\)"):
        load("mnist", seed=0, data_dir=files)


def test_labels_in_place_of_images_are_an_error(files: Path) -> None:
    (files / IMAGES_FILE).write_bytes((files / LABELS_FILE).read_bytes())
    with pytest.raises(DataError, match="magic number 00000801, expected 00000803"):
        load("mnist", seed=0, data_dir=files)


def test_one_missing_file_of_four_is_named(files: Path) -> None:
    (files / LABELS_FILE).unlink()
    with pytest.raises(DataError, match=f"{LABELS_FILE}.* is missing"):
        load("mnist", seed=0, data_dir=files)


def test_a_data_dir_that_does_not_exist_is_an_error_even_where_the_files_are_elsewhere(here: Path) -> None:
    write_idx(here / "data")
    with pytest.raises(DataError, match="--data-dir nowhere is not a directory"):
        load("mnist", seed=0, data_dir="nowhere")


def test_a_data_dir_without_the_files_is_said_before_looking_elsewhere(here: Path) -> None:
    write_idx(here / "data")
    (here / "other").mkdir()
    with pytest.warns(UserWarning, match="no idx files in --data-dir"):
        dataset = load("mnist", seed=0, data_dir="other")
    assert "from ./data" in dataset.source


def test_the_users_directory_comes_before_the_working_directory_and_packed_before_unpacked(here: Path) -> None:
    write_idx(here / "data")
    write_idx(here / "mine", packed=True)
    write_idx(here / "mine", packed=False)
    found = idx.find("mnist", here / "mine")
    assert found is not None
    paths, where = found
    assert [path.parent for path in paths] == [here / "mine"] * 4
    assert {path.suffix for path in paths} == {".gz"}
    assert where == "--data-dir"


# ---- checksums ----------------------------------------------------------------------------------------------------


def test_files_that_are_not_the_published_ones_load_and_the_source_says_so(files: Path) -> None:
    assert "not the published files" in load("fashion_mnist", seed=0, data_dir=files).source


def test_checksums_and_classes_are_those_of_torchvision() -> None:
    from torchvision import datasets

    for origin in idx.ORIGINS.values():
        peer = getattr(datasets, origin.folder)
        if origin.archive:
            assert (peer.url, peer.md5) == (origin.archive, *origin.md5)
        else:
            assert tuple(peer.resources) == tuple((f"{f}.gz", m) for f, m in zip(idx.FILES, origin.md5, strict=True))
    assert tuple(datasets.FashionMNIST.classes) == idx.ORIGINS["fashion_mnist"].class_names
    assert tuple(datasets.KMNIST.classes) == idx.ORIGINS["kmnist"].class_names
    assert tuple(datasets.EMNIST.classes_split_dict["balanced"]) == idx.ORIGINS["emnist"].class_names


def test_emnist_is_stored_by_columns_and_stands_upright(here: Path) -> None:
    write_idx(here, "emnist", packed=False)
    stored, _ = idx.read_idx(here / "emnist-balanced-train-images-idx3-ubyte", 3)
    np.testing.assert_array_equal(idx.load("emnist", here).train_images[:, 0], stored.transpose(0, 2, 1))


def test_the_archive_of_emnist_gives_its_four_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(here / "gzip", "emnist")

    def copy(url: str, root: str, filename: str, md5: str) -> None:
        with zipfile.ZipFile(Path(root) / filename, "w") as archive:
            for path in (here / "gzip").iterdir():
                archive.write(path, f"gzip/{path.name}")
            archive.writestr("gzip/emnist-letters-train-images-idx3-ubyte.gz", "not needed")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", copy)
    assert load("emnist", seed=0).n_classes == 47
    assert len(list((here / "data/EMNIST/raw").iterdir())) == 4


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_debians_files_are_the_published_ones_and_are_not_taken_for_mnist(tmp_path: Path) -> None:
    dataset = load("fashion_mnist", seed=0, data_dir=DEBIAN)
    assert "published files by checksum" in dataset.source
    assert (len(dataset.pool), len(dataset.validation), len(dataset.test)) == (58_000, 2_000, 2_000)
    with pytest.raises(DataError, match="is the file of fashion_mnist"):
        load("mnist", seed=0, data_dir=DEBIAN)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_debians_labels_have_torchvisions_checksum_once_the_gzip_header_is_the_original_one() -> None:
    """Why the sha256 sums of the contents can be trusted: only name and time differ from the published file."""
    import hashlib
    import struct

    file = "t10k-labels-idx1-ubyte"
    packed = (DEBIAN / f"{file}.gz").read_bytes()
    original = packed[:3] + b"\x08" + struct.pack("<I", 1504176627) + packed[8:10] + file.encode() + b"\0" + packed[10:]
    assert hashlib.md5(original, usedforsecurity=False).hexdigest() == idx.ORIGINS["fashion_mnist"].md5[3]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_known_by_either_checksum_of_another_data_set_is_refused(
    files: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import hashlib

    sums = tuple(hashlib.new(kind, (files / file).read_bytes()).hexdigest() for file in idx.FILES)
    known = idx.ORIGINS["fashion_mnist"]._replace(**{kind: sums})
    monkeypatch.setitem(idx.ORIGINS, "fashion_mnist", known)
    assert "published files by checksum" in load("fashion_mnist", seed=0, data_dir=files).source
    with pytest.raises(DataError, match="is the file of fashion_mnist"):
        load("mnist", seed=0, data_dir=files)


# ---- download -----------------------------------------------------------------------------------------------------


def test_without_files_and_network_the_error_says_where_was_looked_and_how_to_get_them(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    with pytest.raises(DataError, match=rf"{IMAGES_FILE}\(.gz\).*\./data.*no network.*--data-dir"):
        load("mnist", seed=0)
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist"):
        load("fashion_mnist", seed=0)
    assert list(here.iterdir()) == []


def test_a_silent_server_is_given_up_after_the_timeout(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
        port = server.getsockname()[1]
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(published, "TIMEOUT_SECONDS", 0.2)
        with pytest.raises(DataError, match="timed out"):
            load("mnist", seed=0)
    assert socket.getdefaulttimeout() is None


def test_what_was_downloaded_lies_in_torchvisions_layout_and_is_found_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(here / "server", n_train=40, n_test=20)
    asked: list[str] = []

    def copy(url: str, root: str, filename: str, md5: str) -> None:
        asked.append(url)
        (Path(root) / filename).write_bytes((here / "server" / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", copy)
    first = load("mnist", seed=0)
    assert len(asked) == 4
    assert sorted(path.name for path in (here / "data/MNIST/raw").iterdir()) == sorted(f"{f}.gz" for f in idx.FILES)
    assert load("mnist", seed=0).digest == first.digest
    assert len(asked) == 4


def test_a_download_that_breaks_off_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(here / "server", n_train=40, n_test=20)

    def copy_one(url: str, root: str, filename: str, md5: str) -> None:
        if "labels" in filename:
            raise RuntimeError("File not found or corrupted.")
        (Path(root) / filename).write_bytes((here / "server" / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", copy_one)
    with pytest.raises(DataError, match="corrupted"):
        load("mnist", seed=0)
    assert not (here / "data").exists()
