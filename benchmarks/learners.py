"""Learners whose parts of the risk are known, as crossed samples of training sets, seeds and test points.

Class frequencies with a random prior and a ridge regression with a random start have closed forms for the Brier score
and no interaction; frequencies in the cells of a histogram have none either. A shift of all predictions is the hard
case: nothing averages over test points. Ridge on random ReLU features and a small MLP on `gaussians` have an
interaction too. What is not known in closed form is the mean of many large samples (`limits`).

Shape suffixes: D training sets, I seeds, N test points, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from lab.analysis.decomposition import decompose

N_INITS = 4
TERMS = {
    "brier": ("risk", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction"),
    "cross_entropy": ("risk", "bias", "variance", "variance_resample", "variance_init", "variance_interaction"),
    "zero_one": (
        "risk", "kw_bias_sq", "kw_variance", "kw_variance_resample", "kw_variance_init",
        "kw_variance_interaction",
    ),
}  # fmt: skip


class Sample(NamedTuple):
    """Predictions (D, I, N, C), labels (N,) and the posterior (N, C) if it is known."""

    p_DINC: np.ndarray
    labels_N: np.ndarray
    posterior_NC: np.ndarray | None


def class_frequency(seed: int, D: int, n_inits: int = N_INITS, n_points: int = 300) -> Sample:
    """Relative frequencies of 20 labels and 6 pseudo-labels that the seed deals out; the posterior is not told."""
    rng = np.random.default_rng(seed)
    counts, prior = rng.multinomial(20, [0.5, 0.3, 0.2], size=D), 6 * rng.dirichlet([2, 2, 2], size=n_inits)
    p_DIC = (counts[:, None] + prior) / 26
    labels = rng.choice(3, size=n_points, p=[0.5, 0.3, 0.2])
    return Sample(np.repeat(p_DIC[:, :, None], n_points, axis=2), labels, None)


def histogram(seed: int, D: int, n_inits: int = N_INITS, n_points: int = 200) -> Sample:
    """The same in each of 40 cells, with classes of its own: 9 labels and 3 pseudo-labels a cell; posterior known."""
    rng, cells = np.random.default_rng(seed), np.random.default_rng(11).dirichlet([1, 1, 1], size=40)
    counts = rng.multinomial(9, cells, size=(D, 40))
    prior = 3 * rng.dirichlet([1, 1, 1], size=(n_inits, 40))
    at = rng.integers(40, size=n_points)
    p_DINC = ((counts[:, None] + prior) / 12)[:, :, at]
    return Sample(p_DINC, (rng.random((n_points, 1)) < cells[at].cumsum(axis=1)).argmax(axis=1), cells[at])


def class_frequency_truth() -> dict[str, float]:
    pi, mean_prior = np.array([0.5, 0.3, 0.2]), 2.0
    resample = 20 * (pi * (1 - pi)).sum() / 26**2
    init = 36 * (1 / 3 * 2 / 3 * 3 / 7) / 26**2  # Dirichlet(2, 2, 2): variance m(1 − m)/7 with m = 1/3, three times
    bias = 1 - (pi**2).sum() + (((mean_prior - 6 * pi) / 26) ** 2).sum()
    return _parts(bias, resample, init)


_RIDGE = np.random.default_rng(7)
_X, _BETA = _RIDGE.standard_normal((30, 4)), _RIDGE.standard_normal(4)
_A = np.linalg.inv(_X.T @ _X + 5.0 * np.eye(4))
_SCALE, _SIGMA, _START = 0.05, 0.5, 0.6  # of predictions, of the noise in y, of the random start


def ridge(seed: int, D: int, n_inits: int = N_INITS, n_points: int = 200) -> Sample:
    """Ridge towards a random start, on a fixed design: p = ½ + 0.05·x'β̂, at random x."""
    rng = np.random.default_rng(seed)
    y, start = _X @ _BETA + _SIGMA * rng.standard_normal((D, 30)), _START * rng.standard_normal((n_inits, 4))
    points = rng.standard_normal((n_points, 4))
    fitted = (y @ _X @ _A)[:, None] + 5.0 * start @ _A
    return _two_classes(0.5 + _SCALE * fitted @ points.T, 0.5 + _SCALE * points @ _BETA)


def ridge_truth() -> dict[str, float]:
    bias = 2 * _SCALE**2 * ((5.0 * _A @ _BETA) ** 2).sum()
    resample = 2 * _SCALE**2 * _SIGMA**2 * ((_A @ _X.T) ** 2).sum()
    init = 2 * _SCALE**2 * (5.0 * _START) ** 2 * (_A**2).sum()
    return _parts(bias, resample, init, noise=0.5 - 2 * _SCALE**2 * (_BETA**2).sum())


_SHIFTS = {"resample": 0.5, "init": 0.3, "interaction": 0.3}  # standard deviations


