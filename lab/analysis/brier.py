"""Brier score (squared error on probabilities, summed over classes): the unbiased terms of every test point.

With replica predictions f, target e (one-hot label, or posterior) and p̄ = E f:

    E‖e − f‖² = (1 − Σ_c π_c²) + ‖π − p̄‖² + E‖f − p̄‖²        noise + bias² + variance

(Geman, Bienenstock & Doursat 1992). The variance and its components come from mean inner products of pairs of replicas
(`lab.analysis.layout`; two-way random effects: Adlam & Pennington 2020, Lin & Dobriban 2021), and
bias² = risk − noise − variance, which can be negative and is not clipped.

No R × R matrix is built for each point: with F_S(r) the sum over the replicas that agree with r on the factors S, the
pairs that agree at least on S have Σ⟨f, f'⟩ = Σ_r ⟨f_r, F_S(r)⟩. Without a cluster z of the axes A, those with an end
in z go, 2 Σ_{r∈z} ⟨f_r, F_S(r)⟩ − Σ_{r∈z} ⟨f_r, F_{S∪A}(r)⟩: the pairs within z have two.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes, T terms, Z clusters of replicas.
"""

import numpy as np

from lab.analysis.inputs import Points
from lab.analysis.layout import Array, Estimates, Factors, Layout, as_last_axis, joined

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
    products = {s: np.einsum("...c,...c->...", f_DIKNC, layout.sum_within(f_DIKNC, s)) for s in layout.needed}
    risk = layout.means(loss_DIKN)
    pairs = {s: layout.sum_of_clusters(products[s], ()) for s in layout.classes}
    without = {}
    for a in layout.clusters:
        left = {s: pairs[s] - layout.share(products, s, a) for s in layout.classes}
        without[a] = _solve(layout, left, layout.n_pairs[a], risk.without[a][..., 0], noise_N)
    return Estimates(_solve(layout, pairs, layout.n_pairs[()], risk.point_NT.T, noise_N)[0], without)


def _solve(
    layout: Layout, pairs: dict[Factors, Array], n_pairs: dict[Factors, Array], risk_ZN: Array, noise_N: Array
) -> Array:
    """Return the terms (Z, N, T) from sums over pairs; a term that a subset of replicas does not allow is NaN."""
    sums = layout.exactly(pairs)
    means = {
        s: np.divide(sums[s], n_pairs[s], out=np.full_like(sums[s], np.nan), where=n_pairs[s] > 0)
        for s in layout.classes
    }
    variance = means[layout.classes[-1]] - means[()]
    causes = layout.causes_as_columns(layout.solve(means), variance)
    return as_last_axis((risk_ZN, risk_ZN - noise_N - variance, variance, *causes))
