"""Brier score (squared error on probabilities, summed over classes): the unbiased terms of every test point.

With replica predictions f, target e (one-hot label, or posterior) and p̄ = E f:

    E‖e − f‖² = (1 − Σ_c π_c²) + ‖π − p̄‖² + E‖f − p̄‖²        noise + bias² + variance

(Geman, Bienenstock & Doursat 1992). The variance and its components come from mean inner products of pairs of replicas
(`lab.analysis.layout`; two-way random effects: Adlam & Pennington 2020, Lin & Dobriban 2021), and
bias² = risk − noise − variance, which can be negative and is not clipped.

The sums over pairs are sums of squares of group sums, so that no R × R matrix is built for each point: with F_S the
sums over replicas that agree on the factors S, the pairs that agree at least on S have Σ⟨f, f'⟩ = Σ‖F_S‖². Without a
cluster z of the axes A that is Σ‖F_S‖² − 2 Σ_z ⟨F_{S∪A}, F_S⟩ + Σ_z ‖F_{S∪A}‖², again from group sums.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes, T terms, Z clusters of replicas.
"""

import numpy as np

from lab.analysis.inputs import Points
from lab.analysis.layout import Array, Estimates, Factors, Layout, joined

NO_INTERVAL: dict[str, str] = {}


def names(layout: Layout) -> tuple[str, ...]:
    """Return the names of the terms of `terms`."""
    return ("risk", "bias_sq", "variance", *(f"variance_{cause}" for cause in layout.names), "error")


def identities(layout: Layout) -> list[tuple[str, list[str]]]:
    """Return which terms are the sums of which others."""
    causes = [f"variance_{cause}" for cause in layout.causes.values()]
    return [("risk", ["noise", "bias_sq", "variance"])] + ([("variance", causes)] if causes else [])


def noise(posterior_NC: Array) -> Array:
    """Return the noise (N,): the Brier score of the posterior itself, 1 − Σ π²."""
    return 1 - np.einsum("nc,nc->n", posterior_NC, posterior_NC)


def terms(points: Points, layout: Layout) -> Estimates:
    """Return the terms by `names`: unbiased, except that a mean of zero-one losses, `error`, needs no correction.

    Where the posterior is known, risk and error are expectations over labels drawn from it.
    """
    f_DIKNC = points.probabilities_DIKNC
    squares = np.einsum("dkinc,dkinc->dkin", f_DIKNC, f_DIKNC)
    hits = np.einsum("dkinc,nc->dkin", f_DIKNC, points.target_NC)
    loss = np.where(layout.used_DIK[..., None], 1 - 2 * hits + squares, 0.0)
    noise_N = noise(points.target_NC) if points.known else np.zeros(len(points.target_NC))
    error = np.einsum("dkinc,nc->dkin", points.votes_DIKNC, 1 - points.target_NC)
    return joined(quadratic(f_DIKNC, loss, noise_N, layout), layout.means(error))


def quadratic(f_DIKNC: Array, loss_DIKN: Array, noise_N: Array, layout: Layout) -> Estimates:
    """Return risk, bias², variance and its components, for any loss of which these are ‖·‖² of vectors f.

    Args:
        f_DIKNC: Predictions, or votes; 0 where a replica is missing.
        loss_DIKN: The loss of each replica at each point; 0 where a replica is missing.
        noise_N: The noise of each point, 0 if it is not known.
        layout: What replicas share.
    """
    needed = {_union(s, a) for s in layout.classes for a in ((), *layout.clusters)}
    sums = {s: layout.sum_within(f_DIKNC, s) for s in needed}
    sizes = {s: layout.sizes(s)[..., None, None] for s in needed}
    pairs = {s: _dot(sums[s], sums[s], ()) for s in layout.classes}
    counts = {s: _dot(sizes[s], sizes[s], ()) for s in layout.classes}
    risk = layout.means(loss_DIKN)
    without = {}
    for a in layout.clusters:
        left_pairs = {s: pairs[s] - _share(sums, s, a) for s in layout.classes}
        left_counts = {s: counts[s] - _share(sizes, s, a) for s in layout.classes}
        without[a] = _solve(layout, left_pairs, left_counts, risk.without[a][..., 0], noise_N)
    return Estimates(_solve(layout, pairs, counts, risk.point_NT.T, noise_N)[0], without)


def _union(s: Factors, a: Factors) -> Factors:
    return tuple(sorted({*s, *a}))


def _dot(left: Array, right: Array, kept: Factors) -> Array:
    """Return the sums over groups of inner products, those on the axes `kept` apart, shape (Z, N)."""
    products = np.einsum("...c,...c->...", left, right)
    others = tuple(axis for axis in range(3) if axis not in kept)
    return products.sum(axis=others, keepdims=True).reshape(-1, products.shape[-1])


def _share(sums: dict[Factors, Array], s: Factors, a: Factors) -> Array:
    """Return what the pairs that agree at least on `s` lose when a cluster of the axes `a` goes, shape (Z, N)."""
    within = sums[_union(s, a)]
    return 2 * _dot(within, sums[s], a) - _dot(within, within, a)


def _solve(
    layout: Layout, pairs: dict[Factors, Array], counts: dict[Factors, Array], risk_ZN: Array, noise_N: Array
) -> Array:
    """Return the terms (Z, N, T) from sums over pairs; a term that a subset of replicas does not allow is NaN."""
    sums, n_pairs = layout.exactly(pairs), layout.exactly(counts)
    # numbers of pairs are whole and far below 2^53, so that a 0 is exact
    means = {
        s: np.divide(sums[s], n_pairs[s], out=np.full_like(sums[s], np.nan), where=n_pairs[s] > 0)
        for s in layout.classes
    }
    variance = means[layout.classes[-1]] - means[()]
    causes = layout.causes_as_columns(layout.solve(means), variance)
    return np.stack((risk_ZN, risk_ZN - noise_N - variance, variance, *causes), axis=-1)