def shift(seed: int, D: int, n_inits: int = N_INITS, n_points: int = 200) -> Sample:
    """The hard case: training set, seed and both together shift all predictions alike, by a normal number each."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n_points)
    shapes = {"resample": (D, 1), "init": (1, n_inits), "interaction": (D, n_inits)}
    shift_DI = sum(sd * rng.standard_normal(shapes[cause]) for cause, sd in _SHIFTS.items())
    return _two_classes(0.5 + _SCALE * (0.8 * x + np.asarray(shift_DI)[..., None]), 0.5 + _SCALE * x)


def shift_truth() -> dict[str, float]:
    resample, init, interaction = (2 * _SCALE**2 * sd**2 for sd in _SHIFTS.values())
    return _parts(2 * _SCALE**2 * 0.2**2, resample, init, interaction, noise=0.5 - 2 * _SCALE**2)


def random_feature(seed: int, D: int, n_inits: int = N_INITS, n_points: int = 200) -> Sample:
    """Ridge on 30 random ReLU features of 40 examples of tanh(x'β) + noise, in 6 dimensions."""
    beta, rng = np.random.default_rng(3).standard_normal(6), np.random.default_rng(seed)
    x, w = rng.standard_normal((D, 40, 6)), rng.standard_normal((n_inits, 6, 30)) / np.sqrt(6)
    y, points = np.tanh(x @ beta) + 0.3 * rng.standard_normal((D, 40)), rng.standard_normal((n_points, 6))
    z = np.maximum(np.einsum("dnk,ikp->dinp", x, w), 0)
    gram = z.swapaxes(-1, -2) @ z + 0.3 * np.eye(30)
    weights = np.linalg.solve(gram, np.einsum("dinp,dn->dip", z, y)[..., None])[..., 0]
    fitted = np.einsum("inp,dip->din", np.maximum(np.einsum("nk,ikp->inp", points, w), 0), weights)
    return _two_classes(0.5 + _SCALE * fitted, 0.5 + _SCALE * np.tanh(points @ beta))


def mlp(seed: int, D: int, n_inits: int = N_INITS, n_points: int = 150) -> Sample:
    """A trained network: one hidden layer of 16, 30 epochs on 100 images of `gaussians`, posterior known."""
    import torch

    from lab import training
    from lab.data import datasets
    from lab.knobs import TrialConfig
    from lab.spec import Replication

    torch.set_num_threads(1)
    config = TrialConfig(
        family="mlp", depth=1, width=16, epochs=30, n_train=100, batch_size=25, learning_rate=0.02
    )  # fmt: skip
    data = datasets.load("gaussians", seed=seed, n_validation=1, n_test=n_points)
    plan = Replication(scheme="fresh", n_resamples=D, n_inits=n_inits)
    *_, last = training.fit(config, data, plan, seed=seed, n_evaluations=1)
    return Sample(last.probabilities_test_DINC, data.test.labels, data.test.posterior)


def _two_classes(p: np.ndarray, truth_N: np.ndarray) -> Sample:
    truth_N = np.clip(truth_N, 0, 1)
    labels = np.zeros(len(truth_N), dtype=int)
    return Sample(np.stack([1 - p, p], axis=-1), labels, np.stack([1 - truth_N, truth_N], axis=-1))


def _parts(
    bias: float, resample: float, init: float, interaction: float = 0.0, *, noise: float = 0.0
) -> dict[str, float]:
    variance = resample + init + interaction
    values = (noise + bias + variance, bias, variance, resample, init, interaction)
    return dict(zip(TERMS["brier"], map(float, values), strict=True))


LEARNERS: dict[str, Callable[..., Sample]] = {
    "class frequencies": class_frequency, "histogram": histogram, "ridge": ridge, "shift": shift,
    "random features": random_feature, "MLP": mlp,
}  # fmt: skip
CLOSED = {"class frequencies": class_frequency_truth, "ridge": ridge_truth, "shift": shift_truth}  # of the Brier score
LARGE = {  # training sets, seeds, test points
    "class frequencies": (100, 100, 10), "histogram": (100, 100, 400), "ridge": (100, 100, 200),
    "shift": (100, 100, 200), "random features": (100, 100, 200), "MLP": (40, 40, 500),
}  # fmt: skip


def limits(learner: str, first: int, n: int) -> list[dict[str, dict[str, float]]]:
    """Return the terms of each loss that infinitely many replicas would give, estimated from `n` large samples each.

    The divergences of cross-entropy are corrected as the mean squares are that they nearly are, which leaves far less
    than the 1 or 2 % by which they are low at these sizes. All else has unbiased estimates.
    """
    found = []
    for seed in range(first, first + n):
        sample = LEARNERS[learner](10**6 + seed, *LARGE[learner])
        if learner == "class frequencies":  # all its points are alike: labels in their exact shares
            sample = sample._replace(labels_N=np.repeat([0, 1, 2], [5, 3, 2]))
        one = {"cross_entropy": _cross_entropy_limit(sample)}
        for loss in ("brier", "zero_one"):
            large = decompose(*sample[:2], posterior_NC=sample.posterior_NC, loss=loss, level=None)  # type: ignore[arg-type]
            one[loss] = {term: float(large.terms[term].value or 0.0) for term in TERMS[loss]}
        found.append(one)
    return found


def _cross_entropy_limit(sample: Sample) -> dict[str, float]:
    log_p, target = np.log(sample.p_DINC.astype(float)), sample.posterior_NC
    if target is None:
        target = np.eye(log_p.shape[-1])[sample.labels_N]
    D, I = log_p.shape[:2]  # noqa: E741 - the letters of the shape legend
    total, within_d, within_i = (
        -float(logsumexp(log_p.mean(axis=axes), axis=-1).mean()) for axes in ((0, 1), 1, 0)
    )  # fmt: skip
    interaction = (within_d + within_i - total) * D / (D - 1) * I / (I - 1)
    resample = (total - within_d) * D / (D - 1) - interaction / I
    init = (total - within_i) * I / (I - 1) - interaction / D
    variance = resample + init + interaction
    risk = -float(np.einsum("dinc,nc->din", log_p, target).mean())
    noise = 0.0
    if sample.posterior_NC is not None:
        noise = -float((target * np.log(np.where(target > 0, target, 1.0))).sum(axis=1).mean())
    values = (risk, risk - noise - variance, variance, resample, init, interaction)
    return dict(zip(TERMS["cross_entropy"], values, strict=True))
