"""Every study of studies/ runs with --smoke from the command line to its report; data to download are replaced."""

from pathlib import Path

import pytest

from lab import study
from lab.data import mnist1d

STUDIES = Path(__file__).parent.parent / "studies"
SMALL = ["--set", "n_train=40", "--set", "n_validation=20", "--set", "n_test=40"]
FLAGS = {  # of those whose data are not shipped with scikit-learn, or are too many
    "double_descent": ["--set", "batch_size=20", *SMALL],
    "fashion_capacity": ["--data", "digits", *SMALL],
    "yang_resnet_width": ["--data", "digits", "--set", "epochs=1", *SMALL],
}
ELSEWHERE = {"interventions", "interventions_cnn", "robustness", "tune"}  # tests/test_interventions_study.py …
NAMES = sorted(file.stem for file in STUDIES.glob("*.py") if file.stem not in ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_study_in_small_ends_in_its_report(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mnist1d, "N_EXAMPLES", 400)
    here = ["--trials", "2", "--engine", "inline", "--device", "cpu"]
    assert study.main(["run", str(STUDIES / f"{name}.py"), "--smoke", *here, *FLAGS.get(name, [])]) == 0
    (page,) = (tmp_path / "reports").glob("*.html")
    assert page.name.startswith(name)
    assert page.stat().st_size > 100_000
    assert "2 finished in " in capsys.readouterr().err
