"""Cross-entropy: closed forms, the dual mean computed another way, and how far the jackknife takes the bias away."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import binom

from lab.analysis.decomposition import decompose

PARTS = ("variance_resample", "variance_init", "variance_interaction")


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(axis=-1)


def dual_mean(log_p, axis):
    return np.exp(log_softmax(log_p.mean(axis=axis), axis=-1))


@pytest.fixture
def crossed():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 4, 12, 3))
    return logits, rng.integers(0, 3, 12), rng.dirichlet(np.ones(3), size=12)


def test_plug_in_bias_and_variance_are_divergences_from_and_to_the_dual_mean(crossed):
    logits, labels, posterior = crossed
    log_p = log_softmax(logits, axis=-1)
    centre = dual_mean(log_p, (0, 1))
    result = decompose(None, labels, logits=logits, loss="cross_entropy", posterior_NC=posterior)
    spread = kl(centre, np.exp(log_p)).mean()
    assert result.variance_plugin == pytest.approx(spread, abs=1e-12)
    noise = -(posterior * np.log(posterior)).sum(axis=1).mean()
    assert result.noise == pytest.approx(noise)
    assert result.risk == pytest.approx(noise + kl(posterior, centre).mean() + spread, abs=1e-12)
    assert result.risk == pytest.approx(result.noise + result.bias + result.variance, abs=1e-12)


def test_with_labels_alone_the_risk_is_the_mean_log_loss_and_logits_may_be_huge(crossed):
    logits, labels, _ = crossed
    result = decompose(None, labels, logits=logits + 1e4, loss="cross_entropy")
    log_p = log_softmax(logits, axis=-1)
    assert result.risk == pytest.approx(-log_p[:, :, np.arange(12), labels].mean(), abs=1e-10)
    assert result.noise is None


def test_without_bias_correction_the_causes_follow_the_law_of_total_variance(crossed):
    """Their corrected sum is the corrected total; for one factor, each is a variance of centres computed by hand."""
    logits, labels, _ = crossed
    result = decompose(None, labels, logits=logits, loss="cross_entropy")
    assert sum(getattr(result, part) for part in PARTS) == pytest.approx(result.variance, abs=1e-12)
    log_p = log_softmax(logits, axis=-1)
    one_seed = decompose(None, labels, logits=logits[:, :1], loss="cross_entropy")
    assert one_seed.variance_plugin == pytest.approx(kl(dual_mean(log_p[:, :1], (0, 1)), np.exp(log_p[:, 0])).mean())
    assert one_seed.variance_resample == pytest.approx(one_seed.variance)


def test_the_plug_in_variance_is_0_where_a_single_replica_is_left(crossed):
    logits, labels, _ = crossed
    missing = [[False], [True]]
    result = decompose(None, labels, logits=logits[:2, :1], missing_DI=missing, loss="cross_entropy")
    assert result.variance_plugin == pytest.approx(0)


def test_for_small_disagreements_it_is_half_the_chi_square_of_the_unbiased_crossed_estimates():
    """KL is quadratic nearby: with classes of 1/2 half of ‖f − f̄‖² / (1/2), that is the Brier score's."""
    rng = np.random.default_rng(1)
    D, I, N = 6, 5, 9  # noqa: E741
    z = rng.standard_normal((D, 1, N)) + 0.5 * rng.standard_normal((1, I, N)) + 0.7 * rng.standard_normal((D, I, N))
    p = np.stack([0.5 + 1e-3 * z, 0.5 - 1e-3 * z], axis=-1)
    labels = np.zeros(N, dtype=int)
    kl_parts, brier_parts = (decompose(p, labels, loss=loss) for loss in ("cross_entropy", "brier"))
    for name in ("variance", *PARTS):
        one, two = kl_parts.terms[name], brier_parts.terms[name]
        assert one.value == pytest.approx(two.value, rel=1e-4), name
        assert one.hi - one.lo == pytest.approx(two.hi - two.lo, rel=0.12), name


def test_class_frequencies_have_their_closed_form_and_the_plug_in_is_too_low():
    """Binary, n = 20, π = .7, a = 1 (science notes §7): noise .610864, bias .000237, variance .021651."""
    n, pi, a = 20, 0.7, 1.0
    counts = np.arange(n + 1)
    weight = binom.pmf(counts, n, pi)
    log_p = np.log((np.stack([counts, n - counts], axis=1) + a) / (n + 2 * a))
    mean = weight @ log_p
    variance = -np.log(np.exp(mean).sum())
    posterior = np.array([pi, 1 - pi])
    bias = kl(posterior, np.exp(mean + variance))
    noise = -(posterior * np.log(posterior)).sum()
    assert (noise, bias, variance) == pytest.approx((0.610864, 0.000237, 0.021651), abs=1e-6)
    rng = np.random.default_rng(2)
    estimates = []
    for _ in range(400):
        drawn = rng.binomial(n, pi, size=(10, 25))  # 25 points, each with training sets of its own
        p = (np.stack([drawn, n - drawn], axis=-1) + a) / (n + 2 * a)
        result = decompose(
            p, np.zeros(25, dtype=int), posterior_NC=np.tile(posterior, (25, 1)), design="independent",
            loss="cross_entropy", level=None,
        )  # fmt: skip
        estimates.append((result.noise, result.bias, result.variance, result.variance_plugin))
    mean, error = np.mean(estimates, axis=0), np.std(estimates, axis=0, ddof=1) / np.sqrt(400)
    assert mean[0] == pytest.approx(noise)
    assert mean[1] == pytest.approx(bias, abs=4 * error[1])
    assert mean[2] == pytest.approx(variance, abs=4 * error[2])
    assert mean[3] < variance - 8 * error[3]  # low by a tenth


def test_a_missing_replica_is_left_out(crossed):
    logits, labels, _ = crossed
    logits[3] = np.nan  # a whole resample
    with_hole = decompose(None, labels, logits=logits, loss="cross_entropy")
    without = decompose(None, labels, logits=np.delete(logits, 3, axis=0), loss="cross_entropy")
    for name in ("risk", "bias", "variance", *PARTS):
        assert tuple(with_hole.terms[name]) == pytest.approx(tuple(without.terms[name]), abs=1e-12), name
    logits[0, 1] = np.nan
    assert decompose(None, labels, logits=logits, loss="cross_entropy").n_replicas == 15


def test_a_probability_of_0_is_explained():
    p = np.full((2, 2, 3, 2), 0.5)
    p[1, 0, 2] = 0, 1
    with pytest.raises(ValueError, match="a probability is 0"):
        decompose(p, np.zeros(3, dtype=int), loss="cross_entropy")


def test_parts_that_the_replicas_left_cannot_tell_are_told_by_no_loss(crossed):
    """Each seed on one training set alone, or one training set left of several: Brier says NaN, and so does this."""
    logits, labels, _ = crossed
    diagonal, one_set = logits[:4].copy(), logits.copy()
    diagonal[~np.eye(4, dtype=bool)] = np.nan
    one_set[1:] = np.nan
    for given in (diagonal, one_set):
        ours, brier = (decompose(None, labels, logits=given, loss=loss) for loss in ("cross_entropy", "brier"))
        for name in ("variance", *PARTS):
            assert np.isnan(ours.terms[name].value) == np.isnan(brier.terms[name].value), name
        assert np.isnan(ours.bias) == np.isnan(brier.bias_sq)
        assert np.isfinite(ours.risk)
    assert np.isnan(decompose(None, labels, logits=diagonal, loss="cross_entropy").variance_resample)
