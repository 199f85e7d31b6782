"""A run on a data set that is truncated, wrong, missing or mislabelled: exit code 6, and one line that helps."""

import urllib.error
from pathlib import Path

import numpy as np
import pytest
from fake_files import idx_bytes, write_idx

from lab import study
from tests.command_line import LIGHT, one_line_error

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
N = 400


def truncate(folder: Path) -> None:
    (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:-1000])


def replace(folder: Path) -> None:
    (folder / IMAGES).write_bytes((folder / LABELS).read_bytes())


def remove(folder: Path) -> None:
    (folder / LABELS).unlink()


def mislabel(folder: Path) -> None:
    (folder / LABELS).write_bytes(idx_bytes(np.full(N, 11, dtype=np.uint8)))


def remove_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.filterwarnings("ignore:mnist. no idx files in --data-dir")  # said as a warning before the error
@pytest.mark.parametrize(
    ("fault", "names", "got", "expected"),
    [
        (truncate, IMAGES, f"{N * 28 * 28 - 1000} bytes", f"expected {N * 28 * 28}"),
        (replace, IMAGES, "magic number 00000801", "expected 00000803"),
        (remove, LABELS, "is missing", f"though {IMAGES} is there"),
        (mislabel, LABELS, "a label 11", "expected 0 to 9"),
        (remove_all, IMAGES, "are not in ./data", "the download failed"),
    ],
)
def test_a_run_on_a_faulty_data_set_ends_with_code_6_naming_file_finding_and_way_out(
    here: Path, monkeypatch, capsys, fault, names: str, got: str, expected: str
) -> None:
    def refuse(*args, **options):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("torchvision.datasets.utils.urllib.request.urlopen", refuse)
    folder = here / "files"
    write_idx(folder, packed=False, n_train=N, n_test=200)
    (here / "studies").mkdir()
    (here / "studies" / "toy.py").write_text(LIGHT)
    fault(folder)
    assert study.main(["run", "toy", "--data", "mnist", "--data-dir", str(folder)]) == 6
    line = one_line_error(capsys)
    for part in (names, got, expected, "and give it as --data-dir"):
        assert part in line
    assert not (here / "mlruns" / "optuna.db").exists()
