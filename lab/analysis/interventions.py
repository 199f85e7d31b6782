"""What each variant of a study changes against the baseline: differences in risk and its parts, in pairs.

All variants are trained on the same training sets, from the same seeds, and measured at the same test points, so the
difference between two of them is that of one sampled thing (`lab.analysis.paired`), and "lowers the risk" may be said:
only the variant was changed. Ensembles are added without any training: the average of the predictions of several seeds
of the baseline is a technique too.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, C classes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from lab.analysis.decomposition import decompose
from lab.analysis.ensemble import averaged_seeds
from lab.analysis.paired import common, paired_difference

TERMS = ("risk", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction", "error")
COLUMNS = (
    "variant", "term", "baseline", "value", "difference", "lo", "hi", "n_resamples", "n_inits", "n_test", "n_timings",
    "level", "key",
)  # fmt: skip
ENSEMBLES = (2, 4)  # members

Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]  # predictions (D, I, N, C), labels, posterior


def interventions(
    trials: pd.DataFrame, predictions: Callable[[str], Arrays], *, baseline: str, level: float = 0.95
) -> pd.DataFrame:
    """Return the differences of all variants from the baseline, one row a (variant, term); columns `COLUMNS`.

    The terms of time: "seconds" is the whole training, measured once, so without an interval; "epoch_seconds" is an
    epoch of all replicas, and "epoch_time" the same as a multiple of the baseline's, both from pairs that were taken by
    turns (`lab.timing`), with the number of pairs as `n_timings`. An ensemble of M takes M times as long by its nature.
    Empty if the baseline was not measured.

    Args:
        trials: Runs of phase explore, with their `variant` and `key`.
        predictions: key → what the replicas of that run predict.
        baseline: The variant that the others are compared with.
        level: Of the intervals.
    """
    measured = trials[trials["risk"].notna()] if "risk" in trials else trials.iloc[:0]
    base = measured[measured["variant"] == baseline]
    if base.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    first = base.iloc[0]
    a_DINC, labels_N, posterior_NC = predictions(first["key"])
    rows: list[dict[Any, Any]] = []
    for _, trial in measured[measured["variant"] != baseline].iterrows():
        pair = common(a_DINC, predictions(trial["key"])[0])
        found = paired_difference(*pair, labels_N, posterior_NC=posterior_NC, level=level)
        found = found.rename(columns={"a": "baseline", "b": "value"}).assign(variant=trial["variant"], key=trial["key"])
        rows += found[found["term"].isin(TERMS)].to_dict("records")
        rows += [_seconds(trial["variant"], trial["key"], first["seconds"], trial["seconds"]), *_timed(trial)]
    for n_members in ENSEMBLES:
        name = f"ensemble_of_{n_members}_seeds"
        changes = ensemble_difference(a_DINC, labels_N, n_members, posterior_NC=posterior_NC, level=level)
        rows += [row | {"variant": name, "key": first["key"]} for row in changes]
        if changes:
            rows.append(_seconds(name, first["key"], first["seconds"], n_members * first["seconds"]))
            rows += _multiple(name, first["key"], measured, n_members)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _seconds(variant: str, key: str, before: float, after: float) -> dict[str, Any]:
    return {
        "variant": variant, "key": key, "term": "seconds", "baseline": before, "value": after,
        "difference": after - before, "lo": math.nan, "hi": math.nan,
    }  # fmt: skip


def _timed(trial: pd.Series) -> list[dict[str, Any]]:
    """Return the rows of the time of an epoch; none if it was not taken."""
    if pd.isna(trial.get("n_timings")):
        return []
    rows = []
    for term, seen, change, none in (
        ("epoch_seconds", "epoch_seconds", "epoch_seconds_difference", 0.0),
        ("epoch_time", "epoch_time", "epoch_time", 1.0),
    ):
        rows.append(
            {
                "variant": trial["variant"], "key": trial["key"], "term": term, "value": trial[seen],
                "baseline": trial["epoch_seconds_baseline"] if term == "epoch_seconds" else 1.0,
                "difference": trial[change] - none, "lo": trial[f"{change}_lo"] - none,
                "hi": trial[f"{change}_hi"] - none, "n_timings": int(trial["n_timings"]),
            }
        )  # fmt: skip
    return rows


def _multiple(variant: str, key: str, trials: pd.DataFrame, n_members: int) -> list[dict[str, Any]]:
    """Return the rows of the time of an ensemble's epoch: that of the baseline, over all pairs, times its members."""
    if "epoch_seconds_baseline" not in trials or trials["epoch_seconds_baseline"].isna().all():
        return []
    seconds = float(trials["epoch_seconds_baseline"].mean())
    return [
        _seconds(variant, key, before, n_members * before) | {"term": term}
        for term, before in (("epoch_seconds", seconds), ("epoch_time", 1.0))
    ]


def ensemble_difference(
    p_DINC: NDArray[Any], labels_N: NDArray[Any], n_members: int, *, posterior_NC: NDArray[Any] | None, level: float
) -> list[dict[str, Any]]:
    """Return what averaging over `n_members` seeds changes, one row a term; nothing for fewer than twice as many seeds.

    Parts of the Brier score are those of `lab.analysis.ensemble`: from all seeds, with intervals over training sets,
    seeds and test points. The error is that of means over groups of seeds in their order, with an interval over
    training sets (delete-one jackknife, D − 1 degrees of freedom) and test points.
    """
    D, I, *others = p_DINC.shape  # noqa: E741 - the letters of the shape legend; others: (K,) N, C
    n_groups = I // n_members
    if n_groups < 2 or D < 3:
        return []
    before = decompose(p_DINC, labels_N, posterior_NC=posterior_NC, level=None)
    changes = averaged_seeds(p_DINC, labels_N, n_members, posterior_NC=posterior_NC, level=level)
    members = np.asarray(p_DINC[:, : n_groups * n_members], dtype=np.float64)
    groups = members.reshape(D, n_groups, n_members, *others).mean(axis=2)
    changes["error"] = _error_difference(members, groups, labels_N, posterior_NC, level)
    rows = []
    for term in TERMS:
        value, (difference, lo, hi) = float(before.per_example[term].mean()), changes[term]
        rows.append(
            {
                "term": term, "baseline": value, "value": value + difference, "difference": difference, "lo": lo,
                "hi": hi, "n_resamples": D, "n_inits": I, "n_test": before.n_test, "level": level,
            }
        )  # fmt: skip
    return rows


def _error_difference(
    members: NDArray[Any], groups: NDArray[Any], labels_N: NDArray[Any], posterior_NC: NDArray[Any] | None, level: float
) -> tuple[float, float, float]:
    def change_N(kept_D: NDArray[np.bool_]) -> NDArray[np.float64]:
        one, mean = (
            decompose(p[kept_D], labels_N, posterior_NC=posterior_NC, level=None).per_example["error"]
            for p in (members, groups)
        )
        return mean - one

    D = len(members)
    point_N = change_N(np.ones(D, dtype=bool))
    left_out_D = np.array([change_N(np.arange(D) != d).mean() for d in range(D)])
    jackknife = (D - 1) / D * ((left_out_D - left_out_D.mean()) ** 2).sum()  # Efron & Stein 1981
    difference = float(point_N.mean())
    half = float(stats.t.ppf((1 + level) / 2, D - 1)) * math.sqrt(jackknife + point_N.var(ddof=1) / len(point_N))
    return difference, difference - half, difference + half
