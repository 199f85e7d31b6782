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

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes, T terms, P parts, V variance and
its causes, Z clusters of replicas.
"""

from dataclasses import replace

import numpy as np

from lab.analysis.inputs import Points
from lab.analysis.layout import Array, Estimates, Factors, Layout, Parts

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
    risk = layout.means_of(-points.at_target(log_p_DIKNC)[None])
    variances, plugin_N = _jackknifed(log_p_DIKNC, layout)
    estimates = Estimates.of(risk.and_those(variances), _weights(1 + len(variances.point_PN)))
    estimates.point_TN[-1] = plugin_N
    if points.known:
        estimates.point_TN[1] -= noise(points.target_NC)
    return estimates


def _weights(n_parts: int) -> Array:
    """Return how the terms are made of the risk, the variance and its causes; NaN for the plug-in."""
    risk, *variances = np.eye(n_parts)
    return np.stack([risk, risk - variances[0], *variances, np.full_like(risk, np.nan)])


def _plugins(log_p_DIKNC: Array, layout: Layout) -> Array:
    """Return plug-in variance and its causes (V, N), of all replicas and without one level of each factor.

    Shape (1 + D, 1 + I, 1 + K, V, N), the first of each axis without none; an axis of a single level has no other. NaN
    where no replica is left. A factor on which replicas agree loses a group with a level, any other a part of each sum.
    """
    kept = layout.used_DIK[..., None, None].astype(np.float64)
    n_left = kept
    for axis in range(3):
        n_left = _left(n_left, axis)
    n_left = np.where(n_left > 0, n_left, np.nan)[..., 0]

    def mean_within(factors: Factors) -> Array:
        """Return the mean over replicas of the variance within those that agree on the factors (…, N)."""
        sums, n = log_p_DIKNC, kept
        for axis in range(3):
            if axis not in factors:
                sums, n = _left(sums, axis), _left(n, axis)
        values = -_logsumexp(sums / np.maximum(n, 1)) * n[..., 0]
        for axis in factors:
            values = _left(values, axis)
        return values / n_left

    total = mean_within(())
    of_centres = {s: total - mean_within(s) for s in layout.classes[1:-1]}
    parts = layout.solve({(): np.zeros_like(total), **of_centres, layout.classes[-1]: total})
    causes = layout.causes_of(np.array([parts[s] for s in layout.causes]).reshape(-1, *total.shape))
    return np.stack((total, *causes), axis=-2)


def _left(values: Array, axis: int) -> Array:
    """Return sums along an axis: of all of it, then without each of its places; an axis of one place is left alone."""
    if values.shape[axis] == 1:
        return values
    whole = values.sum(axis=axis, keepdims=True)
    return np.concatenate([whole, whole - values], axis=axis)


def _logsumexp(values: Array) -> Array:
    largest = values.max(axis=-1, keepdims=True)
    return (largest + np.log(np.exp(values - largest).sum(axis=-1, keepdims=True)))[..., 0]


def _jackknifed(log_p_DIKNC: Array, layout: Layout) -> tuple[Parts, Array]:
    """Return the bias-corrected variance and its causes, and the plug-in variance (N,).

    From pseudo-values of single replicas. A factor without a single replica left at one of its levels has that level
    taken out before. NaN for what needs pairs of replicas that there are none of: centres of one are no centres.
    """
    used, levels = layout.used_DIK, layout.levels
    box = np.ix_(*levels)
    sizes = used[box].shape
    pseudo = _plugins(log_p_DIKNC[box], replace(layout, used_DIK=used[box]))
    plugin_N = pseudo[0, 0, 0, 0].copy()
    for axis, size in enumerate(sizes):
        whole, without_one = np.split(pseudo, [1], axis=axis)
        pseudo = size * whole - (size - 1) * without_one if size > 1 else whole
    unknown = [0] if () not in layout.told else []
    unknown += [1 + layout.names.index(cause) for s, cause in layout.causes.items() if s not in layout.told]
    pseudo[..., unknown, :] = np.nan
    point_VN = pseudo.mean(axis=(0, 1, 2))
    without = {}
    for axes in layout.clusters:
        mean = pseudo.mean(axis=tuple(a for a in range(3) if a not in axes), keepdims=True)
        n = np.prod([sizes[a] for a in axes])
        # pseudo-values of a plug-in vary less than those of the unbiased estimator: for s² by (n − 2)/(n − 1)
        stretch = np.prod([(sizes[a] - 1) / (sizes[a] - 2) if sizes[a] > 2 else np.nan for a in axes])
        left = point_VN - stretch * (mean - point_VN) / (n - 1)
        everywhere = np.broadcast_to(
            point_VN, (*(used.shape[a] if a in axes else 1 for a in range(3)), *point_VN.shape)
        )
        everywhere = everywhere.copy()
        everywhere[np.ix_(*(levels[a] if a in axes else [0] for a in range(3)))] = left
        without[axes] = np.moveaxis(everywhere.reshape(-1, *point_VN.shape), 1, 0)
    return Parts(point_VN, without), plugin_N
