"""Zero-one loss, three views of it, at every test point.

* **Domingos 2000** (`bias`, `variance_unbiased`, `variance_biased`, `variance`): B is the loss of the main prediction,
  the class with most votes. Where it is right, deviating from it costs (unbiased variance, V_u); where it is wrong,
  deviating towards the right class pays (biased variance, V_b). The loss against the best class is B + V_u − V_b, so
  the `variance` shown is the net V_u − V_b. (Not B + V: that is what some software adds up.)
* **James 2003** (`systematic_effect`, `variance_effect`): what the main prediction costs more than the best class, and
  what predictions cost more than the main one; with the noise 1 − max π they add up to the risk.
* **Kohavi & Wolpert 1996** (`kw_noise`, `kw_bias_sq`, `kw_variance` and its causes): half the Brier decomposition of
  the votes, so its estimators are unbiased.

Ties between classes, in a prediction or among the votes, are split evenly. The first two views rest on a mode, which
few replicas find badly: with P(correct) = .6 and three replicas B reads .35 where it is 0. They are plug-in estimates,
and below `ENOUGH` replicas not to be trusted. They have no intervals: what leaving out a replica changes does not show
how far off a mode is. The small network of benchmarks/learners.py, right in a quarter of cases, has B = .62 by 16 × 4
replicas, .44 by 16 × 16 and .34 by 40 × 40 (n = 1 draw); jackknife intervals contained the truth in none of 20 draws.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes, T terms, P parts.
"""

import numpy as np

from lab.analysis import brier
from lab.analysis.inputs import Points
from lab.analysis.layout import Array, Estimates, Layout

ENOUGH = 10
_MODES = ("bias", "variance", "variance_unbiased", "variance_biased", "systematic_effect", "variance_effect")
_MODES_AT = slice(1, 1 + len(_MODES))  # of the terms: after the risk
_NOISE = 1 + len(_MODES)

NO_INTERVAL = dict.fromkeys(_MODES, "it rests on a mode, whose error replicas do not show")


def names(layout: Layout) -> tuple[str, ...]:
    """Return the names of the terms of `terms`."""
    causes = (f"kw_variance_{cause}" for cause in layout.names)
    return ("risk", *_MODES, "kw_noise", "kw_bias_sq", "kw_variance", *causes)


def identities(layout: Layout) -> list[tuple[str, list[str]]]:
    """Return which terms are the sums of which others."""
    causes = [f"kw_variance_{cause}" for cause in layout.causes.values()]
    sums = [
        ("risk", ["noise", "systematic_effect", "variance_effect"]),
        ("risk", ["kw_noise", "kw_bias_sq", "kw_variance"]),
    ]
    return sums + ([("kw_variance", causes)] if causes else [])


def noise(posterior_NC: Array) -> Array:
    """Return the loss of the best class (N,)."""
    return 1 - posterior_NC.max(axis=1)


def terms(points: Points, layout: Layout) -> Estimates:
    """Return the terms by `names`; risk and effects are expectations over labels where the posterior is known."""
    votes_DIKNC = points.votes_DIKNC
    products = brier.inner_products(votes_DIKNC, layout)
    # a tie is a draw of lots, whose variance belongs to the single replica
    ties = np.where(layout.used_DIK[..., None], 0.5 * (1 - products[-1]), 0.0)
    parts = layout.variances(products).and_those(layout.means_of(np.stack([points.error_DIKN, ties])))
    weights_TP = _weights(layout)
    if points.known:
        weights_TP[_NOISE] = 0.0  # it is the same without any replica
    estimates = Estimates.of(parts, weights_TP)
    estimates.point_TN[_MODES_AT] = _by_mode(votes_DIKNC, points.target_NC, layout)
    if points.known:
        noise_N = brier.noise(points.target_NC) / 2
        estimates.point_TN[_NOISE] = noise_N
        estimates.point_TN[_NOISE + 1] -= noise_N
    return estimates


def _weights(layout: Layout) -> Array:
    """Return how the terms are made of variance of votes, components, risk and ties; NaN for what is not."""
    variance, *others = np.eye(3 + len(layout.causes))
    causes, risk, ties = np.array(others[:-2]).reshape(-1, len(variance)) / 2, *others[-2:]
    if layout.causes:
        causes[list(layout.causes).index(layout.classes[-1])] += ties
    kw_variance = variance / 2 + ties
    unknown = np.full_like(risk, np.nan)
    rows = [risk, *[unknown] * len(_MODES), unknown, risk - kw_variance, kw_variance, *layout.causes_of(causes)]
    return np.stack(rows)


def _split_evenly(values: Array) -> Array:
    """Return 1 for the largest value of the last axis, shared by those that tie."""
    top = values >= values.max(axis=-1, keepdims=True) - 1e-12  # sums of shares of votes
    return top / top.sum(axis=-1, keepdims=True)


def _by_mode(votes_DIKNC: Array, target_NC: Array, layout: Layout) -> Array:
    """Return the terms `_MODES` (6, N)."""
    best_NC = _split_evenly(target_NC)
    share_NC = votes_DIKNC.sum(axis=(0, 1, 2)) / layout.n_replicas
    main_NC = _split_evenly(share_NC)
    bias = 1 - (best_NC * main_NC).sum(axis=-1)
    unbiased = (best_NC * main_NC * (1 - share_NC)).sum(axis=-1)
    biased = (best_NC * (1 - main_NC) * share_NC).sum(axis=-1)
    loss = 1 - (best_NC * share_NC).sum(axis=-1)
    assert np.allclose(bias + unbiased - biased, loss, rtol=0, atol=1e-10)
    systematic = (target_NC * (best_NC - main_NC)).sum(axis=-1)
    effect = (target_NC * (main_NC - share_NC)).sum(axis=-1)
    return np.stack((bias, unbiased - biased, unbiased, biased, systematic, effect))
