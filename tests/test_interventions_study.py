"""The studies of interventions: every technique trains and differs from the baseline; a small run ends in a report."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lab import study, training
from lab.data import transforms
from lab.data.datasets import load
from lab.replication import Replication
from lab.study_file import load as load_study

STUDIES = Path(__file__).parent.parent / "studies"
STUDY, CNN = (load_study(STUDIES / f"{name}.py") for name in ("interventions", "interventions_cnn"))
TECHNIQUES = [(study, name) for study in (STUDY, CNN) for name in list(study.variants)[1:]]
TINY = Replication("disjoint", 2, 2)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=20, n_validation=20)


def trained(digits, of, name):
    config = dataclasses.replace(of.config({"variant": name}), epochs=6, n_train=40 if name != "half_the_data" else 20)
    if config.width > 64:
        config = dataclasses.replace(config, width=80)
    *_, last = training.fit(config, transforms.at_side(digits, config.resize), TINY, seed=0, n_evaluations=6)
    return last.probabilities_test_DINC


@pytest.fixture(scope="module")
def baselines(digits):
    return {id(of): trained(digits, of, "baseline") for of in (STUDY, CNN)}


def test_there_are_at_least_fifteen_techniques():
    for of in (STUDY, CNN):
        assert len(of.variants) > 15
        assert next(iter(of.variants)) == "baseline"
        assert of.n_trials == len(of.variants)


@pytest.mark.parametrize(("of", "name"), TECHNIQUES, ids=lambda v: v if isinstance(v, str) else v.fixed["family"])
def test_every_technique_trains_and_makes_a_difference(digits, baselines, of, name):
    predicted = trained(digits, of, name)
    assert np.isfinite(predicted).all()
    if name not in ("early_stopping", "twice_the_epochs"):  # six epochs are too few for it to stop any, and are all
        assert not np.array_equal(predicted, baselines[id(of)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["interventions", "interventions_cnn"])
def test_a_small_run_ends_in_a_report_with_the_forest(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = str(STUDIES / f"{name}.py")
    assert study.main(["run", path, "--smoke", "--trials", "3", "--engine", "inline", "--device", "cpu"]) == 0
    page = (tmp_path / "reports" / f"{name},smoke.html").read_text()
    assert "What does each technique change?" in page
    assert "Trial" in page
    rows = (tmp_path / "reports" / f"{name},smoke" / "interventions.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 8
    assert "Seconds an epoch" not in page  # eight epochs are too few to take the time beside them


@pytest.mark.slow
def test_a_longer_run_takes_the_time_of_an_epoch_in_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = {"n_resamples": 2, "n_inits": 2, "n_train": 40, "epochs": 16, "n_validation": 20, "n_test": 40}
    settings = [word for knob, value in plan.items() for word in ("--set", f"{knob}={value}")]
    here = ["--trials", "2", "--engine", "inline", "--device", "cpu"]
    assert study.main(["run", str(STUDIES / "interventions.py"), *here, *settings]) == 0
    (page,) = (tmp_path / "reports").glob("*.html")
    assert "Seconds an epoch of all replicas takes" in page.read_text()
    rows = (page.with_suffix("") / "interventions.csv").read_text().splitlines()
    assert len(rows) == 1 + 10
    assert sum("epoch_time" in row for row in rows) == 1
