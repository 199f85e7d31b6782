"""How a trial grows: by what its interval hangs on, until it is narrow enough or a limit is reached."""

import dataclasses
import math

import numpy as np
import pytest

from lab import growth
from lab.analysis.decomposition import decompose
from lab.errors import SpecError
from lab.growth import following, grown, half_width, variance
from lab.replication import Replication
from lab.search import prepare
from lab.spec import Study

PLAN = Replication("fresh", 4, 4, target_half_width=0.1, max_resamples=40, max_inits=40, max_replicas=1600)


def replicas(seed, D, I, *, resample=0.0, init=0.0, interaction=0.0, N=60):  # noqa: E741
    """Return predictions (D, I, N, 2) whose scatter has the given standard deviations by cause, and labels."""
    rng = np.random.default_rng(seed)
    scatter = (
        resample * rng.standard_normal((D, 1, 1)) * (1 + rng.standard_normal(N))
        + init * rng.standard_normal((1, I, 1)) * (1 + rng.standard_normal(N))
        + interaction * rng.standard_normal((D, I, N))
    )
    p_DIN = np.clip(0.6 + scatter, 0, 1)
    return np.stack([p_DIN, 1 - p_DIN], axis=-1), np.zeros(N, dtype=int)


def test_a_trial_grows_by_what_its_interval_hangs_on():
    by_resamples = grown(PLAN, (4, 4), {"resample": 0.9, "init": 0.1}, 0.2)
    by_seeds = grown(PLAN, (4, 4), {"resample": 0.1, "init": 0.9}, 0.2)
    assert by_resamples == (6, 4)  # half as many cells again, all of them by training sets
    assert by_seeds == (4, 6)


def test_where_both_sources_weigh_the_same_the_grid_grows_both_ways():
    plan, shape = PLAN, (4, 4)
    for _ in range(6):
        shape = grown(plan, shape, {"resample": 4 / shape[0], "init": 4 / shape[1]}, 1.0)
    assert 0.7 < shape[0] / shape[1] < 1.4


def test_a_step_is_the_shortest_that_is_predicted_to_suffice():
    # 10 % wider than asked for: the variance has to fall by 1 − 1/1.1² = 17 %, and one training set more takes 20 %
    assert grown(PLAN, (4, 4), {"resample": 1.0}, 0.11) == (5, 4)


def test_a_small_grid_gets_one_more_even_if_that_is_more_than_a_step():
    assert grown(dataclasses.replace(PLAN, n_inits=3), (1, 3), {"init": 1.0}, 5.0) == (1, 4)


def test_the_prediction_is_what_more_replicas_give_on_average():
    """The variance of an estimate, predicted from 8 × 8 replicas, is the one seen over repetitions of a larger grid."""
    causes = dict(resample=0.1, init=0.05, interaction=0.03)
    predicted, small, large = [], [], []
    for seed in range(200):
        p, labels = replicas(seed, 16, 8, **causes)
        found = decompose(p[:8], labels)
        predicted.append(variance(found.interval_parts["bias_sq"], (8, 8), (16, 8)))
        small.append(found.terms["bias_sq"].value)
        large.append(decompose(p, labels, level=None).terms["bias_sq"].value)
    seen = np.var(large, ddof=1)
    assert seen < 0.8 * np.var(small, ddof=1)
    assert np.mean(predicted) == pytest.approx(seen, rel=0.3)  # three standard errors of a variance over 200


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({"max_resamples": 6}, lambda d, i: d == 6),
        ({"max_replicas": 40}, lambda d, i: (d + 1) * i > 40 and d * (i + 1) > 40),
    ],
)
def test_a_trial_stops_at_a_limit_and_says_so(limits, most):
    plan = dataclasses.replace(PLAN, max_inits=4, **limits)
    shape = (4, 4)
    p, labels = replicas(0, 40, 40, resample=0.2)
    plan = dataclasses.replace(plan, target_half_width=0.03)
    while True:
        found = decompose(p[: shape[0], : shape[1]], labels)
        after = following(plan, shape, found)
        if isinstance(after, str):
            break
        assert after[0] * after[1] > shape[0] * shape[1]
        shape = after
    assert after == "cap"
    assert most(*shape)


