"""A trial with each way of repeating it, trained for real: what is written is what the plan can show."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.replication import Replication
from lab.spec import Study
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate

# weights of 0 stay 0 behind ReLUs, so only the biases of the output learn: the class frequencies
BIASES_ALONE = dict(init_gain=0.0, optimizer="sgd", learning_rate=0.1, momentum=0.0, batch_size=60)


def outcome(tmp_path: Path, replication: Replication, data: str = "digits", **knobs: Any) -> dict[str, Any]:
    """Train one trial; return its JSON files and its arrays by name."""
    fixed = dict(width=8, depth=1, epochs=4, n_train=60, learning_rate=0.01) | knobs
    study = Study(question="?", data=data, fixed=fixed, replication=replication, n_validation=30, n_test=50)
    config = dataclasses.asdict(study.config({}))
    task = Task(study="s", spec=json.loads(json.dumps(study.to_dict())), phase="explore", number=0, config=config)
    folder = evaluate(task, Home(tmp_path))
    files = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert files["manifest"]["status"] == "finished", files["manifest"]["reason"]
    with np.load(io.BytesIO((folder / "predictions.npz").read_bytes()), allow_pickle=False) as arrays:
        return files | dict(arrays) | {"probabilities_DINC": np.exp(arrays["log_probabilities_DINC"])}


def test_seeds_on_one_training_set_give_the_variance_from_the_seed_and_no_other(tmp_path):
    got = outcome(tmp_path, Replication(scheme="seeds", n_resamples=1, n_inits=5))
    final = got["metrics"]["final"]
    p_INC = got["probabilities_DINC"][0].astype(np.float64)
    assert p_INC.shape[0] == 5
    expected = p_INC.var(axis=0, ddof=1).sum(axis=-1).mean()
    assert final["variance"] == pytest.approx(expected, rel=1e-6)
    assert final["variance_init"] == final["variance"]
    assert final["variance_init_lo"] < final["variance"] < final["variance_init_hi"]
    assert not {"variance_resample", "variance_interaction"} & set(final)
    assert "share one training set of 60" in got["config"]["training_sets"]


@pytest.mark.parametrize("scheme", ["disjoint", "subsample", "bootstrap"])
def test_stratified_replicas_see_each_class_equally_often(tmp_path, scheme):
    """A learner that can only learn class frequencies then does not vary with the training set at all."""
    still = outcome(tmp_path / "a", Replication(scheme, 4, 2, stratified=True), **BIASES_ALONE)
    free = outcome(tmp_path / "b", Replication(scheme, 4, 2), **BIASES_ALONE)
    assert still["metrics"]["final"]["variance_resample"] < 0.1 * free["metrics"]["final"]["variance_resample"]


def test_with_noisy_targets_the_injected_noise_stands_in_a_column_of_its_own(tmp_path):
    plan = Replication("disjoint", 3, 2)
    clean = outcome(tmp_path / "a", plan, label_noise=0.3)
    noisy = outcome(tmp_path / "b", plan, label_noise=0.3, noisy_targets=True)
    np.testing.assert_array_equal(clean["probabilities_DINC"], noisy["probabilities_DINC"])
    assert "noise" not in clean["metrics"]["final"]
    assert not clean["config"]["data"]["has_posterior"]
    assert noisy["config"]["data"]["has_posterior"]
    # 1 − Σπ² with π = 0.73 once and 0.03 nine times
    assert noisy["metrics"]["final"]["noise"] == pytest.approx(1 - 0.73**2 - 9 * 0.03**2)
    assert noisy["metrics"]["final"]["variance"] == clean["metrics"]["final"]["variance"]


def test_label_noise_raises_the_risk_of_what_is_learned(tmp_path):
    plan, knobs = Replication("disjoint", 3, 2), dict(width=32, epochs=20)
    clean = outcome(tmp_path / "a", plan, **knobs)["metrics"]["final"]
    noisy = outcome(tmp_path / "b", plan, label_noise=0.4, **knobs)["metrics"]["final"]
    assert noisy["risk"] > clean["risk"] + 0.1
    assert noisy["train_error"] < 0.1 < noisy["test_error"]  # the noise is learned by heart
