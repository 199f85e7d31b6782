"""A trial with each way of repeating it, trained for real: what is written is what the plan can show."""

import dataclasses
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lab.analysis.decomposition import decompose
from lab.replication import Replication
from lab.spec import Study
from lab.storage import Home
from lab.task import Task
from lab.training import loop
from lab.trial import evaluate

# weights of 0 stay 0 behind ReLUs, so only the biases of the output learn: the class frequencies
BIASES_ALONE = dict(init_gain=0.0, optimizer="sgd", learning_rate=0.1, momentum=0.0, batch_size=60)


def evaluated(tmp_path: Path, replication: Replication, data: str = "digits", **knobs: Any) -> tuple[Path, dict]:
    """Train one trial; return the folder of its outcome and the JSON files in it by name."""
    fixed = dict(width=8, depth=1, epochs=4, n_train=60, learning_rate=0.01) | knobs
    study = Study(question="?", data=data, fixed=fixed, replication=replication, n_validation=30, n_test=50)
    config = dataclasses.asdict(study.config({}))
    task = Task(study="s", spec=json.loads(json.dumps(study.to_dict())), phase="explore", number=0, config=config)
    folder = evaluate(task, Home(tmp_path))
    return folder, {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def outcome(*args: Any, **knobs: Any) -> dict[str, Any]:
    """Train one trial, which is to finish; return its JSON files and its arrays by name."""
    folder, files = evaluated(*args, **knobs)
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


def test_a_trial_sees_images_of_the_size_that_it_asks_for(tmp_path):
    whole, small = (outcome(tmp_path / str(side), Replication("disjoint", 2, 2), resize=side) for side in (0, 4))
    assert (whole["config"]["image_shape"], small["config"]["image_shape"]) == ([1, 8, 8], [1, 4, 4])
    assert small["config"]["n_parameters"] == (16 * 8 + 8) + (8 * 10 + 10)
    assert whole["config"]["data"]["digest"] == small["config"]["data"]["digest"]
    np.testing.assert_array_equal(whole["labels_N"], small["labels_N"])


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


NOISE_PARTS = ("label_noise", "resample_label_noise", "init_label_noise", "three_way")


def test_draws_of_the_label_noise_are_a_cause_of_their_own(tmp_path):
    plan = Replication("disjoint", 3, 3, n_noise_draws=3)
    got = outcome(tmp_path, plan, label_noise=0.4, epochs=15, width=16)
    final = got["metrics"]["final"]
    p_DIKNC = got["probabilities_DINC"].reshape(3, 3, 3, 50, 10).astype(np.float64)
    within = p_DIKNC.var(axis=2, ddof=1).sum(axis=-1).mean()  # what varies with the noise alone
    assert sum(final[f"variance_{part}"] for part in NOISE_PARTS) == pytest.approx(within, rel=1e-6)
    assert final["variance_three_way_lo"] < final["variance_three_way_hi"]
    assert within > 0.01


def test_without_noise_its_draws_change_nothing(tmp_path):
    plan = Replication("disjoint", 3, 2, n_noise_draws=3)
    p_DIKNC = outcome(tmp_path, plan)["probabilities_DINC"].reshape(3, 2, 3, 50, 10)
    np.testing.assert_allclose(p_DIKNC, np.repeat(p_DIKNC[:, :, :1], 3, axis=2), atol=1e-6)


def test_where_the_posterior_is_known_the_draws_are_from_it(tmp_path):
    plan = Replication("fresh", 3, 2, n_noise_draws=2)
    final = outcome(tmp_path, plan, data="gaussians", epochs=15)["metrics"]["final"]
    assert sum(final[f"variance_{part}"] for part in NOISE_PARTS) > 0.01


def test_curves_name_the_resample_the_seed_and_the_noise_of_every_replica(tmp_path):
    plan = Replication("disjoint", 2, 3, n_noise_draws=2)
    outcome(tmp_path, plan, label_noise=0.4)
    (path,) = tmp_path.rglob("curves.parquet")
    last = pd.read_parquet(path).query("epoch == 4")
    named = list(zip(last["resample"], last["init"], last["noise_draw"], strict=True))
    assert named == list(itertools.product(range(2), range(3), range(2)))


def test_estimates_from_several_partitions_are_the_means_of_those_from_each(tmp_path):
    got = outcome(tmp_path, Replication("disjoint", 6, 2, n_partitions=2))
    final = got["metrics"]["final"]
    halves = [decompose(p_DINC, got["labels_N"]) for p_DINC in np.split(got["probabilities_DINC"], 2)]
    for term in ("risk", "bias_sq", "variance", "variance_resample", "variance_init"):
        assert final[term] == pytest.approx(np.mean([getattr(half, term) for half in halves]), rel=1e-6)
    whole = decompose(got["probabilities_DINC"], got["labels_N"])
    assert final["variance_resample"] != pytest.approx(whole.variance_resample, rel=1e-3)


@pytest.mark.parametrize("room", [0, 3])
def test_a_trial_of_which_one_replica_does_not_fit_in_memory_has_failed_whenever_that_shows(
    tmp_path, monkeypatch, room
):
    """It is not infeasible: that is said of configurations, and memory differs from machine to machine."""
    step, count = loop._differentiate, itertools.count()

    def scarce(*args: Any) -> None:
        if next(count) >= room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        step(*args)

    monkeypatch.setattr(loop, "_differentiate", scarce)
    _, files = evaluated(tmp_path, Replication("disjoint", 2, 2))
    assert files["manifest"]["status"] == "failed"
    reason = "OutOfMemoryError: one replica does not fit in the memory of cpu: lower width, depth or batch_size"
    assert files["manifest"]["reason"] == reason
