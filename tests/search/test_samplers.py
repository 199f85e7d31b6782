import collections
import math
from typing import ClassVar

import numpy as np
import optuna
import pytest

from lab import search, workers
from lab.search import samplers
from lab.search.points import grid_point, grid_size, qmc_point
from lab.spec import SAMPLERS, Choice, Float, Int
from tests.toys import SPACE, run, runs, stored, toy


def test_qmc_covers_every_knob_evenly_categorical_ones_too():
    points = [qmc_point(SPACE, seed=3, number=k) for k in range(64)]
    counts = collections.Counter(point["activation"] for point in points)
    # each 64th of [0, 1) holds one point, so a third of it holds 20 to 22 of them; 64 random draws: 21 ± 4
    assert all(20 <= counts[option] <= 22 for option in ("relu", "tanh", "gelu"))
    eighths = collections.Counter(int(point["dropout"] / 0.5 * 8) for point in points)
    assert eighths == {k: 8 for k in range(8)}
    decades = collections.Counter(int(math.log10(point["learning_rate"] / 1e-4)) for point in points)
    assert decades == {k: 16 for k in range(4)}
    assert len({tuple(point.values()) for point in points}) == 64


def test_a_qmc_point_depends_on_seed_and_number_alone():
    forward = [qmc_point(SPACE, seed=1, number=k) for k in range(10)]
    backward = [qmc_point(SPACE, seed=1, number=k) for k in reversed(range(10))]
    assert forward == backward[::-1]
    assert forward == [qmc_point(dict(reversed(SPACE.items())), seed=1, number=k) for k in range(10)]
    assert forward != [qmc_point(SPACE, seed=2, number=k) for k in range(10)]
    assert qmc_point({}, seed=0, number=5) == {}


def test_a_grid_is_the_product_of_its_knobs_each_point_once():
    space = {"width": Int(4, 16, log=True), "nesterov": Choice(True, False), "dropout": Float(0.0, 0.5, n_grid=2)}
    points = [grid_point(space, number=k) for k in range(grid_size(space))]
    expected = {(d, n, w) for d in (0.0, 0.5) for n in (True, False) for w in (4, 8, 16)}
    assert {(p["dropout"], p["nesterov"], p["width"]) for p in points} == expected
    assert len(points) == len(expected) == 12
    with pytest.raises(IndexError):
        grid_point(space, number=12)


def test_a_grid_study_has_as_many_trials_as_its_grid_has_points(home):
    space = {"width": Int(4, 8, log=True), "activation": Choice("relu", "tanh")}
    summary = run(toy(sampler="grid", space=space, n_trials=40, learning_curve=()), home)
    assert summary.n_planned == summary.counts["finished"] == 4
    assert len({tuple(sorted(t.params.items())) for t in stored(home)}) == 4
    [row] = search.status(home)
    assert row["n_planned"] == 4  # not 40: it is finished


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_by_name_completes_a_study(home, sampler):
    summary = run(toy(sampler=sampler, n_trials=14, round_size=4, learning_curve=()), home)
    trials = stored(home)
    assert summary.counts == {"finished": 14, "diverged": 0, "infeasible": 0, "failed": 0}
    assert [t.state.name for t in trials] == ["COMPLETE"] * 14
    assert all(set(t.params) == set(SPACE) for t in trials)
    assert len({tuple(t.params.values()) for t in trials}) > 10
    # what is stored is what was trained
    for key, record in runs(home).items():
        if key.startswith("explore"):
            expected = trials[record["config"]["number"]].params
            assert {name: record["config"]["config"][name] for name in SPACE} == expected


@pytest.mark.parametrize("sampler", ["qmc", "tpe", "nsga2", "gp", "random"])
def test_a_pair_of_objectives_is_minimised_and_the_lowest_sum_confirmed(home, sampler):
    study = toy(sampler=sampler, objective=("bias_sq", "variance"), n_trials=12, learning_curve=())
    summary = run(study, home)
    trials = stored(home)
    assert all(len(t.values) == 2 for t in trials)
    lowest = min(trials, key=lambda t: sum(t.values))
    assert summary.confirmed == f"confirm-{lowest.number:04d}"
    dominated = [t for t in trials if t.values[0] < lowest.values[0] and t.values[1] < lowest.values[1]]
    assert dominated == []


def test_a_sampler_that_learns_proposes_better_than_it_began(home):
    run(toy(sampler="tpe", n_trials=40, learning_curve=()), home)
    far = [abs(math.log(t.params["learning_rate"] / 0.01)) for t in stored(home)]
    assert np.mean(far[20:]) < np.mean(far[:10])


def test_samplers_that_ignore_results_keep_workers_fed_and_those_that_learn_wait_for_their_round(home, monkeypatch):
    class Slow(workers.InlineEngine):
        """Has room for six, and records how many tasks are open when one comes out."""

        capacity = 6
        seen: ClassVar[list[int]] = []

        def next_done(self, timeout):
            self.seen.append(self.n_open)
            return super().next_done(timeout)

    monkeypatch.setattr(workers, "InlineEngine", Slow)
    run(toy(n_trials=10, learning_curve=()), home)
    assert Slow.seen == [6, 6, 6, 6, 6, 5, 4, 3, 2, 1, 1]  # the last is the confirmation
    Slow.seen.clear()
    run(toy(sampler="tpe", n_trials=10, round_size=4, learning_curve=()), home, name="learns")
    assert Slow.seen == [4, 3, 2, 1, 4, 3, 2, 1, 2, 1, 1]


def test_a_tpe_study_asks_its_sampler_anew_with_a_seed_of_the_trial():
    seeds = []

    def make(seed):
        seeds.append(seed)
        return optuna.samplers.RandomSampler(seed=seed)

    study = optuna.create_study(sampler=samplers.SeededSampler(make, list(SPACE), 0))
    first = [samplers.suggest(study.ask(), toy()) for _ in range(3)]
    again = optuna.create_study(sampler=samplers.SeededSampler(make, list(SPACE), 0))
    assert first == [samplers.suggest(again.ask(), toy()) for _ in range(3)]
    assert seeds[: len(seeds) // 2] == seeds[len(seeds) // 2 :]
    assert len(set(seeds)) == 3 * (1 + len(SPACE))  # one for what is proposed together, one a knob
