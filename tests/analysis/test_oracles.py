"""Learners whose bias and variance are known from theory: neighbours, projections, random features."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lab.analysis.decomposition import decompose

SCALE = 1e-4  # of the outputs of a regression, so that ½ ± SCALE·output is a probability


def two_classes(p_N):
    return np.stack([1 - p_N, p_N], axis=-1)


class TestNeighbours:
    """k nearest neighbours of points on a line, whose labels alone are drawn anew: everything follows by counting."""

    K = 5
    at, points = np.arange(40.0), np.arange(3.3, 37, 1.7)
    chance = 1 / (1 + np.exp(-(at - 17) / 4))  # of class 1, at each of the 40 places
    truth = 1 / (1 + np.exp(-(points - 17) / 4))
    near = np.argsort(np.abs(at - points[:, None]), axis=1)[:, :K]

    def replicas(self, n):
        labels = np.random.default_rng(0).random((n, 40)) < self.chance
        return two_classes(labels[:, self.near].mean(axis=-1))

    def test_the_brier_score_has_the_bias_of_the_neighbourhood_and_a_kth_of_its_variance(self):
        near = self.chance[self.near]
        bias_sq = 2 * ((near.mean(axis=1) - self.truth) ** 2).mean()
        variance = 2 * ((near * (1 - near)).sum(axis=1) / self.K**2).mean()
        posterior, labels = two_classes(self.truth), np.zeros(len(self.points), dtype=int)
        found = decompose(self.replicas(3000), labels, posterior_NC=posterior, design="independent", level=None)
        assert found.variance == pytest.approx(variance, rel=0.03)
        assert found.bias_sq == pytest.approx(bias_sq, abs=0.03 * variance)  # an error of the mean of 3,000: 2·√(v·b/R)
        assert found.noise == pytest.approx(2 * (self.truth * (1 - self.truth)).mean(), abs=1e-12)

    def test_the_error_rate_has_that_of_the_majority_of_k_coins(self):
        wins = np.zeros(len(self.points))
        for labels in np.ndindex(*[2] * self.K):  # all outcomes of the K neighbours
            if sum(labels) > self.K / 2:
                wins += np.where(labels, self.chance[self.near], 1 - self.chance[self.near]).prod(axis=1)
        posterior, labels = two_classes(self.truth), np.zeros(len(self.points), dtype=int)
        found = decompose(
            self.replicas(3000), labels, loss="zero_one", posterior_NC=posterior, design="independent", level=None
        )
        assert found.risk == pytest.approx((wins * (1 - self.truth) + (1 - wins) * self.truth).mean(), abs=0.005)
        assert found.kw_variance == pytest.approx((wins * (1 - wins)).mean(), rel=0.03)
        best, main = self.truth > 0.5, wins > 0.5
        assert found.bias == pytest.approx((best != main).mean(), abs=1e-12)  # 3,000 votes find every main prediction


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_random_projections_have_bias_1_less_their_share_squared_and_variance_share_times_the_rest(share):
    """Least squares on a random view of d inputs in p dimensions, no noise; γ = p/d, in units of the signal."""
    rng, d, n_replicas = np.random.default_rng(1), 24, 800
    beta = rng.standard_normal(d)
    beta /= np.linalg.norm(beta)
    points = np.sqrt(d) * np.eye(d)  # their second moment is exactly that of standard normal inputs
    bases = np.linalg.qr(rng.standard_normal((n_replicas, d, round(share * d))))[0]
    fitted = np.einsum("rdp,rep,e->rd", bases, bases, beta) * np.sqrt(d)
    found = decompose(
        two_classes(0.5 + SCALE * fitted), np.zeros(d, dtype=int), design="independent", level=None,
        posterior_NC=two_classes(0.5 + SCALE * points @ beta),
    )  # fmt: skip
    unit = 2 * SCALE**2
    assert found.variance / unit == pytest.approx(share * (1 - share), rel=0.03)
    along = np.sqrt(2 * share * (1 - share) / (d + 2) / n_replicas)  # standard error of β'Pβ, which is Beta distributed
    assert found.bias_sq / unit == pytest.approx((1 - share) ** 2, abs=3 * 2 * (1 - share) * along)


def test_random_features_explode_where_they_are_as_many_as_examples_and_the_interaction_does_it():
    """Least squares of least norm on random ReLU features of 200 digits: risk falls, explodes at p = n, falls again."""
    images, digits = load_digits(return_X_y=True)
    x, y = (images - images.mean(axis=0)) / images.std(), np.where(digits < 5, -1.0, 1.0)
    order, n, n_sets, n_draws = np.random.default_rng(2).permutation(len(x)), 200, 4, 4
    train, test = order[: n * n_sets].reshape(n_sets, n), order[n * n_sets :][:300]
    found = {}
    for p in (40, n, 2000):
        fitted = np.empty((n_sets, n_draws, len(test)))
        for i in range(n_draws):
            w = np.random.default_rng([3, i]).standard_normal((64, p)) / 8
            features = np.maximum(x @ w, 0)
            for d, rows in enumerate(train):
                fitted[d, i] = features[test] @ np.linalg.lstsq(features[rows], y[rows], rcond=None)[0]
        found[p] = decompose(
            two_classes(0.5 + SCALE * fitted), np.zeros(len(test), dtype=int),
            posterior_NC=two_classes(0.5 + SCALE * y[test]), level=None,
        )  # fmt: skip
    excess = {p: (one.risk - one.noise) / (2 * SCALE**2) for p, one in found.items()}
    assert excess[n] > 10 * max(excess[40], excess[2000]) and excess[2000] < excess[40]
    shares = {p: one.variance_interaction / one.variance for p, one in found.items()}
    assert shares[n] > 0.8 and shares[n] > max(shares[40], shares[2000])
    assert found[n].variance > 0.9 * (found[n].risk - found[n].noise)
