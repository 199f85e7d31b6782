"""The estimators against closed forms, the classical mean squares, simulations with known parts, and mlxtend."""

import numpy as np
import pandas as pd
import pytest
import torch
from mlxtend.evaluate import bias_variance_decomp
from sklearn.tree import DecisionTreeClassifier

import lab
from lab.analysis import layout
from lab.analysis.decomposition import decompose

PARTS = ("variance_resample", "variance_init", "variance_interaction")


def random_probabilities(rng, *shape):
    f = rng.gamma(1.0, size=shape)
    return f / f.sum(axis=-1, keepdims=True)


def crossed_replicas(rng, D, I, *, n_points=3, scale=0.02):  # noqa: E741
    """Two-class predictions p = 0.5 + scale·(a_d + b_i + e_di) per point, with variances .5 / .2 / .3."""

    def effect(variance, *shape):
        return np.sqrt(variance) * rng.standard_normal((*shape, n_points))

    z = effect(0.5, D, 1) + effect(0.2, 1, I) + effect(0.3, D, I)
    p = 0.5 + scale * z
    posterior = np.tile([0.5 - scale, 0.5 + scale], (n_points, 1))  # bias² of one class: scale²·1
    return np.stack([p, 1 - p], axis=-1), posterior


def test_a_full_crossed_design_gives_the_classical_mean_squares():
    rng = np.random.default_rng(0)
    D, I, N, C = 5, 4, 7, 3  # noqa: E741
    f = random_probabilities(rng, D, I, N, C)
    labels = rng.integers(0, C, N)
    grand, by_d, by_i = f.mean(axis=(0, 1)), f.mean(axis=1), f.mean(axis=0)
    ms_d = I / (D - 1) * ((by_d - grand) ** 2).sum(axis=(0, 2)).mean()
    ms_i = D / (I - 1) * ((by_i - grand) ** 2).sum(axis=(0, 2)).mean()
    residual = f - by_d[:, None] - by_i[None] + grand
    ms_e = (residual**2).sum(axis=(0, 1, 3)).mean() / ((D - 1) * (I - 1))
    result = decompose(f, labels)
    assert result.variance_interaction == pytest.approx(ms_e, abs=1e-13)
    assert result.variance_resample == pytest.approx((ms_d - ms_e) / I, abs=1e-13)
    assert result.variance_init == pytest.approx((ms_i - ms_e) / D, abs=1e-13)
    one_hot = np.eye(C)[labels]
    assert result.risk == pytest.approx(((f - one_hot) ** 2).sum(axis=-1).mean(), abs=1e-13)


def test_a_nested_design_gives_the_nested_mean_squares():
    rng = np.random.default_rng(1)
    D, I, N, C = 6, 3, 4, 3  # noqa: E741
    f = random_probabilities(rng, D, I, N, C)
    within = ((f - f.mean(axis=1, keepdims=True)) ** 2).sum(axis=(0, 1, 3)).mean() / (D * (I - 1))
    between = I * ((f.mean(axis=1) - f.mean(axis=(0, 1))) ** 2).sum(axis=(0, 2)).mean() / (D - 1)
    result = decompose(f, np.zeros(N, dtype=int), design="nested")
    assert result.variance_init == pytest.approx(within, abs=1e-13)
    assert result.variance_resample == pytest.approx((between - within) / I, abs=1e-13)
    assert np.isnan(result.variance_interaction)


def test_independent_replicas_give_the_sample_variance_with_r_minus_1():
    rng = np.random.default_rng(2)
    f = random_probabilities(rng, 6, 5, 3)
    result = decompose(f, np.zeros(5, dtype=int), design="independent")
    assert result.variance == pytest.approx(f.var(axis=0, ddof=1).sum(axis=-1).mean(), abs=1e-13)
    assert np.isnan(result.variance_resample)


