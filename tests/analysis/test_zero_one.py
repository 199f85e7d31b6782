"""Zero-one loss: each view against its definition computed by counting, and where modes of few replicas mislead."""

from collections import Counter

import numpy as np
import pytest

from lab.analysis.decomposition import decompose


def one_hot(labels, n_classes=3):
    return np.eye(n_classes)[labels]


@pytest.fixture
def votes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    right = rng.random((5, 3, 40)) < rng.random(40)  # from points that nearly all get right to such that none does
    return np.where(right, labels, rng.integers(0, 3, (5, 3, 40))), labels


def test_domingos_terms_are_those_counted_by_hand(votes):
    predicted, labels = votes
    bias = unbiased = biased = 0.0
    for n, label in enumerate(labels):
        cast = Counter(predicted[:, :, n].ravel().tolist())
        most = max(cast.values())
        mains = [c for c in cast if cast[c] == most]
        for main in mains:  # ties are split evenly
            bias += (main != label) / len(mains) / 40
            if main == label:
                unbiased += (1 - cast[label] / 15) / len(mains) / 40
            else:
                biased += cast[label] / 15 / len(mains) / 40
    result = decompose(one_hot(predicted), labels, loss="zero_one")
    assert result.bias == pytest.approx(bias, abs=1e-12)
    assert (result.variance_unbiased, result.variance_biased) == pytest.approx((unbiased, biased), abs=1e-12)
    assert result.variance == pytest.approx(unbiased - biased, abs=1e-12)
    assert result.risk == pytest.approx((predicted != labels).mean(), abs=1e-12)
    assert result.risk == pytest.approx(result.bias + result.variance, abs=1e-12)


def test_james_effects_add_up_to_the_risk_where_labels_are_noisy(votes):
    predicted, labels = votes
    posterior = np.random.default_rng(1).dirichlet(np.ones(3), size=40)
    result = decompose(one_hot(predicted), labels, loss="zero_one", posterior_NC=posterior)
    wrong = 1 - np.take_along_axis(posterior[None, None], predicted[..., None], axis=-1)
    assert result.risk == pytest.approx(wrong.mean(), abs=1e-12)
    assert result.noise == pytest.approx((1 - posterior.max(axis=1)).mean(), abs=1e-12)
    total = result.noise + result.systematic_effect + result.variance_effect
    assert total == pytest.approx(result.risk, abs=1e-12)


def test_with_labels_that_are_certain_james_and_domingos_agree(votes):
    predicted, labels = votes
    result = decompose(one_hot(predicted), labels, loss="zero_one")
    assert result.systematic_effect == pytest.approx(result.bias, abs=1e-12)
    assert result.variance_effect == pytest.approx(result.variance, abs=1e-12)


def test_kohavi_and_wolpert_is_half_the_brier_decomposition_of_the_votes(votes):
    predicted, labels = votes
    ours, brier = (decompose(one_hot(predicted), labels, loss=loss) for loss in ("zero_one", "brier"))
    assert ours.kw_bias_sq == pytest.approx(brier.bias_sq / 2, abs=1e-12)
    for name in ("variance", "variance_resample", "variance_init", "variance_interaction"):
        one, two = ours.terms[f"kw_{name}"], brier.terms[name]
        assert (one.value, one.lo, one.hi) == pytest.approx((two.value / 2, two.lo / 2, two.hi / 2), abs=1e-12), name
    assert np.isnan(ours.kw_noise)


def test_kohavi_and_wolpert_give_the_definition_for_many_replicas():
    """bias² = ½ Σ (π − P̂)², variance = ½ (1 − Σ P̂²) with the class probabilities of the learner."""
    rng = np.random.default_rng(2)
    chance, posterior = rng.dirichlet(np.ones(3), size=5), rng.dirichlet(np.ones(3), size=5)
    predicted = (rng.random((4000, 5, 1)) > chance.cumsum(axis=1)).sum(axis=-1)
    result = decompose(
        one_hot(predicted), np.zeros(5, dtype=int), loss="zero_one", design="independent", posterior_NC=posterior,
        level=None,
    )  # fmt: skip
    assert result.kw_variance == pytest.approx(0.5 * (1 - (chance**2).sum(axis=1)).mean(), abs=0.005)
    assert result.kw_bias_sq == pytest.approx(0.5 * ((posterior - chance) ** 2).sum(axis=1).mean(), abs=0.01)
    assert result.kw_noise == pytest.approx(0.5 * (1 - (posterior**2).sum(axis=1)).mean(), abs=1e-12)


def test_a_prediction_that_ties_counts_as_a_draw_of_lots():
    """Always undecided between two classes: an error half of the time, which is variance of the single replica."""
    p = np.full((3, 2, 4, 2), 0.5)
    result = decompose(p, np.zeros(4, dtype=int), loss="zero_one")
    assert result.risk == pytest.approx(0.5)
    assert result.kw_variance == pytest.approx(0.25)
    assert result.kw_variance_interaction == pytest.approx(0.25)
    assert (result.bias, result.variance_unbiased, result.variance_biased) == pytest.approx((0.5, 0.25, 0.25))


def test_the_main_prediction_of_three_replicas_is_often_wrong_where_that_of_many_is_right():
    """P(correct) = .6, two classes: B is 0, and .352 on average from three replicas (science notes §3)."""
    rng = np.random.default_rng(3)
    predicted = (rng.random((3, 4000)) > 0.6).astype(int)
    few = decompose(one_hot(predicted, 2), np.zeros(4000, dtype=int), loss="zero_one", design="independent", level=None)
    exact = 0.4**3 + 3 * 0.4**2 * 0.6
    assert few.bias == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))
    assert exact == pytest.approx(0.352)


def test_a_net_variance_may_be_negative_and_what_rests_on_a_mode_has_no_interval():
    """Where the main prediction is wrong, disagreement helps."""
    rng = np.random.default_rng(4)
    predicted = (rng.random((5, 4, 50)) > 0.35).astype(int)
    result = decompose(one_hot(predicted, 2), np.zeros(50, dtype=int), loss="zero_one")
    assert result.variance < 0
    without = {name for name, term in result.terms.items() if name not in ("noise", "kw_noise") and np.isnan(term.lo)}
    assert without == {
        "bias", "variance", "variance_unbiased", "variance_biased", "systematic_effect", "variance_effect"
    }  # fmt: skip
    assert result.risk_lo < result.risk < result.risk_hi


def test_replicas_of_the_same_few_seeds_have_the_same_wrong_main_prediction():
    """Why there is no interval: seeds shift the votes, and a second training set for each does not show by how much."""
    rng = np.random.default_rng(5)
    lean_I = 0.6 + 0.5 * rng.choice([-1, 1], size=(4000, 1, 4))  # right with probability 1, or .1: .55 on average
    predicted = (rng.random((4000, 16, 4)) > lean_I).astype(int).transpose(1, 2, 0)
    few = decompose(one_hot(predicted, 2), np.zeros(4000, dtype=int), loss="zero_one", level=None)
    assert few.bias > 0.2  # of many seeds: 0
