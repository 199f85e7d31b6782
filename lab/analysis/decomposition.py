"""Noise, bias² and variance (by cause) of the Brier risk, from the predictions of replicas.

For a test point with label y (one-hot e) and posterior π, a learner that predicts p has the expected squared error

    E‖e − p‖² = (1 − Σ_c π_c²) + ‖π − p̄‖² + E‖p − p̄‖²        noise + bias² + variance, with p̄ = E p

(Geman, Bienenstock & Doursat 1992), summed over classes, averaged over test points. Without π only the sum of noise
and bias² can be seen: `noise` is then None and `bias_sq` holds both.

In a crossed design f_di is the prediction of resample d and seed i, and the variance has three parts, a two-way random
effects layout (Adlam & Pennington 2020; Lin & Dobriban 2021): by resample, by seed ("init"), and their interaction.
All estimators here are unbiased and rest on one matrix of inner products of predictions, averaged over test points:
the mean over pairs that share neither d nor i estimates m = E⟨f, f'⟩ = mean ‖p̄‖²; pairs that share d estimate
m + variance_resample; pairs that share i, m + variance_init; a prediction with itself, m + variance. For a full design
this equals the classical mean squares (a test holds it to that); with diverged replicas missing it goes on working.
bias² = risk − noise − variance, from the mean loss: it can be negative, and is not clipped.

Dividing the plug-in variance by (1 − 1/R), the textbook correction, would be wrong here: crossed replicas share
training sets and seeds and are not independent.

Shape suffixes: D resamples, I inits, R = D·I replicas, N test points, C classes.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.analysis import intervals

Array = NDArray[np.float64]
Design = Literal["crossed", "nested", "independent"]

TERMS = ("risk", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction", "error")


@dataclass(frozen=True)
class Decomposition:
    """Estimates of the parts of the Brier risk (0 … 2), each with the ends of its interval; NaN where undefined.

    `noise` is None when the posterior is unknown; `bias_sq` then contains the noise. `error` is the mean zero-one
    loss. Causes that a design cannot tell apart are NaN: all of them for independent replicas; in a nested design
    `variance_init` is the sum of init and interaction. `n_replicas` counts the replicas used; those that diverged are
    left out. See `lab.analysis.intervals` for what an interval covers.
    """

    risk: float
    risk_lo: float
    risk_hi: float
    noise: float | None
    noise_lo: float | None
    noise_hi: float | None
    bias_sq: float
    bias_sq_lo: float
    bias_sq_hi: float
    variance: float
    variance_lo: float
    variance_hi: float
    variance_resample: float
    variance_resample_lo: float
    variance_resample_hi: float
    variance_init: float
    variance_init_lo: float
    variance_init_hi: float
    variance_interaction: float
    variance_interaction_lo: float
    variance_interaction_hi: float
    error: float
    error_lo: float
    error_hi: float
    n_resamples: int
    n_inits: int
    n_replicas: int
    n_test: int
    level: float
    design: Design

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a flat dictionary of plain Python values."""
        return asdict(self)


class Terms(NamedTuple):
    """Point estimates of the Brier risk and its parts, without intervals; `noise` is 0 when it is not known."""

    risk: float
    bias_sq: float
    variance: float
    variance_resample: float
    variance_init: float
    variance_interaction: float
    error: float


class _Moments(NamedTuple):
    """What the estimators need of the predictions, averaged over test points (or of a single one).

    gram_RR: mean ⟨f_r, f_s⟩; loss_R: mean Brier loss; error_R: mean zero-one loss; noise: mean 1 − Σ π², 0 if unknown.
    """

    gram_RR: Array
    loss_R: Array
    error_R: Array
    noise: float


