"""Would an ensemble help? The risk of the mean of M predictions, from all replicas; and predicted, and measured apart.

Averaging M members divides by M what differs between them and leaves what they share (Krogh & Vedelsby 1995 for the
loss of a mean; the parts are those of `lab.analysis.decomposition`):

* same_data: M seeds on one training set, with its labels: bias² + noise + variance_resample + (the rest)/M;
* one_seed: M training sets from one seed: bias² + noise + variance_init + (the rest)/M;
* fresh_data: M members that share neither: bias² + noise + variance/M.

The loss of a mean is a quadratic form of its members, so that its mean over all ensembles that some replicas can form
is linear in the unbiased terms of these replicas: none has to be drawn, every pair of replicas speaks, and the interval
is that of any term (training sets, seeds and test points).

That a prediction comes true can only be seen on other replicas: `risk_predicted` is from every other training set,
`risk_measured` from those between them. The error rate is no quadratic form; it is that of drawn ensembles.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes, S drawn ensembles, T terms,
Q quantities that are linear in the terms.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from lab.analysis import brier
from lab.analysis.inputs import Predictions, checked
from lab.analysis.intervals import Spread
from lab.analysis.layout import Array, Factors, Layout, chunks
from lab.seeds import generator

TABLE = [
    "ensemble", "n_members", "risk", "risk_lo", "risk_hi", "gain", "gain_lo", "gain_hi", "risk_predicted",
    "risk_measured", "risk_measured_lo", "risk_measured_hi", "error", "error_lo", "error_hi", "n_ensembles",
    "n_resamples", "n_inits", "n_held_back",
]  # fmt: skip
KINDS: dict[str, Factors] = {"same_data": (0, 2), "one_seed": (1,), "fresh_data": ()}  # axes that the members share
MEMBERS = (1, 2, 3, 4, 6, 8, 12, 16)
NO_ERROR: dict[str, float] = {"error": math.nan, "error_lo": math.nan, "error_hi": math.nan, "n_ensembles": 0}
MOST_DRAWS = 24  # ensembles of one size whose error is averaged over

Cells = tuple[tuple[int, int, int], ...]  # (resample, init, draw of the label noise) of each member


def ensembles(
    probabilities_DINC: np.ndarray,
    labels_N: np.ndarray,
    posterior_NC: np.ndarray | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
    members: tuple[int, ...] = MEMBERS,
    errors: bool = True,
) -> pd.DataFrame:
    """Return the risk of ensembles by kind and size, one row each, as far as the replicas can form them.

    `gain` is what the mean of the members has less than the members on average. `risk_predicted` and `risk_measured`
    are NaN where half of the training sets is too few; training sets of which a replica diverged are left out of both
    and of the error. The interval of the error is a jackknife over training sets and over seeds, plus the part of the
    finite test set; NaN where all drawn ensembles share one of them.

    Args:
        probabilities_DINC: (D, I, N, C), or (D, I, K, N, C) with draws of the label noise; NaN where one diverged.
        labels_N: Class numbers.
        posterior_NC: P(class | point), if known: risks are then expectations over labels.
        seed: Of the drawn ensembles.
        level: Of the intervals.
        members: Sizes.
        errors: Whether errors are wanted, for which ensembles have to be drawn; else they are NaN.

    Returns:
        Columns `TABLE`; empty where the replicas cannot tell the variance.
    """
    everything = checked(
        probabilities_DINC, labels_N, posterior_NC=posterior_NC,
        missing=~np.isfinite(probabilities_DINC).all(axis=(-2, -1)),
    )  # fmt: skip
    layout = everything.layout
    rows = [(kind, m) for kind in KINDS for m in members if m <= _most(kind, layout)]
    kinds, sizes = [kind for kind, _ in rows], [m for _, m in rows]
    both = np.hstack([weights(layout, kinds, sizes, what) for what in ("risk", "gain")])
    found = _linear(everything, both, level, variances=np.arange(2 * len(rows)) >= len(rows))
    risk, gain = found.part(slice(len(rows))), found.part(slice(len(rows), None))
    if not rows or np.isnan(risk.value_Q).all():
        return pd.DataFrame(columns=TABLE)
    whole_D = np.flatnonzero(layout.used_DIK.all(axis=(1, 2)))
    predicted_Q, measured = _apart(everything, whole_D, kinds, sizes, level)
    if errors:
        target_NC = everything.points(slice(None)).target_NC
        drawn = [_error(everything.values_DIKNC[whole_D], target_NC, kind, m, seed, level) for kind, m in rows]
    else:
        drawn = [NO_ERROR] * len(rows)
    table = pd.DataFrame(
        {"ensemble": kinds, "n_members": sizes, "risk_predicted": predicted_Q}
        | risk.columns("risk") | gain.columns("gain") | measured.columns("risk_measured")
        | {name: [one[name] for one in drawn] for name in NO_ERROR}
        | {"n_resamples": len(layout.levels[0]), "n_inits": len(layout.levels[1]), "n_held_back": len(whole_D) // 2},
        columns=TABLE,
    )  # fmt: skip
    return table[table["risk"].notna()].reset_index(drop=True)


def averaged_seeds(
    probabilities_DINC: np.ndarray,
    labels_N: np.ndarray,
    n_members: int,
    *,
    posterior_NC: np.ndarray | None,
    level: float,
) -> dict[str, tuple[float, float, float]]:
    """Return what averaging over `n_members` seeds of a training set changes: term → (difference, lo, hi).

    The seed's parts of the variance are divided by `n_members`; bias and the part from the training set stay.
    """
    everything = checked(
        probabilities_DINC, labels_N, posterior_NC=posterior_NC,
        missing=~np.isfinite(probabilities_DINC).all(axis=(-2, -1)),
    )  # fmt: skip
    names = brier.names(everything.layout)
    gain_T = weights(everything.layout, ["same_data"], [n_members], "gain")[:, 0]
    by_term = {"risk": gain_T, "variance": gain_T} | {
        name: np.where(np.array(names) == name, gain_T, 0.0) for name in names if gain_T[names.index(name)]
    }
    found = _linear(everything, np.stack(list(by_term.values()), axis=1), level, variances=True)
    ends = zip((-found.value_Q).tolist(), (-found.hi_Q).tolist(), (-found.lo_Q).tolist(), strict=True)
    return dict.fromkeys(names, (0.0, 0.0, 0.0)) | dict(zip(by_term, ends, strict=True))


def _most(kind: str, layout: Layout) -> int:
    """Return how many members of a kind there are among the replicas."""
    n_resamples, n_inits, _ = map(len, layout.levels)
    return {"same_data": n_inits, "one_seed": n_resamples, "fresh_data": min(n_resamples, n_inits)}[kind]


def weights(layout: Layout, kinds: list[str], sizes: list[int], what: str) -> Array:
    """Return how risk, gain or variance of ensembles is made of the terms of single replicas (T, Q).

    Args:
        layout: What the replicas share; the terms are those of `lab.analysis.brier`.
        kinds: Of the ensembles, keys of `KINDS`.
        sizes: How many members each has.
        what: "gain" (Σ over causes that members do not share of (1 − 1/M)·part) or "risk" (that of one, less the gain).
    """
    names = brier.names(layout)
    found = np.zeros((len(names), len(kinds)))
    for q, (kind, n_members) in enumerate(zip(kinds, sizes, strict=True)):
        for factors, cause in layout.causes.items():
            if not set(factors) <= set(KINDS[kind]):
                found[names.index(f"variance_{cause}"), q] = 1 - 1 / n_members
    if what == "risk":
        found = -found
        found[names.index("risk")] += 1
    return found


class _Estimated:
    """Q estimates and the ends of their intervals."""

    def __init__(self, value_Q: Array, lo_Q: Array, hi_Q: Array) -> None:
        self.value_Q, self.lo_Q, self.hi_Q = value_Q, lo_Q, hi_Q

    def part(self, which: slice) -> "_Estimated":
        return _Estimated(self.value_Q[which], self.lo_Q[which], self.hi_Q[which])

    def columns(self, name: str) -> dict[str, Array]:
        return {name: self.value_Q, f"{name}_lo": self.lo_Q, f"{name}_hi": self.hi_Q}


def _linear(predictions: Predictions, weights_TQ: Array, level: float, *, variances: Any = False) -> _Estimated:
    """Return what is linear in the unbiased terms of the Brier score, with its intervals.

    They are skew for `variances`: True for all of the quantities, or those (Q,).
    """
    layout, names = predictions.layout, [str(q) for q in range(weights_TQ.shape[1])]
    spread, total_Q = Spread(layout, names), np.zeros(len(names))
    for part in chunks(len(predictions.labels_N), layout.used_DIK.size * max(predictions.n_classes, len(weights_TQ))):
        found = brier.terms(predictions.points(part), layout).times(weights_TQ.T)
        spread.add(found)
        total_Q += found.point_TN.sum(axis=1)
    ends = zip(spread.symmetric_ends(level), spread.logarithmic_ends(level), strict=True)
    lo_Q, hi_Q = (np.where(variances, logarithmic_Q, symmetric_Q) for symmetric_Q, logarithmic_Q in ends)
    return _Estimated(total_Q / len(predictions.labels_N), lo_Q, hi_Q)


def _apart(
    everything: Predictions, whole_D: np.ndarray, kinds: list[str], sizes: list[int], level: float
) -> tuple[Array, _Estimated]:
    """Return the risk by the parts of every other training set, and that of ensembles of those between them."""
    predicted, measured = np.full(len(kinds), np.nan), [np.full(len(kinds), np.nan) for _ in range(3)]
    if len(whole_D) < 4:
        return predicted, _Estimated(*measured)
    known, held = (everything.resamples(whole_D[start::2]) for start in (0, 1))
    known = replace(known, layout=replace(known.layout, clusters=()))
    predicted = _linear(known, weights(known.layout, kinds, sizes, "risk"), level).value_Q
    found = _linear(held, weights(held.layout, kinds, sizes, "risk"), level)
    can_Q = np.array([m <= _most(kind, held.layout) for kind, m in zip(kinds, sizes, strict=True)])
    ends = (found.value_Q, found.lo_Q, found.hi_Q)
    return predicted, _Estimated(*(np.where(can_Q, values_Q, np.nan) for values_Q in ends))


def _error(
    p_DIKNC: np.ndarray, target_NC: Array, kind: str, n_members: int, seed: int, level: float
) -> dict[str, float]:
    """Return the error of the mean of members, over drawn ensembles, with its interval."""
    rng = generator(seed, "analysis", list(KINDS).index(kind), n_members)
    drawn = list(_draw(kind, n_members, p_DIKNC.shape[:3], rng))
    if not drawn:
        return NO_ERROR
    every_N, errors_SN = np.arange(len(target_NC)), np.empty((len(drawn), len(target_NC)))
    for s, cells in enumerate(drawn):
        mean_NC = np.mean([p_DIKNC[cell] for cell in cells], axis=0, dtype=np.float64)
        errors_SN[s] = 1 - target_NC[every_N, mean_NC.argmax(axis=1)]
    value, half = float(errors_SN.mean()), _half_width(errors_SN, drawn, p_DIKNC.shape[:2], level)
    return {"error": value, "error_lo": value - half, "error_hi": value + half, "n_ensembles": len(drawn)}


def _draw(kind: str, n_members: int, sizes: tuple[int, ...], rng: np.random.Generator) -> Iterator[Cells]:
    """Yield the members of different ensembles of one size: all there are, or a few for each that they share."""
    shared = KINDS[kind]
    apart = [axis for axis in range(3) if axis not in shared and (sizes[axis] > 1 or axis < 2)]
    if not all(sizes) or n_members > min(sizes[axis] for axis in apart):
        return  # of no training set are all replicas left, or there are too few to draw from
    groups = list(np.ndindex(*(sizes[axis] if axis in shared else 1 for axis in range(3))))
    each = max(MOST_DRAWS // len(groups), 1)
    for group in groups:
        if len(apart) == 1 and math.comb(sizes[apart[0]], n_members) <= each:
            chosen = [[within] for within in combinations(range(sizes[apart[0]]), n_members)]
        else:
            chosen = [[tuple(rng.permutation(sizes[a])[:n_members].tolist()) for a in apart] for _ in range(each)]
        for places in chosen:
            cells = [list(group) for _ in range(n_members)]
            for axis, place in zip(apart, places, strict=True):
                for cell, level in zip(cells, place, strict=True):
                    cell[axis] = level
            yield tuple((d, i, k) for d, i, k in cells)


def _half_width(values_SN: Array, drawn: list[Cells], sizes: tuple[int, ...], level: float) -> float:
    variance = float(values_SN.mean(axis=0).var(ddof=1)) / values_SN.shape[1] if values_SN.shape[1] > 1 else math.nan
    freedom = min(sizes) - 1
    for axis, size in enumerate(sizes):
        used_SL = np.array([[level in {cell[axis] for cell in cells} for level in range(size)] for cells in drawn])
        left_L = [values_SN[~used_S].mean() for used_S in used_SL.T if not used_S.all()]
        if len(left_L) < size or size < 3:
            return math.nan
        variance += (size - 1) / size * float(((left_L - np.mean(left_L)) ** 2).sum())
    return float(special.stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance)
