"""The benchmark of trials that grow: its truths, its grids, and a short one of its tables."""

import math
from concurrent.futures import Future

import numpy as np
import pytest

from benchmarks import adaptive


class Inline:
    """Carries out at once what a pool of processes is asked for."""

    def submit(self, function, *args):
        future = Future()
        future.set_result(function(*args))
        return future


@pytest.mark.parametrize("learner", adaptive.SYNTHETIC)
def test_estimates_of_a_synthetic_learner_have_the_closed_form_as_their_mean(learner):
    found = [
        adaptive.judged(adaptive.synthetic(learner, seed, (6, 6)), (6, 6), None).terms["variance"].value
        for seed in range(150)
    ]
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(adaptive.synthetic_truth(learner), abs=4 * error)


def test_a_fixed_grid_has_about_as_many_replicas_and_two_training_sets_a_seed():
    for n in (16, 60, 200, 700):
        d, i = adaptive.fixed("synthetic", n)
        assert d * i == pytest.approx(n, rel=0.12)
        assert d / i == pytest.approx(2, rel=0.3)


def test_a_summary_counts_what_is_reached_and_covered():
    rows = [(4, 4, 1.0, 0.5, 1.5, 1.0), (8, 4, 3.0, 2.5, 3.5, 0.0)]
    row = adaptive.summary("a", "grows", rows, 1.0)
    assert (row["n"], row["replicas"], row["reached"], row["covers"]) == (2, 24, 50, 50)
    assert (row["half-width / truth"], row["mean / truth"]) == (0.5, 2)
    assert row["error / truth"] == pytest.approx(math.sqrt(2), abs=1e-3)


def test_a_short_table_holds_the_three_designs_of_each_learner(monkeypatch):
    monkeypatch.setattr(adaptive, "SYNTHETIC", {name: adaptive.SYNTHETIC[name] for name in ("seed", "little variance")})
    rows = adaptive.table("synthetic", 3, Inline())
    assert [row["learner"] for row in rows] == ["seed"] * 3 + ["little variance"] * 3
    grows, same_trial, same_study = rows[:3]
    assert grows["seeds"] > grows["training sets"]  # by what its interval hangs on
    assert same_trial["replicas"] == pytest.approx(grows["replicas"], rel=0.12)
    assert same_study["replicas"] == rows[5]["replicas"]
    assert all(row["n"] == 3 for row in rows)


def test_networks_of_a_smaller_grid_are_the_first_of_a_larger_one():
    large, small = (adaptive.networks("no hidden layer", 0, most) for most in ((4, 3), (3, 3)))
    np.testing.assert_allclose(large.p_DINC[:3], small.p_DINC, atol=1e-6)