@pytest.mark.parametrize("known", [True, False])
def test_the_parts_sum_to_the_risk(known):
    rng = np.random.default_rng(3)
    f = random_probabilities(rng, 4, 3, 20, 5)
    posterior = random_probabilities(rng, 20, 5) if known else None
    result = decompose(f, rng.integers(0, 5, 20), posterior_NC=posterior)
    noise = result.noise if known else 0.0
    assert (result.noise is None) is (not known)
    assert noise + result.bias_sq + result.variance == pytest.approx(result.risk, abs=1e-10)
    assert sum(getattr(result, part) for part in PARTS) == pytest.approx(result.variance, abs=1e-10)


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_crossed_components_are_unbiased_also_with_missing_replicas(share_missing):
    """Mean over 1,500 draws against the truth; the tolerance is 4 standard errors of that mean."""
    rng = np.random.default_rng(4)
    estimates = []
    for _ in range(1500):
        f, posterior = crossed_replicas(rng, 5, 4)
        missing = rng.random((5, 4)) < share_missing
        missing[:2, :2] = False
        result = decompose(f, np.zeros(3, dtype=int), posterior_NC=posterior, missing_DI=missing, level=None)
        estimates.append([getattr(result, name) for name in ("bias_sq", *PARTS)])
    truth = 2 * 0.02**2 * np.array([1.0, 0.5, 0.2, 0.3])
    error = np.std(estimates, axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, axis=0) - truth) < 4 * error).all()
    assert (error < 0.06 * truth).all()  # the test could see a bias of a quarter of any part


def test_the_textbook_correction_would_fail_on_crossed_replicas():
    """R/(R−1) times the plug-in variance is centred low where replicas share training sets: the reason for pairs."""
    rng = np.random.default_rng(5)
    textbook = []
    for _ in range(1500):
        f, _ = crossed_replicas(rng, 3, 8)
        textbook.append(f.reshape(24, 3, 2).var(axis=0, ddof=1).sum(axis=-1).mean())
    truth = 2 * 0.02**2
    error = np.std(textbook) / np.sqrt(len(textbook))
    assert np.mean(textbook) < truth - 4 * error


def test_class_frequency_classifier_has_its_closed_form():
    """π = (.5, .3, .2), n = 20, a = 1: noise .62, bias² .000794, variance .023440, risk .644234 (science notes §7)."""
    rng = np.random.default_rng(6)
    pi, n, a = np.array([0.5, 0.3, 0.2]), 20, 1.0
    bias_sq = ((a * (1 - 3 * pi) / (n + 3 * a)) ** 2).sum()
    variance = (n * pi * (1 - pi)).sum() / (n + 3 * a) ** 2
    assert (bias_sq, variance) == (pytest.approx(0.000794, abs=5e-7), pytest.approx(0.023440, abs=5e-7))
    p = (rng.multinomial(n, pi, size=(1500, 10)) + a) / (n + 3 * a)
    results = [
        decompose(p[k][:, None], np.zeros(1, dtype=int), posterior_NC=pi[None], design="independent", level=None)
        for k in range(len(p))
    ]
    for name, truth in (("noise", 0.62), ("bias_sq", bias_sq), ("variance", variance), ("risk", 0.644234)):
        values = np.array([getattr(result, name) for result in results])
        tolerance = 4 * values.std(ddof=1) / np.sqrt(len(values)) + 1e-6
        assert values.mean() == pytest.approx(truth, abs=tolerance), name
        assert tolerance < 0.002


def test_ridge_regression_on_a_fixed_design_has_its_closed_form():
    """p = ½ + s·x'β̂ for a ridge estimate β̂: bias² and variance follow from A = (X'X + λI)⁻¹."""
    rng = np.random.default_rng(7)
    n, k, lam, sigma, s = 30, 4, 5.0, 0.5, 0.02
    X, beta, points = rng.standard_normal((n, k)), rng.standard_normal(k), rng.standard_normal((25, k))
    A = np.linalg.inv(X.T @ X + lam * np.eye(k))
    bias_sq = 2 * s**2 * ((lam * points @ A @ beta) ** 2).mean()
    variance = 2 * s**2 * sigma**2 * ((points @ A @ X.T) ** 2).sum(axis=1).mean()
    y = X @ beta + sigma * rng.standard_normal((600, n))
    p = 0.5 + s * y @ X @ A @ points.T
    truth = 0.5 + s * points @ beta
    result = decompose(
        np.stack([p, 1 - p], axis=-1),
        np.zeros(25, dtype=int),
        posterior_NC=np.stack([truth, 1 - truth], axis=-1),
        design="independent",
    )
    assert result.bias_sq == pytest.approx(bias_sq, rel=0.08)
    assert result.variance == pytest.approx(variance, rel=0.08)