def decompose(
    probabilities_DINC: ArrayLike,
    labels_N: ArrayLike,
    *,
    loss: Literal["brier"] = "brier",
    posterior_NC: ArrayLike | None = None,
    design: Design = "crossed",
    missing_DI: ArrayLike | None = None,
    level: float = 0.95,
) -> Decomposition:
    """Return noise, bias² and variance of the replicas' predictions, with intervals.

    Args:
        probabilities_DINC: Predicted probabilities, (D, I, N, C) for a crossed design (seed i is the same for every
            resample) or a nested one (seeds are new in each resample), (R, N, C) for independent replicas.
            A replica that is NaN throughout is left out, as a diverged one.
        labels_N: Class numbers 0 … C − 1.
        loss: Which loss is decomposed. This edition has the Brier score.
        posterior_NC: P(y | x) of each test point, if known: then noise and bias² are told apart. The risk is then the
            expectation over labels drawn from the posterior, rather than that at the given labels.
        design: How replicas share training sets and seeds.
        missing_DI: True where a replica is missing or to be left out, (D, I) or (R,).
        level: Of the intervals.

    Raises:
        ValueError: Shapes, labels or values that cannot be right; says which and where.
    """
    if loss != "brier":
        raise ValueError(f"loss {loss!r} is unknown: this edition decomposes 'brier'")
    if not 0 < level < 1:
        raise ValueError(f"level = {level!r} has to lie between 0 and 1")
    f_DINC, labels, posterior, used_DI = _checked(probabilities_DINC, labels_N, posterior_NC, design, missing_DI)
    I, N = f_DINC.shape[1:3]  # noqa: E741 - the letters of the shape legend
    resample_R, init_R = np.divmod(np.flatnonzero(used_DI), I)
    if design != "crossed":
        init_R = np.arange(len(init_R))  # seeds are never shared
    f_RNC = f_DINC[used_DI]
    R = len(f_RNC)

    losses_RN, errors_RN, noise_N = _losses(f_RNC, labels, posterior)
    flat_RK = f_RNC.reshape(R, -1)
    moments = _Moments(flat_RK @ flat_RK.T / N, losses_RN.mean(axis=1), errors_RN.mean(axis=1), float(noise_N.mean()))
    point = Terms(*(float(value) for value in _terms(moments, resample_R, init_R, np.ones((1, R)))[0]))
    if not np.isnan(point.variance):
        assert np.isclose(point.risk, moments.noise + point.bias_sq + point.variance, rtol=0, atol=1e-10)

    # leave one cluster of replicas out, and per-point values, for the intervals
    jackknifes = []
    for cluster_R in (resample_R, init_R) if design == "crossed" else (resample_R,):
        kept_KR = (np.unique(cluster_R)[:, None] != cluster_R).astype(np.float64)
        if len(kept_KR) > 1:
            jackknifes.append(_terms(moments, resample_R, init_R, kept_KR))
    per_point = _terms_of_points(f_RNC, losses_RN, errors_RN, noise_N, resample_R, init_R)
    low, high = intervals.combine(np.array(point), jackknifes, per_point, level=level)
    ends = {
        f"{name}_{end}": float(values[TERMS.index(name)])
        for name in TERMS
        for end, values in (("lo", low), ("hi", high))
    }
    noise_ends = intervals.mean_interval(noise_N, level=level) if posterior is not None else (None, None)
    return Decomposition(
        **point._asdict(),
        **ends,
        noise=moments.noise if posterior is not None else None,
        noise_lo=noise_ends[0],
        noise_hi=noise_ends[1],
        n_resamples=len(np.unique(resample_R)),
        n_inits=len(np.unique(init_R)) if design == "crossed" else I,
        n_replicas=R,
        n_test=N,
        level=level,
        design=design,
    )


