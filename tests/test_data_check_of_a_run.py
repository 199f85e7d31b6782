"""What looks wrong with a data set is said by `run` before it trains and stands in the report: folders, own data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab import study
from lab.data import datasets

FILE = '''
"""Is it right?"""
import numpy as np
from lab.spec import Float, Replication, Study


def mine():
    images = np.random.default_rng(0).random((240, 6, 6))
    images[40:44] = images[0]
    images[7] = 0.5
    return images, np.arange(240) % 3


STUDY = Study(
    question="Is it right?",
    data="{data}",
    space=dict(learning_rate=Float(1e-3, 1e-2)),
    fixed=dict(width=8, depth=1, epochs=2, n_train=40),
    replication=Replication("disjoint", 2, 2),
    n_trials=1,
    n_validation=24,
    n_test=40,
    learning_curve=(),
)
'''


def pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(240):
        file = folder / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), 200) if k == 7 else rng.integers(0, 256, size=(8, 8, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    (folder / "a" / "torn.png").write_bytes(b"no picture")
    for k in range(4):
        (folder / "a" / f"copy {k}.png").write_bytes((folder / "a" / "0.png").read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("data", ["imagefolder:pictures@8", "mine"])
def test_a_run_says_what_looks_wrong_and_so_does_its_report(tmp_path, monkeypatch, capsys, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
    pictures(tmp_path / "pictures")
    (tmp_path / "checked.py").write_text(FILE.format(data=data))
    assert study.main(["run", "checked.py", "--smoke", "--engine", "inline", "--device", "cpu"]) == 0
    said = [line.removeprefix("data: ") for line in capsys.readouterr().err.splitlines() if line.startswith("data: ")]
    assert sum("no contrast" in line for line in said) == 1
    assert any("cop" in line or "too: results look too good" in line for line in said)
    assert ("1 file left out, unreadable as images: a/torn.png" in said) == (data != "mine")
    page = (tmp_path / "reports" / "checked,smoke.html").read_text()
    for line in said:
        assert line in page
