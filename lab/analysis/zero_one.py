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

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes, T terms, Z clusters of replicas.
"""

import numpy as np

from lab.analysis import brier
from lab.analysis.inputs import Points
from lab.analysis.layout import Array, Estimates, Layout, joined

ENOUGH = 10
_MODES = ("bias", "variance", "variance_unbiased", "variance_biased", "systematic_effect", "variance_effect")


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
    loss = np.einsum("dkinc,nc->dkin", votes_DIKNC, 1 - points.target_NC)
    return joined(
        layout.means(loss),
        _by_mode(votes_DIKNC, points.target_NC, layout),
        _kohavi_wolpert(votes_DIKNC, loss, points, layout),
    )


def _split_evenly(values: Array) -> Array:
    """Return 1 for the largest value of the last axis, shared by those that tie."""
    top = values >= values.max(axis=-1, keepdims=True) - 1e-12  # sums of shares of votes
    return top / top.sum(axis=-1, keepdims=True)


def _by_mode(votes_DIKNC: Array, target_NC: Array, layout: Layout) -> Estimates:
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
    point_NT = np.stack((bias, unbiased - biased, unbiased, biased, systematic, effect), axis=-1)
    unknown = {axes: np.full((layout.sizes(axes).size, *point_NT.shape), np.nan) for axes in layout.clusters}
    return Estimates(point_NT, unknown)


def _kohavi_wolpert(votes_DIKNC: Array, loss_DIKN: Array, points: Points, layout: Layout) -> Estimates:
    target_NC, used_DIK1 = points.target_NC, layout.used_DIK[..., None]
    noise_N = brier.noise(target_NC) / 2 if points.known else np.zeros(len(target_NC))
    halves = brier.quadratic(votes_DIKNC, 2 * loss_DIKN, 2 * noise_N, layout)
    # a tie is a draw of lots, whose variance belongs to the single replica
    split = 0.5 * (1 - np.einsum("dkinc,dkinc->dkin", votes_DIKNC, votes_DIKNC))
    ties = layout.means(np.where(used_DIK1, split, 0.0))
    columns = 2 + len(layout.names)
    shares = np.zeros(columns)
    shares[:2] = -1, 1
    if layout.causes:
        shares[2 + layout.names.index(layout.causes[layout.classes[-1]])] = 1

    def corrected(quadratic: Array, tie: Array) -> Array:
        column = np.broadcast_to(noise_N[:, None] if points.known else np.nan, tie.shape)
        return np.concatenate([column, quadratic[..., 1:] / 2 + tie * shares], axis=-1)

    return Estimates(
        corrected(halves.point_NT, ties.point_NT),
        {axes: corrected(halves.without[axes], ties.without[axes]) for axes in halves.without},
    )