def _checked(
    probabilities: ArrayLike, labels: ArrayLike, posterior: ArrayLike | None, design: str, missing: ArrayLike | None
) -> tuple[Array, NDArray[np.int64], Array | None, NDArray[np.bool_]]:
    """Return the inputs as float64 (D, I, N, C), labels, posterior and which replicas (D, I) are usable."""
    if design not in ("crossed", "nested", "independent"):
        raise ValueError(f"design {design!r} is unknown: choose crossed, nested or independent")
    f = np.asarray(probabilities, dtype=np.float64)
    wanted, axes = (3, "(R, N, C)") if design == "independent" else (4, "(D, I, N, C)")
    if f.ndim != wanted:
        raise ValueError(f"probabilities have shape {f.shape}: a {design} design needs {axes}")
    if design != "independent" and min(f.shape[:2]) < 2:
        raise ValueError(
            f"probabilities have shape {f.shape}: a {design} design needs at least two resamples and two seeds; "
            "for replicas that share neither give (R, N, C) and design='independent'"
        )
    missing_DI = np.zeros(f.shape[:-2], dtype=bool) if missing is None else np.asarray(missing, dtype=bool)
    if missing_DI.shape != f.shape[:-2]:
        raise ValueError(f"missing has shape {missing_DI.shape}, the replicas have {f.shape[:-2]}")
    if design == "independent":
        f, missing_DI = f[:, None], missing_DI[:, None]
    _, _, N, C = f.shape
    if N == 0 or C < 2 or missing_DI.size == 0:
        raise ValueError(f"probabilities have shape {f.shape}: no replica, no test point or fewer than two classes")
    y = np.asarray(labels)
    if y.shape != (N,):
        raise ValueError(f"labels have shape {y.shape}, but the predictions are of {N} test points")
    if not np.issubdtype(y.dtype, np.integer):
        if np.issubdtype(y.dtype, np.number) and np.array_equal(y, np.rint(y)):
            y = y.astype(np.int64)
        else:
            raise ValueError(f"labels are {y.dtype}: give class numbers 0 to {C - 1}")
    if y.min() < 0 or y.max() >= C:
        raise ValueError(f"labels run from {y.min()} to {y.max()}, but there are {C} classes: 0 to {C - 1}")
    used_DI = ~missing_DI & ~np.isnan(f).all(axis=(2, 3))
    if not used_DI.any():
        raise ValueError("no replica is left: all are missing or NaN throughout")
    values = f[used_DI]
    if not np.isfinite(values).all():
        r, n, _ = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"a prediction is NaN or infinite (usable replica {r}, test point {n}), but not all of them are"
        )
    if values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise ValueError(
            f"predictions run from {values.min():.3g} to {values.max():.3g}: give probabilities (logits need a softmax)"
        )
    sums = values.sum(axis=-1)
    if not np.allclose(sums, 1, atol=1e-3):
        raise ValueError(f"probabilities sum to {sums.min():.4g} … {sums.max():.4g} over classes, not to 1")
    if posterior is None:
        return f, y.astype(np.int64), None, used_DI
    pi = np.asarray(posterior, dtype=np.float64)
    if pi.shape != (N, C):
        raise ValueError(f"posterior has shape {pi.shape}, not (N, C) = {(N, C)}")
    if not np.isfinite(pi).all() or pi.min() < 0 or not np.allclose(pi.sum(axis=1), 1, atol=1e-6):
        raise ValueError("the rows of the posterior have to be probabilities that sum to 1")
    return f, y.astype(np.int64), pi, used_DI


def _losses(f_RNC: Array, labels_N: NDArray[np.int64], posterior_NC: Array | None) -> tuple[Array, Array, Array]:
    """Return Brier loss (R, N), zero-one loss (R, N) and noise (N,); expectations where the posterior is known.

    Ties for the most probable class share the prediction evenly.
    """
    squares_RN = np.einsum("rnc,rnc->rn", f_RNC, f_RNC)
    top_RNC = f_RNC == f_RNC.max(axis=-1, keepdims=True)
    vote_RNC = top_RNC / top_RNC.sum(axis=-1, keepdims=True)
    if posterior_NC is None:
        n = np.arange(len(labels_N))
        return 1 - 2 * f_RNC[:, n, labels_N] + squares_RN, 1 - vote_RNC[:, n, labels_N], np.zeros(len(labels_N))
    right_RN = np.einsum("rnc,nc->rn", f_RNC, posterior_NC)
    noise_N = 1 - np.einsum("nc,nc->n", posterior_NC, posterior_NC)
    return 1 - 2 * right_RN + squares_RN, 1 - np.einsum("rnc,nc->rn", vote_RNC, posterior_NC), noise_N