class Recorder:
    """A regressor for mlxtend that remembers what it predicted; deliberately unstable."""

    def __init__(self):
        self.predictions = []

    def fit(self, X, y):
        self.at = X[:, 0].mean()
        self.level = y.mean()
        return self

    def predict(self, X):
        p = 1 / (1 + np.exp(-(X[:, 0] - 5 * self.at) - self.level))
        self.predictions.append(p)
        return p


def test_mlxtend_finds_the_same_plug_in_terms_in_the_same_predictions():
    """mlxtend's loss, bias and variance are plug-in and of one column: unbiased ones follow by (1 − 1/R) and 2."""
    rng = np.random.default_rng(8)
    X, y = rng.standard_normal((60, 2)), rng.integers(0, 2, 60).astype(float)
    recorder, R = Recorder(), 12
    loss, bias, variance = bias_variance_decomp(
        recorder, X[:40], y[:40], X[40:], y[40:], loss="mse", num_rounds=R, random_seed=1
    )
    p = np.stack(recorder.predictions)
    ours = decompose(np.stack([1 - p, p], axis=-1), y[40:].astype(int), design="independent")
    assert ours.risk / 2 == pytest.approx(loss, abs=1e-12)
    assert ours.variance / 2 * (1 - 1 / R) == pytest.approx(variance, abs=1e-12)
    assert (ours.bias_sq + ours.variance / R) / 2 == pytest.approx(bias, abs=1e-12)


def test_a_diverged_replica_is_left_out_and_counted():
    rng = np.random.default_rng(9)
    f = random_probabilities(rng, 4, 3, 10, 3)
    labels = rng.integers(0, 3, 10)
    missing = np.zeros((4, 3), dtype=bool)
    missing[1, 2] = True
    masked = decompose(f, labels, missing_DI=missing)
    f[1, 2] = np.nan
    assert decompose(f, labels).to_dict() == masked.to_dict()
    assert masked.n_replicas == 11


def test_too_few_replicas_for_a_part_make_it_nan_and_raise_no_warning():
    rng = np.random.default_rng(10)
    f = random_probabilities(rng, 3, 2, 5, 3)
    f[1:] = np.nan  # one resample is left
    result = decompose(f, np.zeros(5, dtype=int))
    assert np.isfinite(result.risk)
    assert np.isnan(result.variance)
    assert np.isnan(result.bias_sq)


def test_tied_classes_share_the_blame_for_an_error():
    f = np.full((2, 2, 1, 4), 0.25)
    assert decompose(f, np.array([3])).error == pytest.approx(0.75)


def test_every_interval_contains_its_estimate():
    rng = np.random.default_rng(11)
    result = decompose(random_probabilities(rng, 5, 4, 30, 3), rng.integers(0, 3, 30))
    assert set(result.terms) == {"risk", "noise", "bias_sq", "variance", *PARTS, "error"}
    for name, term in result.terms.items():
        assert name == "noise" or term.lo < term.value < term.hi, name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(labels_N=np.array([0, 1])), "labels have shape"),
        (dict(labels_N=np.array([0, 1, 3])), "labels run from 0 to 3"),
        (dict(labels_N=np.array([0.5, 1, 2])), "give class numbers"),
        (dict(probabilities_DINC=np.full((3, 3, 3), 1 / 3)), r"needs \(D, I, N, C\)"),
        (dict(probabilities_DINC=np.full((1, 1, 3, 3), 1 / 3)), "at least two of either"),
        (dict(probabilities_DINC=np.full((2, 2, 3, 3), 5.0)), "or these as logits="),
        (dict(probabilities_DINC=np.full((2, 2, 3, 3), 0.1)), "not to 1"),
        (dict(posterior_NC=np.ones((3, 3))), "posterior"),
        (dict(missing_DI=np.ones((2, 2), dtype=bool)), "no replica is left"),
        (dict(missing_DI=np.ones(2, dtype=bool)), "missing has shape"),
        (dict(design="latin"), "design 'latin' is unknown"),
        (dict(loss="hinge"), "loss 'hinge' is unknown"),
        (dict(level=95), "level = 95"),
    ],
)
def test_bad_input_is_explained(change, says):
    arguments = dict(probabilities_DINC=np.full((2, 2, 3, 3), 1 / 3), labels_N=np.array([0, 1, 2])) | change
    with pytest.raises(ValueError, match=says):
        decompose(**arguments)


