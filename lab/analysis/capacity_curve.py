"""Capacity curve: error and its parts against capacity, with all other hyperparameters optimised over.

At each level of capacity the trial with the lowest validation risk speaks for the level: a level is not to look bad
because its learning rate was (nuisance hyperparameters are optimised over for fairness, Google's deep learning tuning
playbook). The parts themselves are measured on the test set, which took no part in that choice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lab.analysis.training_curve import grid_of_replicas, mean_over_replicas
from lab.numerals import interval, num
from lab.spec import CAPACITY_KNOBS

PARTS = ("noise", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction", "risk")
PART_COLUMNS = [f"{part}{end}" for part in PARTS for end in ("", "_lo", "_hi")]
CURVE = [
    "level", "capacity", "capacity_name", "bin_lo", "bin_hi", "key", "number", "n_trials", "n_trials_diverged",
    "n_parameters", "width", "depth", "n_replicas", "n_resamples", "val_risk", "val_risk_lo", "val_risk_hi",
    "train_error", "train_risk", "test_error", *PART_COLUMNS,
]  # fmt: skip
LEAST_STEP = 1.25  # times as many parameters, for a difference to be one of capacity
WORST_RISK = 2.0  # Brier score of a replica that is certain and wrong; what a diverged one counts with


def number_column(trials: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as float64; all NaN where the table has no such column (or not of numbers)."""
    if name not in trials:
        return pd.Series(np.nan, index=trials.index, dtype=np.float64)
    return pd.to_numeric(trials[name], errors="coerce").astype(np.float64)


def planned_replicas(trials: pd.DataFrame) -> pd.Series:
    """Return how many replicas each trial has by its plan, those that diverged included; NaN where it is not known."""
    draws = number_column(trials, "n_noise_draws").fillna(1.0)  # runs of earlier editions have no such column
    return number_column(trials, "n_resamples") * number_column(trials, "n_inits") * draws


def selection_risk(trials: pd.DataFrame) -> pd.Series:
    """Return what "best" means in the analysis: validation risk, where a diverged replica counts with 2, the worst.

    Without that, a configuration half of whose replicas diverged would be judged by the lucky half. NaN where nothing
    was measured.
    """
    risk, gone = number_column(trials, "val_risk"), number_column(trials, "n_diverged").fillna(0.0)
    planned = planned_replicas(trials)
    total = planned.where(planned > 0, number_column(trials, "n_replicas"))
    share = (gone / total.where(total > 0)).clip(0.0, 1.0).fillna(0.0)
    return risk * (1 - share) + WORST_RISK * share


def newest_first(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with confirm runs before others, and the newer before the older.

    Where a study confirms several configurations, the confirm run with the lowest objective (of a pair, the sum) comes
    first of them.
    """
    is_confirm = trials["phase"] == "confirm" if "phase" in trials else pd.Series(False, index=trials.index)
    several = is_confirm & (number_column(trials, "n_confirm") > 1)
    objective = number_column(trials, "objective_0") + number_column(trials, "objective_1").fillna(0.0)
    order = (
        number_column(trials, "number").fillna(-1.0),
        number_column(trials, "started").fillna(-math.inf),
        (-objective).where(several, 0.0).fillna(-math.inf),
        is_confirm,
    )
    return trials.iloc[np.lexsort([column.to_numpy(np.float64) for column in order])[::-1]]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    lo: float
    hi: float

    def __str__(self) -> str:
        return f"{num(self.value)} {interval(self.lo, self.hi, self.value) or '(no interval: too few replicas)'}"

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Return the difference, its half-widths added as for independent numbers.

        Trials share resamples, seeds and test points, so their errors go together and the true interval is narrower.
        """
        value = self.value - other.value
        return Estimate(
            value,
            value - math.hypot(self.value - self.lo, other.hi - other.value),
            value + math.hypot(self.hi - self.value, other.value - other.lo),
        )

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.lo > 0 or self.hi < 0

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.hi - self.lo) / 2


def estimate(row: Mapping[str, Any] | pd.Series, name: str) -> Estimate:
    """Return a value and its interval from a row of a table; NaN where missing."""
    return Estimate(*(number(row, f"{name}{end}") for end in ("", "_lo", "_hi")))


def number(row: Mapping[str, Any] | pd.Series, name: str) -> float:
    """Return a value from a row of a table as a float; NaN where missing."""
    value = row.get(name)
    return math.nan if value is None or pd.isna(value) else float(value)


def of_phase(trials: pd.DataFrame, phase: str) -> pd.DataFrame:
    """Return the rows of a phase; every row where the table does not know phases, none for another phase then."""
    if "phase" not in trials:
        return trials if phase == "explore" else trials.iloc[:0]
    return trials[trials["phase"] == phase]


