"""Cross-entropy in nats: noise, bias and variance about the dual mean, of every test point.

The centre of the predictions is their normalised geometric mean p*, log p*_c = E log p_c − log Z, and for every label

    E[−log p_y] = H(π) + KL(π‖p*) + E KL(p*‖p)        noise + bias + variance, with variance = −log Z

(Heskes 1998; Pfau 2013; Gupta et al. 2022; Wood et al. 2023). The variance does not depend on the label. By the law of
total variance (Gupta et al. 2022) it splits into the mean variance within the replicas that agree on a set S of factors
and the variance of their centres p*_S; the latter, from small to large S, give the causes as in the analysis of
variance. Of the causes only that of a single factor is certain not to be negative.

With finitely many replicas log Z is estimated low, as a plug-in variance is. No unbiased estimator is known; `variance`
and its causes are the jackknife over all factors at once (Π over factors of J = n·θ − (n − 1)·mean of θ without one),
which takes away every term of order 1/D, 1/I and 1/(D·I): for squared error it would be the unbiased estimator.
**Bias-corrected, approximate.** `variance_plugin` is what there was before.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes, T terms, Z clusters of replicas.
"""

from itertools import product

import numpy as np

from lab.analysis.inputs import Points
from lab.analysis.layout import Array, Estimates, Factors, Layout, joined

NO_INTERVAL = {"variance_plugin": "it is there to be seen beside the corrected one"}


def names(layout: Layout) -> tuple[str, ...]:
    """Return the names of the terms of `terms`."""
    return ("risk", "bias", "variance", *(f"variance_{cause}" for cause in layout.names), "variance_plugin")


def identities(layout: Layout) -> list[tuple[str, list[str]]]:
    """Return which terms are the sums of which others."""
    causes = [f"variance_{cause}" for cause in layout.causes.values()]
    return [("risk", ["noise", "bias", "variance"])] + ([("variance", causes)] if causes else [])


def noise(posterior_NC: Array) -> Array:
    """Return the entropy of the posterior (N,)."""
    return -np.einsum("nc,nc->n", posterior_NC, np.log(np.where(posterior_NC > 0, posterior_NC, 1.0)))


def terms(points: Points, layout: Layout) -> Estimates:
    """Return the terms by `names`.

    Raises:
        ValueError: A probability is 0, so that the loss can be infinite.
    """
    log_p_DIKNC = points.log_probabilities_DIKNC
    if not np.isfinite(log_p_DIKNC).all():
        raise ValueError("a probability is 0, and its logarithm infinite: give logits, or leave that replica out")
    risk = layout.means(-np.einsum("dkinc,nc->dkin", log_p_DIKNC, points.target_NC))
    noise_N = noise(points.target_NC) if points.known else np.zeros(len(points.target_NC))
    variances = _as_far_as_told(_jackknifed(log_p_DIKNC, layout), layout)
    bias = Estimates(
        risk.point_NT - noise_N[:, None] - variances.point_NT[:, :1],
        {axes: risk.without[axes] - noise_N[:, None] - variances.without[axes][..., :1] for axes in risk.without},
    )
    plugin_N1 = _plugin(log_p_DIKNC, layout.used_DIK, layout)[:, :1]
    # the plug-in is there to be seen beside the corrected one: no interval
    unknown = {axes: np.full_like(values, np.nan) for axes, values in risk.without.items()}
    return joined(risk, bias, variances, Estimates(plugin_N1, unknown))


def _plugin(log_p_DIKNC: Array, kept_DIK: np.ndarray, layout: Layout) -> Array:
    """Return plug-in variance and its causes (N, T) of some of the replicas; NaN if there is none."""
    if not kept_DIK.any():
        return np.full((log_p_DIKNC.shape[-2], 1 + len(layout.names)), np.nan)
    weights = kept_DIK[..., None, None].astype(np.float64)
    weighted = log_p_DIKNC * weights

    def mean_within(factors: Factors) -> Array:
        """Return the mean over replicas of the variance within those that agree on the factors (N,)."""
        n = layout.sum_within(weights, factors)
        log_z = _logsumexp(layout.sum_within(weighted, factors) / np.maximum(n, 1))
        return -(log_z * n[..., 0]).sum(axis=(0, 1, 2)) / n.sum()

    total = mean_within(())
    of_centres = {s: total - mean_within(s) for s in layout.classes[1:-1]}
    parts = layout.solve({(): np.zeros_like(total), **of_centres, layout.classes[-1]: total})
    return np.stack((total, *layout.causes_as_columns(parts, total)), axis=1)


def _logsumexp(values: Array) -> Array:
    largest = values.max(axis=-1, keepdims=True)
    return (largest + np.log(np.exp(values - largest).sum(axis=-1, keepdims=True)))[..., 0]


def _jackknifed(log_p_DIKNC: Array, layout: Layout) -> Estimates:
    """Return the bias-corrected variance and causes, and without each cluster, from pseudo-values of single replicas.

    A factor without a single replica left at one of its levels has that level taken out before.
    """
    used, levels = layout.used_DIK, layout.levels
    box = np.ix_(*levels)
    log_p, kept = log_p_DIKNC[box], used[box]
    sizes = kept.shape
    grid = np.stack([_plugin(log_p, kept & _all_but(sizes, gone), layout) for gone in product(*map(_removals, sizes))])
    pseudo = grid.reshape(*(len(list(_removals(size))) for size in sizes), *grid.shape[1:])
    for axis, size in enumerate(sizes):
        whole, without_one = np.split(pseudo, [1], axis=axis)
        pseudo = size * whole - (size - 1) * without_one if size > 1 else whole
    point_NT = pseudo.mean(axis=(0, 1, 2))
    without = {}
    for axes in layout.clusters:
        mean = pseudo.mean(axis=tuple(a for a in range(3) if a not in axes), keepdims=True)
        n = np.prod([sizes[a] for a in axes])
        # pseudo-values of a plug-in vary less than those of the unbiased estimator: for s² by (n − 2)/(n − 1)
        stretch = np.prod([(sizes[a] - 1) / (sizes[a] - 2) if sizes[a] > 2 else np.nan for a in axes])
        left = point_NT - stretch * (mean - point_NT) / (n - 1)
        everywhere = np.broadcast_to(
            point_NT, (*(used.shape[a] if a in axes else 1 for a in range(3)), *point_NT.shape)
        )
        everywhere = everywhere.copy()
        everywhere[np.ix_(*(levels[a] if a in axes else [0] for a in range(3)))] = left
        without[axes] = everywhere.reshape(-1, *point_NT.shape)
    return Estimates(point_NT, without)


def _as_far_as_told(variances: Estimates, layout: Layout) -> Estimates:
    """Return the same, NaN for what needs pairs of replicas that there are none of: centres of one are no centres."""
    unknown = [0] if () not in layout.told else []
    unknown += [1 + layout.names.index(cause) for s, cause in layout.causes.items() if s not in layout.told]
    for values in (variances.point_NT, *variances.without.values()):
        values[..., unknown] = np.nan
    return variances


def _removals(size: int) -> range:
    """Return which level of a factor is left out in turn: −1 for none."""
    return range(-1, size if size > 1 else 0)


def _all_but(sizes: tuple[int, ...], gone: tuple[int, ...]) -> np.ndarray:
    kept = np.ones(sizes, dtype=bool)
    for axis, level in enumerate(gone):
        if level >= 0:
            kept[(slice(None),) * axis + (level,)] = False
    return kept
