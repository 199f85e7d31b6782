"""The benchmark of coverage: its closed forms are the truths of its learners, and a short one runs."""

import numpy as np
import pytest

from benchmarks import coverage
from lab.analysis.decomposition import decompose


@pytest.mark.parametrize(
    ("learner", "truth"),
    [
        (coverage.class_frequency, coverage.class_frequency_truth()),
        (coverage.ridge, coverage.ridge_truth()),
    ],
)
def test_estimates_have_the_closed_form_as_their_mean(learner, truth):
    found = []
    for seed in range(150):
        sample = learner(seed, 6)
        result = decompose(sample.p_DINC, sample.labels_N, posterior_NC=sample.posterior_NC, level=None)
        found.append([getattr(result, term) for term in coverage.TERMS[:-1]])
    error = np.std(found, axis=0, ddof=1) / np.sqrt(150)
    for k, term in enumerate(coverage.TERMS[:-1]):
        assert np.mean(found, axis=0)[k] == pytest.approx(truth[term], abs=4 * error[k]), term


def test_a_table_counts_what_covers():
    truth = dict.fromkeys(coverage.TERMS, 1.0)
    ends = np.array([[[[1.0, 0.5, 1.5, 0.4, 1.6]] * 6]] * 3 + [[[[2.0, 1.5, 2.5, 0.9, 2.6]] * 6]])
    (row, *_) = coverage.table("any", (4,), ends, truth)
    assert (row["covers at 90%"], row["covers at 95%"], row["above"], row["n"]) == (75.0, 100.0, 0.0, 4)
