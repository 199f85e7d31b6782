"""Trials that grow: the grid that results is that of a plan of its size, whatever happened on the way."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab import failpoints, growing, growth, trial
from lab.growing import Rectangle, added
from lab.replication import Replication
from lab.spec import Study
from lab.storage import Home
from lab.task import Task
from lab.trained import LEVEL
from tests import faults

CLOCKS = ("seconds", "replicas_per_second")
WIDE = 10.0  # a half-width that is reached at once


def task_of(plan: Replication, data: str = "digits", **knobs: Any) -> Task:
    fixed = dict(width=6, depth=1, epochs=3, n_train=30, batch_size=15, learning_rate=0.01) | knobs
    study = Study(
        question="?", data=data, fixed=fixed, replication=plan, n_validation=20, n_test=40, n_evaluations=3
    )  # fmt: skip
    config = dataclasses.asdict(study.config({}))
    return Task(study="s", spec=json.loads(json.dumps(study.to_dict())), phase="explore", number=0, config=config)


def read(folder: Path) -> dict[str, Any]:
    """Return what an outcome says: JSON files, curves, predictions; without times."""
    got = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert got["manifest"]["status"] in ("finished", "diverged"), got["manifest"]["reason"]
    for clock in CLOCKS:
        got["metrics"]["final"].pop(clock)
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        got |= {"predictions": arrays["log_probabilities_DINC"]}
    return got | {"curves": pd.read_parquet(folder / "curves.parquet")}


def outcome(home: Path, plan: Replication, **options: Any) -> dict[str, Any]:
    return read(trial.evaluate(task_of(plan, **options), Home(home)))


@pytest.fixture
def script(monkeypatch):
    """Let trials grow as a test says, not as their predictions say: grids one after the other, then the end."""

    def of(*shapes: tuple[int, int]) -> None:
        after = dict(itertools.pairwise(shapes))
        monkeypatch.setattr(growth, "following", lambda plan, shape, found: after.get(shape, "cap"))

    return of


def assert_close(got: Any, expected: Any) -> None:
    """Compare two trees of plain values, numbers to float tolerance."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for name in expected:
            assert_close(got[name], expected[name])
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_close(one, other)
    else:
        assert got == (pytest.approx(expected, rel=1e-4, abs=1e-6) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(
    ("plan", "grids", "data", "knobs"),
    [
        (Replication("fresh", 3, 3), [(4, 3), (4, 4)], "gaussians", {}),
        (Replication("disjoint", 3, 3), [(4, 4)], "digits", {"dropout": 0.3, "patience": 1}),
        (Replication("subsample", 3, 3, stratified=True), [(4, 3), (5, 5)], "digits", {"flip": 0.5}),
        (Replication("bootstrap", 3, 3), [(3, 4), (4, 4)], "digits", {"learning_rate": 100.0, "optimizer": "sgd"}),
        (Replication("disjoint", 3, 3, n_noise_draws=3), [(4, 4)], "digits", {"label_noise": 0.3}),
        (Replication("seeds", 1, 3), [(1, 4), (1, 6)], "digits", {}),
        (Replication("disjoint", 6, 3, n_partitions=2), [(6, 4)], "digits", {}),
    ],
    ids=["fresh", "disjoint", "subsample", "bootstrap", "noise", "seeds", "partitions"],
)
def test_a_grown_grid_is_that_of_a_plan_of_its_size(tmp_path, script, plan, grids, data, knobs):
    """Whatever it grows by, every file is that of a trial that had all of its replicas from the start."""
    plan = dataclasses.replace(plan, target_half_width=WIDE)
    script((plan.n_resamples, plan.n_inits), *grids)
    grown = outcome(tmp_path / "a", plan, data=data, **knobs)
    (d, i), limits = grids[-1], {name: getattr(plan, name) for name in ("max_resamples", "max_inits")}
    assert (grown["config"]["replication"]["n_resamples"], grown["config"]["replication"]["n_inits"]) == (d, i)
    script((d, i))
    fixed = dataclasses.replace(plan, n_resamples=d, n_inits=i, max_replicas=None, **limits)  # the same cut of the pool
    whole = outcome(tmp_path / "b", fixed, data=data, **knobs)
    np.testing.assert_allclose(grown["predictions"], whole["predictions"], rtol=2e-4, atol=2e-5)
    pd.testing.assert_frame_equal(grown["curves"], whole["curves"], rtol=1e-3, atol=1e-5)
    assert_close(grown["decomposition"], whole["decomposition"])
    n_steps = [got["metrics"]["final"].pop("n_growth_steps") for got in (grown, whole)]
    assert n_steps == [len(grids), 0]
    assert_close(grown["metrics"], whole["metrics"])


def test_a_target_that_is_met_at_once_changes_nothing_but_what_is_said_of_it(tmp_path):
    plain = outcome(tmp_path / "a", Replication("subsample", 3, 3))
    met = outcome(tmp_path / "b", Replication("subsample", 3, 3, target_half_width=WIDE))
    np.testing.assert_array_equal(met["predictions"], plain["predictions"])
    assert met["decomposition"] == plain["decomposition"]
    more = {"n_resamples": 3, "n_inits": 3, "n_growth_steps": 0, "target_reached": 1.0}
    more["half_width"] = (plain["metrics"]["final"]["variance_hi"] - plain["metrics"]["final"]["variance_lo"]) / 2
    assert_close(met["metrics"]["final"], plain["metrics"]["final"] | more)


def test_an_outcome_says_how_the_trial_grew_and_why_it_stopped(tmp_path):
    target = 0.03
    got = outcome(tmp_path, Replication("subsample", 3, 3, target_half_width=target), epochs=20)
    said, final = got["growth"], got["metrics"]["final"]
    assert (said["term"], said["target_half_width"]) == ("variance", target)
    assert said["stopped"] == "reached"
    assert len(said["steps"]) > 1
    first, last = said["steps"][0], said["steps"][-1]
    assert (first["n_resamples"], first["n_inits"]) == (3, 3)
    assert (last["n_resamples"], last["n_inits"]) == (final["n_resamples"], final["n_inits"])
    assert last["half_width"] == pytest.approx((final["variance_hi"] - final["variance_lo"]) / 2)
    assert last["value"] == pytest.approx(final["variance"])
    assert 0 < first["seconds"] <= last["seconds"]
    assert final["n_replicas"] == final["n_resamples"] * final["n_inits"] == got["curves"]["replica"].nunique()
    assert final["target_reached"] == 1.0
    assert last["half_width"] <= target < said["steps"][-2]["half_width"]
    assert got["config"]["spec"]["replication"]["n_resamples"] == 3
    assert got["config"]["training_sets"].startswith(f"{last['n_resamples']} training sets")
    assert LEVEL == got["decomposition"]["level"]


def test_a_trial_of_which_nothing_is_left_does_not_grow(tmp_path):
    plan = Replication("subsample", 3, 3, target_half_width=WIDE)
    got = outcome(tmp_path, plan, learning_rate=100.0, optimizer="sgd", width=64, depth=8, epochs=8)
    assert got["metrics"]["final"]["n_diverged"] == 9
    assert got["growth"]["stopped"] == "no interval"
    assert got["growth"]["steps"] == [got["growth"]["steps"][0] | {"value": None, "half_width": None}]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((3, 2), (5, 2), [Rectangle(3, 0, 2, 2)]),
        ((3, 2), (3, 4), [Rectangle(0, 2, 3, 2)]),
        ((3, 2), (4, 5), [Rectangle(3, 0, 1, 2), Rectangle(0, 2, 4, 3)]),
    ],
)
def test_what_a_grid_lacks_are_the_cells_it_has_not(before, after, expected):
    assert added(before, after) == expected
    cells = [
        (d, i)
        for part in [Rectangle(0, 0, *before), *expected]
        for d in range(part.first_resample, part.first_resample + part.n_resamples)
        for i in range(part.first_init, part.first_init + part.n_inits)
    ]
    assert sorted(cells) == [(d, i) for d in range(after[0]) for i in range(after[1])]


