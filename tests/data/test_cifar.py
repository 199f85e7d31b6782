"""CIFAR-10 is read from its binary version only, and checked."""

from pathlib import Path

import numpy as np
import pytest
from fake_files import CIFAR_RECORDS, write_cifar

from lab.data import cifar, load
from lab.errors import DataError


@pytest.fixture
def batches(here: Path) -> Path:
    folder = here / "files" / cifar.FOLDER
    write_cifar(folder)
    return folder


def test_a_record_is_a_label_and_three_planes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "RECORDS", 1)
    red, green, blue = (np.full((32, 32), value, dtype=np.uint8) for value in (1, 2, 3))
    red[0, 5] = 99
    (here / "one.bin").write_bytes(bytes([7]) + red.tobytes() + green.tobytes() + blue.tobytes())
    images, labels = cifar.read_batch(here / "one.bin")
    np.testing.assert_array_equal(images, np.stack([red, green, blue])[None])
    assert labels.tolist() == [7]


def test_all_five_training_batches_are_read(batches: Path) -> None:
    dataset = load("cifar10", seed=0, data_dir=batches.parent, n_test=30)
    assert len(dataset.pool) + len(dataset.validation) == 5 * CIFAR_RECORDS
    assert dataset.image_shape == (3, 32, 32)


@pytest.mark.parametrize("file", [cifar.TRAIN_FILES[2], cifar.TEST_FILE])
@pytest.mark.parametrize("change", [-1, -cifar.RECORD_BYTES, 1])
def test_a_file_of_another_size_is_named(batches: Path, file: str, change: int) -> None:
    content = (batches / file).read_bytes()
    (batches / file).write_bytes(content[:change] if change < 0 else content + b"\0")
    with pytest.raises(DataError, match=rf"{file} has {len(content) + change} bytes, expected {len(content)}"):
        load("cifar10", seed=0, data_dir=batches)


def test_a_label_out_of_range_is_named(batches: Path) -> None:
    path = batches / cifar.TEST_FILE
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"test_batch\.bin has a label 10, expected 0 to 9"):
        load("cifar10", seed=0, data_dir=batches)


def test_a_missing_batch_is_named(batches: Path) -> None:
    (batches / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin is missing"):
        load("cifar10", seed=0, data_dir=batches)


def test_without_files_the_error_says_how_to_get_them(here: Path) -> None:
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
