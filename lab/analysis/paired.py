"""Differences between two trials: paired where they share training sets, seeds and test points, else unpaired.

Two trials of a study have common random numbers: replica (d, i) of both has the same training set and the same seed,
and both are measured at the same test points. What is common cancels in the difference, so its interval is that of one
sampled thing, of which the terms at each point and without each cluster are the differences of the two trials' own.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from lab.analysis.decomposition import LOSSES, Loss
from lab.analysis.inputs import checked
from lab.analysis.intervals import Spread
from lab.analysis.layout import Design, Estimates, chunks

COLUMNS = ["term", "a", "b", "difference", "lo", "hi", "n_resamples", "n_inits", "n_replicas", "n_test", "level"]


def paired_difference(
    a_DINC: ArrayLike | None,
    b_DINC: ArrayLike | None,
    labels_N: ArrayLike,
    *,
    logits: tuple[ArrayLike, ArrayLike] | None = None,
    loss: Loss = "brier",
    posterior_NC: ArrayLike | None = None,
    design: Design = "crossed",
    missing_DI: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return b − a for every term of the decomposition, from trials with common training sets, seeds and test points.

    That they are common is up to the caller: same study seed, scheme, n_train, first resample and init, same data.
    A replica that is missing (NaN throughout) in one of the two is left out of both; `a` and `b` are the terms of what
    is left. Arguments are those of `lab.analysis.decomposition.decompose`; `logits` is a pair in place of a and b.

    Returns:
        Columns `COLUMNS`, one row a term; NaN for ends that too few resamples or seeds do not allow.

    Raises:
        ValueError: Arrays that cannot be right, or that differ in shape.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r} is unknown: choose one of {', '.join(LOSSES)}")
    arrays = [(a_DINC, None), (b_DINC, None)] if logits is None else [(None, values) for values in logits]
    pair = [
        checked(values, labels_N, logits=scores, posterior_NC=posterior_NC, design=design, missing=missing_DI)
        for values, scores in arrays
    ]
    shapes = [one.values_DIKNC.shape for one in pair]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the two trials have shapes {shapes[0]} and {shapes[1]}: only equal ones can be paired")
    both_DIK = pair[0].layout.used_DIK & pair[1].layout.used_DIK
    if not both_DIK.any():
        raise ValueError("no replica is left in both trials: they cannot be paired")
    pair = [one.only(both_DIK) for one in pair]
    layout, rules = pair[0].layout, LOSSES[loss]
    names = rules.names(layout)
    spread, rows = Spread(layout, names), []
    for part in chunks(len(pair[0].labels_N), layout.used_DIK.size * max(pair[0].n_classes, len(names))):
        a, b = (rules.terms(one.points(part), layout) for one in pair)
        without = {z: b.without[z] - a.without[z] for z in a.without}
        spread.add(Estimates(b.point_TN - a.point_TN, without, a.weights_TP))
        rows.append(np.stack([a.point_TN, b.point_TN]))
    mean_a, mean_b = np.concatenate(rows, axis=2).mean(axis=2)
    lo, hi = spread.symmetric_ends(level)
    n_resamples, n_inits, _ = map(len, layout.levels)
    table = pd.DataFrame({"term": names, "a": mean_a, "b": mean_b, "difference": mean_b - mean_a, "lo": lo, "hi": hi})
    return table.assign(
        n_resamples=n_resamples, n_inits=n_inits, n_replicas=int(both_DIK.sum()), n_test=len(pair[0].labels_N),
        level=level,
    )[COLUMNS]  # fmt: skip


def paired_seconds(seconds_K2: ArrayLike, *, level: float = 0.95) -> dict[str, float]:
    """Return what K timings of a baseline and of a variant say, each pair taken one right after the other.

    The difference is the mean of those of the pairs, the ratio their geometric mean, both with the interval of
    Student's t with K − 1 degrees of freedom. It is of the machine in that minute: what lasts longer than all K pairs
    cancels only as far as it slows both alike.

    Returns:
        `epoch_seconds` of the variant, `epoch_seconds_baseline`, `epoch_seconds_difference` and `epoch_time` (the
        ratio), the last two with `_lo` and `_hi`, and `n_timings`.

    Raises:
        ValueError: Not K × 2 positive numbers, or fewer than two pairs.
    """
    seconds = np.asarray(seconds_K2, dtype=np.float64)
    if seconds.ndim != 2 or seconds.shape[1] != 2 or len(seconds) < 2 or not (seconds > 0).all():
        raise ValueError(f"timings of shape {seconds.shape}: give at least two pairs of positive seconds")
    K, (baseline, own) = len(seconds), seconds.mean(axis=0)
    reach = float(stats.t.ppf((1 + level) / 2, K - 1)) / math.sqrt(K)
    difference_K, log_K = np.diff(seconds, axis=1)[:, 0], np.diff(np.log(seconds), axis=1)[:, 0]
    difference, half = difference_K.mean(), reach * difference_K.std(ddof=1)
    ratio, factor = np.exp(log_K.mean()), np.exp(reach * log_K.std(ddof=1))
    found = {
        "epoch_seconds": own, "epoch_seconds_baseline": baseline,
        "epoch_seconds_difference": difference, "epoch_seconds_difference_lo": difference - half,
        "epoch_seconds_difference_hi": difference + half,
        "epoch_time": ratio, "epoch_time_lo": ratio / factor, "epoch_time_hi": ratio * factor, "n_timings": K,
    }  # fmt: skip
    return {name: float(value) for name, value in found.items()}


def common(a_DINC: ArrayLike, b_DINC: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the replicas that two crossed trials with the same first resample and seed have in common.

    Trials that grow have grids of different sizes, of which the smaller numbers are the same training sets and seeds.
    """
    a, b = np.asarray(a_DINC), np.asarray(b_DINC)
    d, i = (min(sizes) for sizes in zip(a.shape[:2], b.shape[:2], strict=True))
    return a[:d, :i], b[:d, :i]


def unpaired_difference(a: Mapping[str, Any], b: Mapping[str, Any], terms: tuple[str, ...]) -> pd.DataFrame:
    """Return b − a for terms of two trials that share nothing, from their estimates and intervals.

    The distances of the ends from the estimates are combined as square roots of sums of squares (MOVER, Zou & Donner
    2008). Both intervals have to be of the same level.

    Args:
        a: Terms and their ends by name, as in `Decomposition.to_dict()` or a row of the run history.
        b: The same of the other trial.
        terms: Which of them; one that either does not have is left out.

    Returns:
        Columns term, a, b, difference, lo, hi.
    """
    rows = []
    for term in terms:
        values = [_number(one.get(f"{term}{end}")) for one in (a, b) for end in ("", "_lo", "_hi")]
        if math.isnan(values[0]) or math.isnan(values[3]):
            continue
        x, x_lo, x_hi, y, y_lo, y_hi = values
        difference = y - x
        lo, hi = difference - math.hypot(y - y_lo, x_hi - x), difference + math.hypot(y_hi - y, x - x_lo)
        rows.append((term, x, y, difference, lo, hi))
    return pd.DataFrame(rows, columns=COLUMNS[:6])


def _number(value: Any) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)