def capacity_curve(trials: pd.DataFrame, *, knob: str | None = None, n_bins: int = 6) -> pd.DataFrame:
    """Return one row a level of capacity, ascending: the best explore trial of the level, its parts and intervals.

    Args:
        trials: Table `trials` of a run history.
        knob: The dial, e.g. "width". None: the one capacity knob that the study varies if it takes at most `n_bins`
            values, else the number of parameters.
        n_bins: At most this many levels: with more distinct values, log-spaced bins (a level's `capacity` is then
            that of its best trial, `bin_lo` and `bin_hi` the bin).

    Returns:
        Columns `CURVE`. `n_trials` counts the trials of the level with a measured risk, `n_trials_diverged` those of
        them in which a replica diverged. Empty if nothing was measured.
    """
    rows = of_phase(trials, "explore")
    rows = rows.assign(_selection=selection_risk(rows))
    rows = rows[np.isfinite(rows["_selection"])]
    name = knob or _dial(rows, n_bins)
    capacity = number_column(rows, name)
    rows = rows.assign(_capacity=capacity)[np.isfinite(capacity)]
    if rows.empty:
        return pd.DataFrame(columns=CURVE)
    levels, edges = _levels(rows["_capacity"].to_numpy(np.float64), n_bins)
    table: list[dict[str, object]] = []
    for place in sorted(set(levels.tolist())):
        group = rows[levels == place]
        best = group.sort_values(["_selection", "_capacity"], kind="stable").iloc[0]
        row = {column: best.get(column, math.nan) for column in CURVE}
        lo, hi = edges[place] if edges else (best["_capacity"], best["_capacity"])
        row |= {
            "level": len(table), "capacity": best["_capacity"], "capacity_name": name, "bin_lo": lo, "bin_hi": hi,
            "n_trials": len(group), "n_trials_diverged": int((number_column(group, "n_diverged") > 0).sum()),
        }  # fmt: skip
        table.append(row)
    curve = pd.DataFrame(table, columns=CURVE)
    numeric = [column for column in CURVE if column not in ("capacity_name", "key")]
    return curve.assign(**{column: number_column(curve, column) for column in numeric}).astype({"level": int})


def _dial(rows: pd.DataFrame, n_bins: int) -> str:
    varied = [knob for knob in CAPACITY_KNOBS if knob in rows and rows[knob].nunique() > 1]
    if len(varied) == 1 and (rows[varied[0]].nunique() <= n_bins or "n_parameters" not in rows):
        return varied[0]
    return "n_parameters" if "n_parameters" in rows or not varied else varied[0]


def _levels(capacity: np.ndarray, n_bins: int) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Return the level of each trial, and the bins if there had to be bins."""
    distinct = np.unique(capacity)
    if len(distinct) <= max(n_bins, 1):
        return np.searchsorted(distinct, capacity), []
    low, high = float(distinct[0]), float(distinct[-1])
    edges = np.geomspace(low, high, n_bins + 1) if low > 0 else np.linspace(low, high, n_bins + 1)
    levels = np.clip(np.searchsorted(edges, capacity, side="right") - 1, 0, n_bins - 1)
    return levels, [(float(a), float(b)) for a, b in pairwise(edges)]


def interpolation_threshold(curve: pd.DataFrame, level: float = 0.01) -> float | None:
    """Return the first capacity at which the mean training error is at most `level`; None if there is none."""
    if curve.empty or "train_error" not in curve:
        return None
    reached = curve[number_column(curve, "train_error") <= level]
    return None if reached.empty else float(reached.sort_values("capacity")["capacity"].iloc[0])


def level_of(curve: pd.DataFrame, row: Mapping[str, Any] | pd.Series) -> int | None:
    """Return the level of the curve whose capacity is nearest to that of a run; None with fewer than two levels."""
    here = number(row, str(curve["capacity_name"].iloc[0])) if len(curve) > 1 else math.nan
    if not math.isfinite(here):
        return None
    return int(np.argmin(np.abs(np.log1p(number_column(curve, "capacity")) - math.log1p(max(here, 0.0)))))


def count(value: float) -> str:
    """Return a capacity as text, e.g. "13,562"."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _apart(curve: pd.DataFrame, a: int, b: int) -> bool:
    """Return whether two levels differ in size and not in all but name: then what differs are the other knobs."""
    small, large = sorted(float(curve["capacity"].iloc[place]) for place in (a, b))
    return curve["capacity_name"].iloc[0] != "n_parameters" or large >= LEAST_STEP * small


def step(curve: pd.DataFrame, start: int | None, end: int, column: str) -> tuple[str, Estimate] | None:
    """Return a step from one level to another in words, and what changes in a column; None if there is no such step."""
    if start is None or not (0 <= start < len(curve) and 0 <= end < len(curve)):
        return None
    here, there = curve.iloc[start], curve.iloc[end]
    if not _apart(curve, start, end):
        return None
    name = "parameters" if here["capacity_name"] == "n_parameters" else here["capacity_name"]
    words = f"{name} from {count(here['capacity'])} to {count(there['capacity'])}"
    return words, estimate(there, column) - estimate(here, column)