@pytest.mark.parametrize(("seconds", "place"), [("1000", "checkpoint.rename"), ("0", "epoch")])
def test_a_trial_that_is_killed_as_it_grows_goes_on_to_the_same_bits(tmp_path, monkeypatch, script, seconds, place):
    """Killed at each second rectangle that it writes down, or (with checkpoints in between) each third evaluation."""
    monkeypatch.setenv("LAB_CHECKPOINT_SECONDS", seconds)
    script((3, 3), (4, 3), (5, 4))
    plan = Replication("subsample", 3, 3, target_half_width=WIDE)
    task, undisturbed = task_of(plan), outcome(tmp_path / "a", plan)
    home, n_kills = Home(tmp_path / "b"), 0

    def run() -> None:
        failpoints.arm(f"{place}:{3 if place == 'epoch' else 2}=kill")
        trial.evaluate(task, home)

    while faults.forked(run) != 0:
        n_kills += 1
        assert n_kills < 20
    assert n_kills >= 2
    got = read(home.outcome_of("s", task.key))
    for name in ("config", "decomposition", "metrics"):
        assert got[name] == undisturbed[name], name
    np.testing.assert_array_equal(got["predictions"], undisturbed["predictions"])
    assert [s["n_inits"] for s in got["growth"]["steps"]] == [s["n_inits"] for s in undisturbed["growth"]["steps"]]
    assert not home.checkpoints_of("s", task.key).exists()


def test_what_was_trained_is_not_trained_again(tmp_path, monkeypatch, script):
    script((3, 3), (4, 3), (5, 4))
    plan = Replication("subsample", 3, 3, target_half_width=WIDE)
    home, n_before = Home(tmp_path), []
    real = growing.trained

    def cut(*args: Any) -> Any:
        piece = real(*args)
        n_before.append(piece.rectangle)
        if len(n_before) == 2:
            raise KeyboardInterrupt
        return piece

    monkeypatch.setattr(growing, "trained", cut)
    with pytest.raises(KeyboardInterrupt):
        trial.evaluate(task_of(plan), home)
    monkeypatch.setattr(growing, "trained", real)
    trained = []
    from lab import training

    fit = training.fit

    def counted(config: Any, dataset: Any, replication: Replication, **options: Any) -> Any:
        trained.append((options["first_resample"], options["first_init"], *replication.shape[:2]))
        return fit(config, dataset, replication, **options)

    monkeypatch.setattr(training, "fit", counted)
    trial.evaluate(task_of(plan), home)
    assert trained == [(4, 0, 1, 3), (0, 3, 5, 1)]
    assert n_before == [(0, 0, 3, 3), (3, 0, 1, 3)]
