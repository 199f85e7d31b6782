"""Differences of two trials: what is common cancels, and the unpaired ones combine two intervals."""

import numpy as np
import pytest
from scipy import stats

from lab.analysis.decomposition import decompose
from lab.analysis.paired import COLUMNS, common, paired_difference, paired_seconds, unpaired_difference


def trial(rng, common, shift, D=6, I=4, N=60):  # noqa: E741
    """Two-class predictions with a large common effect of resample, seed and point, and a small effect of their own."""
    p = 0.5 + 0.05 * (common + shift) + 0.002 * rng.standard_normal((D, I, N))
    return np.stack([p, 1 - p], axis=-1)


@pytest.fixture
def two_trials():
    rng = np.random.default_rng(0)
    common = rng.standard_normal((6, 1, 1)) + rng.standard_normal((1, 4, 1)) + rng.standard_normal((6, 4, 60))
    return trial(rng, common, 0.0), trial(rng, common, 1.0), rng.integers(0, 2, 60)


def test_differences_are_those_of_the_two_decompositions(two_trials):
    a, b, labels = two_trials
    table = paired_difference(a, b, labels).set_index("term")
    assert list(table.reset_index().columns) == COLUMNS
    for term in ("risk", "bias_sq", "variance", "variance_resample", "error"):
        one, two = (getattr(decompose(f, labels), term) for f in (a, b))
        assert table.loc[term, ["a", "b", "difference"]].tolist() == pytest.approx([one, two, two - one], abs=1e-13)


def test_what_is_common_cancels_from_the_interval(two_trials):
    a, b, labels = two_trials
    row = paired_difference(a, b, labels).set_index("term").loc["variance"]
    apart = unpaired_difference(decompose(a, labels).to_dict(), decompose(b, labels).to_dict(), ("variance",)).iloc[0]
    assert row["difference"] == pytest.approx(apart["difference"])
    assert row["hi"] - row["lo"] < 0.2 * (apart["hi"] - apart["lo"])


def test_trials_of_different_sizes_are_paired_where_they_have_the_same_training_sets_and_seeds(two_trials):
    a, b, labels = two_trials
    pair = common(a[:4], b[:, :3])
    assert [f.shape[:2] for f in pair] == [(4, 3), (4, 3)]
    row = paired_difference(*pair, labels).iloc[0]
    assert (row["n_resamples"], row["n_inits"], row["n_replicas"]) == (4, 3, 12)
    np.testing.assert_array_equal(pair[0], a[:4, :3])
    np.testing.assert_array_equal(pair[1], b[:4, :3])


def test_a_trial_does_not_differ_from_itself(two_trials):
    a, _, labels = two_trials
    table = paired_difference(a, a, labels)
    assert (table[["difference", "lo", "hi"]].to_numpy() == 0).all()


def test_paired_intervals_cover_the_true_difference_about_that_often():
    """200 pairs whose true difference of risk and of variance is known; 3 standard errors below 93 %."""
    rng = np.random.default_rng(1)
    hits = {"risk": 0, "variance": 0}
    posterior = np.full((30, 2), 0.5)
    # f = ½ + .05·g·z with z of variance 1 by resample and 1 by seed: variance 2·.05²·g²·2, no bias
    truth = 2 * 0.05**2 * 2 * (1.2**2 - 1.0)
    for _ in range(200):
        z = rng.standard_normal((8, 1, 30)) + rng.standard_normal((1, 6, 30))
        a, b = (np.stack([0.5 + 0.05 * g * z, 0.5 - 0.05 * g * z], -1) for g in (1.0, 1.2))
        table = paired_difference(a, b, np.zeros(30, dtype=int), posterior_NC=posterior).set_index("term")
        for term in hits:
            hits[term] += table.loc[term, "lo"] <= truth <= table.loc[term, "hi"]
    assert all(count / 200 > 0.93 - 0.054 for count in hits.values()), hits


def test_a_replica_that_one_trial_lacks_is_left_out_of_both(two_trials):
    a, b, labels = two_trials
    b[2, 1] = np.nan
    table = paired_difference(a, b, labels).set_index("term")
    missing = np.zeros((6, 4), dtype=bool)
    missing[2, 1] = True
    assert table.loc["risk", "a"] == pytest.approx(decompose(a, labels, missing_DI=missing).risk)
    assert table.loc["risk", "n_replicas"] == 23


def test_unpaired_differences_are_as_wide_as_two_independent_errors():
    a = {"risk": 1.0, "risk_lo": 0.7, "risk_hi": 1.3, "noise": None}
    b = {"risk": 2.0, "risk_lo": 1.6, "risk_hi": 2.4, "noise": 0.1}
    table = unpaired_difference(a, b, ("risk", "noise"))
    assert table["term"].tolist() == ["risk"]
    assert table.iloc[0][["difference", "lo", "hi"]].tolist() == pytest.approx([1.0, 0.5, 1.5])


def test_trials_that_cannot_be_paired_are_refused(two_trials):
    a, b, labels = two_trials
    with pytest.raises(ValueError, match="only equal ones can be paired"):
        paired_difference(a, b[:5], labels)
    a[:3], b[3:] = np.nan, np.nan
    with pytest.raises(ValueError, match="no replica is left in both"):
        paired_difference(a, b, labels)


def test_paired_seconds_are_those_of_scipys_test_of_pairs():
    rng = np.random.default_rng(5)
    drift = 1 + 0.5 * rng.random((7, 1))
    seconds = drift * np.array([0.3, 0.8]) * (1 + 0.05 * rng.standard_normal((7, 2)))
    found = paired_seconds(seconds, level=0.9)
    expected = stats.ttest_rel(seconds[:, 1], seconds[:, 0]).confidence_interval(0.9)
    ends = found["epoch_seconds_difference_lo"], found["epoch_seconds_difference_hi"]
    assert ends == pytest.approx((expected.low, expected.high))
    assert found["epoch_seconds_difference"] == pytest.approx(found["epoch_seconds"] - found["epoch_seconds_baseline"])
    ratio = stats.ttest_rel(np.log(seconds[:, 1]), np.log(seconds[:, 0])).confidence_interval(0.9)
    assert (found["epoch_time_lo"], found["epoch_time_hi"]) == pytest.approx((np.exp(ratio.low), np.exp(ratio.high)))
    assert found["epoch_time"] == pytest.approx(stats.gmean(seconds[:, 1] / seconds[:, 0]))
    assert found["n_timings"] == 7


def test_what_slows_both_of_a_pair_alike_does_not_widen_the_interval_of_the_ratio():
    slower = np.array([1, 2, 0.5, 3, 1.3])[:, None]
    found = paired_seconds(slower * [0.2, 0.5])
    assert (found["epoch_time_lo"], found["epoch_time_hi"]) == pytest.approx((2.5, 2.5))


@pytest.mark.parametrize("seconds", [[[1.0, 2.0]], [1.0, 2.0], [[1.0, 2.0], [0.0, 1.0]]])
def test_timings_that_say_nothing_are_refused(seconds):
    with pytest.raises(ValueError, match="at least two pairs"):
        paired_seconds(seconds)
