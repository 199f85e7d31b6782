"""Brier score (squared error on probabilities, summed over classes): the unbiased terms of every test point.

With replica predictions f, target e (one-hot label, or posterior) and p̄ = E f:

    E‖e − f‖² = (1 − Σ_c π_c²) + ‖π − p̄‖² + E‖f − p̄‖²        noise + bias² + variance

(Geman, Bienenstock & Doursat 1992). The variance and its components come from mean inner products of pairs of replicas
(`lab.analysis.layout`; two-way random effects: Adlam & Pennington 2020, Lin & Dobriban 2021), and
bias² = risk − noise − variance, which can be negative and is not clipped.

No R × R matrix is built for each point: with F_S(r) the sum over the replicas that agree with r on the factors S, the
pairs that agree at least on S have Σ⟨f, f'⟩ = Σ_r ⟨f_r, F_S(r)⟩. Without a cluster z of the axes A, those with an end
in z go, 2 Σ_{r∈z} ⟨f_r, F_S(r)⟩ − Σ_{r∈z} ⟨f_r, F_{S∪A}(r)⟩: the pairs within z have two.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes, T terms, P parts, Z clusters
of replicas.
"""

import numpy as np

from lab.analysis.inputs import Points
from lab.analysis.layout import Array, Estimates, Layout

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
    products = inner_products(f_DIKNC, layout)
    loss = np.where(layout.used_DIK[..., None], 1 - 2 * points.at_target(f_DIKNC) + products[-1], 0.0)
    parts = layout.variances(products).and_those(layout.means_of(np.stack([loss, points.error_DIKN])))
    estimates = Estimates.of(parts, _weights(layout))
    if points.known:
        estimates.point_TN[1] -= noise(points.target_NC)
    return estimates


def inner_products(f_DIKNC: Array, layout: Layout) -> Array:
    """Return ⟨f_r, F_S(r)⟩ at each point (S, D, I, K, N) for each class S of pairs; the last is ‖f_r‖²."""
    sums = {layout.classes[-1]: f_DIKNC}
    for s in reversed(layout.classes[:-1]):
        finer = next(sums[t] for t in reversed(sums) if set(s) < set(t))
        sums[s] = layout.sum_within(finer, s)
    return np.stack([np.einsum("...c,...c->...", f_DIKNC, sums[s]) for s in layout.classes])


def _weights(layout: Layout) -> Array:
    """Return how the terms are made of variance, components, risk and error; bias² then still contains the noise."""
    variance, *others = np.eye(3 + len(layout.causes))
    causes, risk, error = np.array(others[:-2]).reshape(-1, len(variance)), *others[-2:]
    return np.stack([risk, risk - variance, variance, *layout.causes_of(causes), error])
