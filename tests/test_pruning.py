"""Pruning by replicas: the rule is Optuna's, and a trial that goes on is the trial that was never looked at."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from lab import failpoints, spool, trial
from lab.pruning import Rival, is_lost, n_first, p_value
from lab.replication import Replication
from lab.spec import LEARNING, Study
from lab.storage import Home
from lab.task import Task
from tests import faults

LEVEL = 0.1
N_FIRST = 4  # 2⁻⁴ = 0.0625 is the first below 0.1
HOPELESS, EASY = Rival(3, (0.0,) * 6), Rival(3, (2.0,) * 6)


def task_of(rival: Rival | None, **knobs: Any) -> Task:
    fixed = dict(width=6, depth=1, epochs=3, n_train=30, batch_size=15, learning_rate=0.01) | knobs
    study = Study(
        question="?", data="digits", fixed=fixed, replication=Replication("disjoint", 6, 2), n_validation=20,
        n_test=40, n_evaluations=3, sampler="tpe", prune=LEVEL,
    )  # fmt: skip
    spec = json.loads(json.dumps(study.to_dict()))
    config = dataclasses.asdict(study.config({}))
    return Task(study="s", spec=spec, phase="explore", number=7, config=config, rival=rival)


def outcome(home: Path, rival: Rival | None, **knobs: Any) -> spool.Outcome:
    return spool.read_outcome(trial.evaluate(task_of(rival, **knobs), Home(home)))


@pytest.mark.parametrize("level", [0.5, 0.1, 0.0625, 0.05, 0.01, 0.001])
def test_a_trial_is_looked_at_as_soon_as_it_can_be_significantly_worse(level):
    n = n_first(level)
    assert p_value([1.0] * n, [0.0] * n) == pytest.approx(2.0**-n)
    assert 2.0**-n < level <= 2.0 ** -(n - 1)


def test_the_rule_is_that_of_optunas_pruner():
    """At one look, on 300 random pairs of trials of which about half are worse than their rival."""
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=LEVEL, n_startup_steps=0)
    lost = []
    for case in range(300):
        rival_D = rng.normal(0, 1, 8)
        values_D = rival_D[:N_FIRST] + rng.choice([-0.3, 0.3, 0.8]) + rng.normal(0, 0.5, N_FIRST)
        values_D = np.round(values_D, 1) if case % 3 == 0 else values_D  # ties, and differences of 0
        rival_D = np.round(rival_D, 1) if case % 3 == 0 else rival_D
        study = optuna.create_study(pruner=pruner)
        best = study.ask()
        for d, value in enumerate(rival_D):
            best.report(value, d)
        study.tell(best, rival_D.mean())
        other = study.ask()
        for d, value in enumerate(values_D):
            other.report(value, d)
        lost.append(is_lost(values_D, Rival(0, tuple(rival_D)), LEVEL))
        assert lost[-1] == other.should_prune(), case
    assert 50 < sum(lost) < 250


def test_a_trial_that_loses_is_stopped_after_its_first_training_sets_and_has_no_parts(tmp_path):
    got = outcome(tmp_path, HOPELESS)
    assert got.status == "pruned"
    assert got.reason == "worse than trial 3 on their 4 common training sets (p = 0.062)"
    assert set(got.contents) == {"config.json", "environment.json", "pruned.json"}
    said = got.json("pruned.json")
    whole = outcome(tmp_path / "whole", None).json("metrics.json")["by_resample"]
    assert said["by_resample"] == pytest.approx(whole[:N_FIRST], rel=1e-6)
    assert said["metrics"]["pruned_objective"] == pytest.approx(np.mean(whole[:N_FIRST]), rel=1e-6)
    assert said["metrics"]["n_replicas"] == N_FIRST * 2
    assert said["metrics"]["pruned_p_value"] == 0.0625
    assert got.json("config.json")["replication"]["n_resamples"] == N_FIRST
    assert not list(Home(tmp_path).checkpoints_of("s", "explore-0007").glob("**/*.safetensors"))


def test_a_trial_that_goes_on_is_the_trial_that_was_not_looked_at(tmp_path):
    raced, whole = outcome(tmp_path / "a", EASY), outcome(tmp_path / "b", None)
    assert (raced.status, set(raced.contents)) == ("finished", set(whole.contents))
    got, expected = (one.json("metrics.json") for one in (raced, whole))
    for clock in ("seconds", "replicas_per_second"):
        del got["final"][clock], expected["final"][clock]
    assert got["final"] == pytest.approx(expected["final"], rel=1e-5, abs=1e-7)
    assert got["by_resample"] == pytest.approx(expected["by_resample"], rel=1e-6)
    assert np.mean(got["by_resample"]) == pytest.approx(got["final"]["objective_0"])
    assert got["final"]["n_replicas"] == 12


def test_replicas_that_diverge_count_as_the_worst_when_a_trial_is_judged(tmp_path):
    wild = dict(learning_rate=100.0, optimizer="sgd", width=64, depth=8, epochs=8)
    said = outcome(tmp_path, Rival(3, (1.9,) * 6), **wild).json("pruned.json")
    assert said["by_resample"] == [2.0] * N_FIRST


@pytest.mark.parametrize("crossing", [1, 2, 4])
@pytest.mark.parametrize("rival", [HOPELESS, EASY], ids=["hopeless", "easy"])
def test_a_trial_that_is_killed_on_the_way_ends_as_one_that_was_not(tmp_path, monkeypatch, rival, crossing):
    monkeypatch.setenv("LAB_CHECKPOINT_SECONDS", "0")
    expected = outcome(tmp_path / "peace", rival)
    home, n_left = Home(tmp_path / "killed"), [crossing]

    def kill(name: str) -> None:
        if name == "epoch":
            n_left[0] -= 1
            if not n_left[0]:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(failpoints, "hit", kill)
        trial.evaluate(task_of(rival), home)
        raise KeyboardInterrupt  # a pruned trial has fewer evaluations than crossings
    got = spool.read_outcome(trial.evaluate(task_of(rival), home))
    assert (got.status, got.reason) == (expected.status, expected.reason)
    name = "pruned.json" if rival is HOPELESS else "metrics.json"
    assert got.json(name)["by_resample"] == expected.json(name)["by_resample"]


def test_samplers_that_learn_are_those_that_work_in_rounds():
    from lab.search.samplers import SEQUENTIAL

    assert set(LEARNING) == set(SEQUENTIAL)


def test_a_study_without_pruning_is_stored_as_it_always_was():
    study = Study(question="?", data="digits", sampler="tpe")
    assert "prune" not in study.to_dict()
    assert dataclasses.replace(study, prune=0.1).to_dict()["prune"] == 0.1


def test_pruned_trials_are_published_verified_and_reported_apart():
    from lab import history, verify
    from lab.report import page

    with faults.memory() as folder, faults.fake_trainer():
        home = Home(folder)
        study = dataclasses.replace(
            faults.small(12), sampler="tpe", replication=Replication("disjoint", 6, 3), prune=LEVEL
        )
        faults.run(home, study)
        loaded = history.load(faults.NAME, home=home)
        pruned = loaded.phase("explore").query("outcome == 'pruned'")
        assert 1 <= len(pruned) < 12
        assert pruned["n_replicas"].eq(12).all()
        assert pruned[["risk", "bias_sq", "variance", "val_risk"]].isna().all(axis=None)
        assert verify.verify(faults.NAME, home=home).damage == []
        text = page.build(faults.NAME, home=home).path.read_text()
        assert f"{len(pruned)} stopped early" in text
