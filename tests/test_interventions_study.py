"""studies/interventions.py: every technique trains, differs from the baseline, and a small run ends in its report."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lab import study, training
from lab.data.datasets import load
from lab.replication import Replication
from lab.study_file import load as load_study

STUDIES = Path(__file__).parent.parent / "studies"
STUDY = load_study(STUDIES / "interventions.py")
TINY = Replication("disjoint", 2, 2)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=20, n_validation=20)


def trained(digits, name):
    config = dataclasses.replace(
        STUDY.config({"variant": name}), epochs=6, n_train=40 if name != "half_the_data" else 20
    )
    if config.width > 64:
        config = dataclasses.replace(config, width=80)
    *_, last = training.fit(config, digits, TINY, seed=0, n_evaluations=6)
    return last.probabilities_test_DINC


@pytest.fixture(scope="module")
def baseline(digits):
    return trained(digits, "baseline")


def test_there_are_at_least_fifteen_techniques():
    assert len(STUDY.variants) > 15
    assert next(iter(STUDY.variants)) == "baseline"


@pytest.mark.parametrize("name", [name for name in STUDY.variants if name != "baseline"])
def test_every_technique_trains_and_makes_a_difference(digits, baseline, name):
    predicted = trained(digits, name)
    assert np.isfinite(predicted).all()
    if name != "early_stopping":  # six epochs are too few for it to stop any
        assert not np.array_equal(predicted, baseline)


@pytest.mark.slow
def test_a_small_run_ends_in_a_report_with_the_forest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(STUDIES / "interventions.py")
    assert study.main(["run", path, "--smoke", "--trials", "3", "--engine", "inline", "--device", "cpu"]) == 0
    page = (tmp_path / "reports" / "interventions,smoke.html").read_text()
    assert "What does each technique change?" in page
    assert "Trial" in page
    rows = (tmp_path / "reports" / "interventions,smoke" / "interventions.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 10
    assert "Seconds an epoch of all replicas takes" in page