def test_a_trial_stops_as_soon_as_its_interval_is_narrow_enough():
    p, labels = replicas(0, 4, 4, resample=0.1)
    found = decompose(p, labels)
    width = half_width(found, "variance")
    assert width == (found.variance_hi - found.variance_lo) / 2
    assert following(dataclasses.replace(PLAN, target_half_width=width), (4, 4), found) == "reached"
    assert following(dataclasses.replace(PLAN, target_half_width=0.99 * width), (4, 4), found) == (5, 4)


def test_what_the_test_set_adds_no_number_of_replicas_takes_away():
    """With replicas that agree, the interval of bias² is that of a mean over test points."""
    p_N = np.random.default_rng(0).random(50)
    p = np.broadcast_to(np.stack([p_N, 1 - p_N], axis=-1), (4, 4, 50, 2))
    found = decompose(p, np.zeros(50, dtype=int))
    alone = 1.96 * (2 * (1 - p_N) ** 2).std(ddof=1) / math.sqrt(50)
    plan = dataclasses.replace(PLAN, target_term="bias_sq", target_half_width=0.9 * alone)
    assert following(plan, (4, 4), found) == "test set"


def test_without_an_interval_a_trial_does_not_grow():
    p, labels = replicas(0, 4, 2, resample=0.1)
    assert following(PLAN, (4, 2), None) == "no interval"
    assert following(PLAN, (4, 2), decompose(p, labels)) == "no interval"


def test_every_reason_is_explained():
    from typing import get_args

    assert set(growth.WHY) == set(get_args(growth.Stopped))


# -- the plan


def test_a_plan_that_grows_starts_from_its_own_numbers_and_may_get_four_times_as_many():
    plan = Replication("fresh", 5, 3, target_half_width=0.1)
    assert (plan.max_resamples, plan.max_inits, plan.max_replicas) == (20, 12, 60)
    assert Replication("seeds", 1, 3, target_half_width=0.1).max_resamples == 1
    assert Replication("disjoint", 6, 3, n_partitions=2, target_half_width=0.1).max_resamples == 6


def test_without_a_target_a_plan_is_stored_as_before_there_were_any():
    assert set(Replication().to_dict()) == {
        "scheme", "n_resamples", "n_inits", "n_partitions", "stratified", "n_noise_draws"
    }  # fmt: skip
    plan = Replication("fresh", 5, 3, target_half_width=0.1)
    assert Replication(**plan.to_dict()) == plan


def test_blocks_are_cut_for_the_most_that_a_trial_can_have():
    assert Replication("disjoint", 5, 3, target_half_width=0.1, max_resamples=12).n_blocks == 12
    assert Replication("disjoint", 5, 3).n_blocks == 5


def test_a_smoke_run_of_a_growing_plan_is_small_and_grows():
    small = Replication("disjoint", 12, 8, n_partitions=2, n_noise_draws=4, target_half_width=0.1).smoke()
    assert small.grows
    assert small.n_replicas <= 36
    assert small.max_replicas <= 144


def test_a_pool_too_small_for_the_most_training_sets_is_refused_with_what_would_fit():
    plan = Replication("disjoint", 4, 3, target_half_width=0.01, max_resamples=30)
    study = Study(question="?", data="digits", fixed={"n_train": 100}, replication=plan, n_test=300, n_validation=200)
    with pytest.raises(SpecError, match=r"up to 30 disjoint .* lower n_train to \d+ .* or max_resamples to 12"):
        prepare(study)
    fits = dataclasses.replace(plan, max_resamples=12)
    prepare(dataclasses.replace(study, replication=fits))