@dataclass(frozen=True)
class Peak:
    """Whether the capacity curve shows double descent, and why (not).

    `p_rise` and `p_fall` are the Holm-adjusted p values of the rise to the level at `capacity` and of the fall after
    it; `n_pairs` is how many comparisons the adjustment pays for. All but `reason` and `n_pairs` are None or NaN when
    there was nothing to compare.
    """

    claimed: bool
    reason: str
    capacity: float | None = None
    key: str | None = None
    p_rise: float = math.nan
    p_fall: float = math.nan
    threshold: float | None = None
    n_pairs: int = 0


def find_peak(
    curve: pd.DataFrame,
    replicas: pd.DataFrame | None = None,
    *,
    column: str = "test_risk",
    alpha: float = 0.05,
) -> Peak:
    """Return whether the risk rises and falls again with capacity, significantly and near the interpolation threshold.

    Every ordered pair of levels is compared: one-sided t on the differences of the replicas that share their training
    set and seed, last epoch of each. The differences are not independent (they share resamples and seeds), which the
    standard error counts (`mean_over_replicas`). Holm's adjustment over all L·(L−1) comparisons pays for the peak
    having been looked for. A peak is claimed at a level that is above some smaller and above some larger one, and at
    most one level from the interpolation threshold.

    Args:
        curve: Table of `capacity_curve`.
        replicas: Table `replicas` of the run history. Without it nothing can be tested, and nothing is claimed.
        column: The measure, a column of `replicas`.
        alpha: Chance, over all pairs, of a claim where there is no such difference.
    """
    threshold = interpolation_threshold(curve)
    if len(curve) < 3:
        return Peak(False, "not enough levels of capacity: a peak needs three", threshold=threshold)
    if replicas is None or replicas.empty or not {"key", "epoch", column} <= set(replicas.columns):
        return Peak(False, "not tested: the replicas' own values are missing", threshold=threshold)
    grids = [_last_values(replicas, str(key), column) for key in curve["key"]]
    pairs = [(a, b) for a in range(len(grids)) for b in range(len(grids)) if a != b and _apart(curve, a, b)]
    p_values = _holm([_p_above(grids[a], grids[b]) for a, b in pairs])
    p_of = dict(zip(pairs, p_values, strict=True))
    best: tuple[float, int, float, float] | None = None
    for level in range(1, len(grids) - 1):
        p_rise = min(p_of.get((level, smaller), 1.0) for smaller in range(level))
        p_fall = min(p_of.get((level, larger), 1.0) for larger in range(level + 1, len(grids)))
        if best is None or max(p_rise, p_fall) < best[0]:
            best = (max(p_rise, p_fall), level, p_rise, p_fall)
    assert best is not None  # there are three levels
    p, level, p_rise, p_fall = best
    nothing = "no peak of the risk: no level is significantly above both a smaller and a larger one"
    peak = Peak(False, nothing, None, None, p_rise, p_fall, threshold, len(pairs))
    if not p < alpha:
        return peak
    capacity = float(curve["capacity"].iloc[level])
    name = str(curve["capacity_name"].iloc[0])
    where = f"{count(capacity)} parameters" if name == "n_parameters" else f"{name} {count(capacity)}"
    reason = f"a significant peak of the risk at {where}"
    near = threshold is not None and abs(int((curve["capacity"] < threshold).sum()) - level) <= 1
    if threshold is None:
        reason += ", but no level interpolates its training data"
    else:
        reason += f", {'near' if near else 'but far from'} the interpolation threshold {count(threshold)}"
    return replace(peak, claimed=near, reason=reason, capacity=capacity, key=str(curve["key"].iloc[level]))


def _last_values(replicas: pd.DataFrame, key: str, column: str) -> pd.DataFrame:
    run = replicas[replicas["key"] == key]
    return grid_of_replicas(run[run["epoch"] == run["epoch"].max()], column)


def _p_above(higher: pd.DataFrame, lower: pd.DataFrame) -> float:
    """Return the one-sided p value of "the first is not above the second"; 1 where it cannot be tested."""
    if higher.empty or lower.empty:
        return 1.0
    difference = mean_over_replicas((higher - lower).to_numpy(np.float64))
    if not difference.se > 0:  # a single replica, or the same number in all
        return 1.0
    return float(stats.t.sf(difference.mean / difference.se, difference.df))


def _holm(p_values: list[float]) -> list[float]:
    """Return Holm's adjusted p values."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(np.asarray(p_values)[order] * (len(p_values) - np.arange(len(p_values))))
    result = np.empty(len(p_values))
    result[order] = np.minimum(adjusted, 1.0)
    return result.tolist()