def _parts(
    neither: Array, same_d: Array, same_i: Array, self_: Array, crossed: bool
) -> tuple[Array, Array, Array, Array]:
    """Return variance, and its parts by resample, init and interaction, from the four mean inner products."""
    variance = self_ - neither
    by_resample = same_d - neither
    if not crossed:
        return variance, by_resample, variance - by_resample, np.full_like(variance, np.nan)
    by_init = same_i - neither
    interaction = variance - by_resample - by_init
    return variance, by_resample, by_init, interaction


def _is_crossed(init_R: NDArray[np.int64]) -> bool:
    return len(np.unique(init_R)) < len(init_R)


def _terms(moments: _Moments, resample_R: NDArray[np.int64], init_R: NDArray[np.int64], kept_KR: Array) -> Array:
    """Return the unbiased pair estimates of all terms from K subsets of the replicas, shape (K, 7).

    Row k of `kept_KR` is 1 for the replicas of subset k and 0 elsewhere. A term that a subset does not allow is NaN.
    """
    same_d, same_i = resample_R[:, None] == resample_R, init_R[:, None] == init_R

    def mean_over(pairs_RR: NDArray[np.bool_]) -> Array:
        """Return the mean of the Gram matrix over the pairs of replicas in each subset."""
        total = ((kept_KR @ (moments.gram_RR * pairs_RR)) * kept_KR).sum(axis=1)
        n = ((kept_KR @ pairs_RR) * kept_KR).sum(axis=1)
        return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)

    variance, by_resample, by_init, interaction = _parts(
        mean_over(~same_d & ~same_i),
        mean_over(same_d & ~same_i),
        mean_over(~same_d & same_i),
        mean_over(same_d & same_i),
        _is_crossed(init_R),
    )
    n_K = kept_KR.sum(axis=1)
    risk, error = kept_KR @ moments.loss_R / n_K, kept_KR @ moments.error_R / n_K
    bias_sq = risk - moments.noise - variance
    return np.stack((risk, bias_sq, variance, by_resample, by_init, interaction, error), axis=1)


def _terms_of_points(
    f_RNC: Array,
    losses_RN: Array,
    errors_RN: Array,
    noise_N: Array,
    resample_R: NDArray[np.int64],
    init_R: NDArray[np.int64],
) -> Array:
    """Return the terms of every test point, shape (N, 7): their mean over points is the estimate itself.

    The mean over pairs of ⟨f_r, f_s⟩ with 0/1 group weights is a sum of squares of group sums, so that no R × R matrix
    is needed for each point.
    """
    R, N, _ = f_RNC.shape

    def mean_square_of_sums(group_R: NDArray[np.int64]) -> tuple[Array, int]:
        """Return Σ over groups of ‖Σ f‖² for each point, and the number of (ordered) pairs in it."""
        total, pairs = np.zeros(N), 0
        for g in np.unique(group_R):
            member = group_R == g
            sums_NC = f_RNC[member].sum(axis=0)
            total += np.einsum("nc,nc->n", sums_NC, sums_NC)
            pairs += int(member.sum()) ** 2
        return total, pairs

    all_N, n_all = mean_square_of_sums(np.zeros(R, dtype=np.int64))
    d_N, n_d = mean_square_of_sums(resample_R)
    i_N, n_i = mean_square_of_sums(init_R)
    self_N, n_self = np.einsum("rnc,rnc->n", f_RNC, f_RNC), R

    def mean(total_N: Array, n: int) -> Array:
        return total_N / n if n else np.full(N, np.nan)

    neither = mean(all_N - d_N - i_N + self_N, n_all - n_d - n_i + n_self)
    same_d, same_i = mean(d_N - self_N, n_d - n_self), mean(i_N - self_N, n_i - n_self)
    variance, by_resample, by_init, interaction = _parts(
        neither, same_d, same_i, mean(self_N, n_self), _is_crossed(init_R)
    )
    risk_N = losses_RN.mean(axis=0)
    columns = (risk_N, risk_N - noise_N - variance, variance, by_resample, by_init, interaction, errors_RN.mean(axis=0))
    return np.stack(columns, axis=1)
