"""The benchmark of coverage: the truths of its learners are found a second way, and its table counts what covers."""

import numpy as np
import pytest

from benchmarks import coverage, learners
from benchmarks.learners import LEARNERS, TERMS
from lab.analysis.decomposition import decompose


@pytest.mark.parametrize("learner", learners.CLOSED)
def test_estimates_have_the_closed_form_as_their_mean(learner):
    found, truth = [], learners.CLOSED[learner]()
    for seed in range(150):
        sample = LEARNERS[learner](seed, 6)
        result = decompose(sample.p_DINC, sample.labels_N, posterior_NC=sample.posterior_NC, level=None)
        found.append([getattr(result, term) for term in TERMS["brier"][:-1]])
    error = np.std(found, axis=0, ddof=1) / np.sqrt(150)
    for k, term in enumerate(TERMS["brier"][:-1]):
        assert np.mean(found, axis=0)[k] == pytest.approx(truth[term], abs=4 * error[k]), term


def test_large_samples_have_the_closed_forms_as_their_mean(monkeypatch):
    """40 samples of 50 × 50: 2,000 seeds show the variance by seed to about 2 %."""
    monkeypatch.setitem(learners.LARGE, "ridge", (50, 50, 40))
    truth, limits = learners.ridge_truth(), learners.limits("ridge", 0, 40)
    for term in ("variance", "variance_resample", "variance_init"):
        assert np.mean([one["brier"][term] for one in limits]) == pytest.approx(truth[term], rel=0.1), term


def test_cross_entropy_about_a_half_is_known_from_the_squares(monkeypatch):
    """Near p = ½ KL is twice the square of a class, and of two classes the Brier score is twice that as well."""
    monkeypatch.setitem(learners.LARGE, "ridge", (50, 50, 40))
    (found,) = learners.limits("ridge", 3, 1)
    for term in ("variance", "variance_resample", "variance_init"):
        assert found["cross_entropy"][term] == pytest.approx(found["brier"][term], rel=0.1), term


@pytest.fixture(scope="module")
def rows():
    truth = dict.fromkeys(TERMS["brier"], 1.0) | {"variance_interaction": 0.001}
    ends = np.array([[[[1.0, 0.5, 1.5, 0.4, 1.6]] * 6]] * 3 + [[[[2.0, 1.5, 2.5, 0.9, 2.6]] * 6]])
    other = np.array([[[[1.0, 1.1, 1.6, 0.4, 1.6]] * 6]] * 4)
    return [
        *coverage.table("any", "brier", ((4, 3),), ends, truth),
        *coverage.table("other", "brier", ((4, 3),), other, truth),
    ]


def test_a_table_counts_what_covers_and_leaves_out_parts_that_are_next_to_nothing(rows):
    row = rows[0]
    assert (row["covers at 90%"], row["covers at 95%"], row["above"], row["n"]) == (75.0, 100.0, 0.0, 4)
    assert (row["training sets"], row["seeds"]) == (4, 3)
    assert {row["term"] for row in rows} == set(TERMS["brier"]) - {"variance_interaction"}
