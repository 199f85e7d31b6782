"""What a trial records beside its ordinary test error: the parts of the error under attack, and signal health."""

import io
import json
from dataclasses import asdict

import pandas as pd
import pytest

from lab import training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.replication import Replication
from lab.spec import Study
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate
from tests.builders import decomposition

CONFIG = TrialConfig(width=8, depth=2, epochs=6, n_train=60, learning_rate=0.01, attack_epsilon=0.1)
PLAN = Replication("disjoint", 3, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    study = Study(question="?", data="digits", fixed=asdict(CONFIG), replication=PLAN, n_validation=30, n_test=50)
    spec = json.loads(json.dumps(study.to_dict()))
    task = Task(study="s", spec=spec, phase="explore", number=0, config=asdict(CONFIG))
    return evaluate(task, Home(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def evaluations():
    digits = load("digits", seed=0, n_validation=30, n_test=50)
    return digits, list(training.fit(CONFIG, digits, PLAN, seed=0))


def test_the_error_under_attack_is_decomposed_as_that_without(folder, evaluations):
    digits, steps = evaluations
    expected = decomposition(steps[-1].probabilities_shifted["attacked"], digits.test.labels)
    final = json.loads((folder / "metrics.json").read_text())["final"]
    parts = json.loads((folder / "decomposition.json").read_text())["shifted"]["attacked"]
    for name in ("risk", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction", "error"):
        assert final[f"attacked_{name}"] == pytest.approx(expected[name], abs=1e-6)
        assert parts[name] == final[f"attacked_{name}"]
        assert final[f"attacked_{name}_lo"] < final[f"attacked_{name}"] < final[f"attacked_{name}_hi"]
    assert final["attacked_risk"] > final["risk"]


def test_the_signals_of_every_watched_evaluation_are_kept_and_the_last_are_summed_up(folder, evaluations):
    _, steps = evaluations
    found = pd.read_parquet(io.BytesIO((folder / "signals.parquet").read_bytes()))
    assert sorted(found["epoch"].unique()) == [step.epoch for step in steps if step.signals]
    row = found[(found["epoch"] == 6) & (found["signal"] == "gradient") & (found["layer"] == "output")].iloc[0]
    values = steps[-1].signals["signal:gradient:output"]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((values.mean(), values.min(), values.max()))
    assert (row["position"], row["n_replicas"]) == (2, 9)
    final = json.loads((folder / "metrics.json").read_text())["final"]
    dead = [steps[-1].signals[f"signal:dead:{layer}"].mean() for layer in (0, 1)]
    assert final["signal_dead"] == pytest.approx(sum(dead) / 2)
    assert final["n_vanishing"] == 0