def test_a_single_nan_prediction_is_an_error_not_a_diverged_replica():
    f = np.full((2, 2, 3, 3), 1 / 3)
    f[0, 1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        decompose(f, np.array([0, 1, 2]))


def test_torch_pandas_and_lists_are_taken_as_they_are():
    rng = np.random.default_rng(12)
    f, labels = random_probabilities(rng, 3, 3, 8, 2), rng.integers(0, 2, 8)
    expected = lab.decompose(f, labels).to_dict()
    assert lab.decompose(torch.tensor(f, requires_grad=True), torch.tensor(labels)).to_dict() == expected
    assert lab.decompose(f.tolist(), pd.Series(labels.astype(float))).to_dict() == expected
    frames = [pd.DataFrame(f[d, i]) for d in range(3) for i in range(3)]
    independent = lab.decompose(frames, labels, design="independent")
    assert independent.risk == pytest.approx(expected["risk"])


def test_logits_give_what_their_softmax_gives():
    rng = np.random.default_rng(13)
    logits, labels = rng.standard_normal((4, 3, 9, 3)), rng.integers(0, 3, 9)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for loss in ("brier", "cross_entropy", "zero_one"):
        one, two = lab.decompose(None, labels, logits=logits, loss=loss), lab.decompose(p, labels, loss=loss)
        assert one.risk == pytest.approx(two.risk, abs=1e-12)
        assert one.terms.keys() == two.terms.keys()


def test_terms_of_each_point_come_first_and_their_means_last():
    rng = np.random.default_rng(14)
    f, labels = random_probabilities(rng, 4, 3, 11, 3), rng.integers(0, 3, 11)
    for loss in ("brier", "cross_entropy", "zero_one"):
        result = lab.decompose(f, labels, loss=loss)
        one = lab.decompose(f[:, :, 4:5], labels[4:5], loss=loss, level=None)
        for name in result.terms.keys() - {"noise", "kw_noise"}:
            assert result.per_example[name].mean() == pytest.approx(getattr(result, name), abs=1e-13)
            assert result.per_example[name][4] == pytest.approx(getattr(one, name), abs=1e-13)


def test_predictions_in_many_portions_of_points_give_the_same(monkeypatch):
    rng = np.random.default_rng(15)
    f, labels = random_probabilities(rng, 4, 3, 50, 3), rng.integers(0, 3, 50)
    whole = lab.decompose(f, labels).to_dict()
    monkeypatch.setattr("lab.analysis.decomposition.chunks", lambda n, size: layout.chunks(n, size, at_once=7 * size))
    pieces = lab.decompose(f, labels).to_dict()
    assert all(pieces[name] == pytest.approx(value, abs=1e-12) for name, value in whole.items() if name != "noise"
               and isinstance(value, float))  # fmt: skip


def test_a_term_that_another_loss_has_is_named_in_the_error():
    result = lab.decompose(np.full((2, 2, 3, 3), 1 / 3), np.zeros(3, dtype=int))
    with pytest.raises(AttributeError, match="a brier decomposition has no term 'bias': risk, noise, bias_sq"):
        _ = result.bias


def test_mlxtend_finds_the_same_terms_of_the_zero_one_loss():
    """mlxtend adds V_u + V_b for two classes, where the loss is B + V_u − V_b (an odd number of rounds has no ties)."""
    rng = np.random.default_rng(16)
    X, y = rng.standard_normal((80, 3)), rng.integers(0, 2, 80)
    y[X[:, 0] > 0.3] = 1
    tree, predicted = DecisionTreeClassifier(random_state=0), []
    fit_predict = tree.predict
    tree.predict = lambda points: predicted.append(fit_predict(points)) or predicted[-1]
    loss, bias, variance = bias_variance_decomp(
        tree, X[:50], y[:50], X[50:], y[50:], loss="0-1_loss", num_rounds=15, random_seed=2
    )
    ours = lab.decompose(np.stack(predicted), y[50:], loss="zero_one", design="independent")
    assert ours.risk == pytest.approx(loss, abs=1e-12)
    assert ours.bias == pytest.approx(bias, abs=1e-12)
    assert ours.variance_unbiased + ours.variance_biased == pytest.approx(variance, abs=1e-12)
