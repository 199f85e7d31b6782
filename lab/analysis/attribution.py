"""Attribution: which hyperparameter goes with bias², and which with variance.

A random forest predicts the logarithm of a target from the knobs that a study varies. What it predicts of trials that
it was not fitted on says how much of the target the knobs explain at all (R², out of fold); how much worse it gets
when one knob is shuffled among those trials is that knob's importance. A ranking is only given if there is something
to rank: R² ≥ 0.6 "reliable", 0.2 to 0.6 "rough", below "no ranking".

Optuna's default importance (PED-ANOVA) answers another question: which knob decides who is among the best 10 %.
Trials proposed by a sampler that learns from results (tpe, gp …) crowd around good values and are no factorial
design: use qmc, random or grid where attribution is the question.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lab.analysis import forest
from lab.analysis.capacity_curve import number_column, of_phase
from lab.knobs import KNOBS
from lab.seeds import generator, stream

TABLE = ["target", "knob", "importance", "importance_lo", "importance_hi", "rank", "r2", "unexplained", "status",
         "n_trials"]  # fmt: skip
DIRECTION = ["value", "mean", "lo", "hi", "n_trials"]
RELIABLE, ROUGH = 0.6, 0.2
MIN_TRIALS = 10
N_FOLDS, N_SHUFFLES, N_BOOTSTRAPS = 5, 5, 40
N_SPLITS, ENOUGH_OF_SPLITS = 3, 600  # into folds; fewer with so many trials that one split says it as surely
# With many trials a leaf averages several, and fewer trees say the same. At 300 and 1,000 trials of two known surfaces
# importances from 20 trees were within 0.007 of those from 150 (root mean square over 4 seeds), where seeds, over these
# sizes and 100 trials, differ by 0.004 to 0.019 and an interval's half width is 0.008 to 0.020; R² was lower by 0.006
# to 0.009 than with 60.
MANY = 300
N_TREES = 60, 20  # with few and with many trials
# The bands average 40 such forests; at 1,000 trials those of 8 trees were 3 % and 5 % wider than those of 12, and at
# 100 those of 12 were 5 % and 4 % wider than those of 40 (the same two surfaces, means of 2 seeds).
N_TREES_OF_BOOTSTRAP = 12, 8
N_GRID = 9  # values of a knob at which a dependence is evaluated
MOST_BACKGROUND = 200  # trials that a partial dependence is averaged over
FLOOR = 0.01  # of the median positive value: what stands in for a target that is 0 or, as estimates can be, negative


@dataclass(frozen=True)
class Effect:
    """What the target does as a knob goes from `low` to `high`, the others as they were: `ratio` times, interval."""

    knob: str
    target: str
    low: float | str | bool
    high: float | str | bool
    ratio: float
    ratio_lo: float
    ratio_hi: float


@dataclass(frozen=True)
class _Design:
    """Knobs as numbers (n, K), categories as the place of their name in the alphabet, and the log of the target."""

    knobs: list[str]
    values: np.ndarray
    categories: dict[str, list[str]]
    log_target: np.ndarray


def _design(trials: pd.DataFrame, target: str, knobs: Sequence[str] | None) -> _Design:
    rows = of_phase(trials, "explore")
    measured = number_column(rows, target)
    rows = rows[np.isfinite(measured)]
    y = measured[np.isfinite(measured)].to_numpy(np.float64)
    positive = y[y > 0]
    if positive.size == 0:
        rows, y = rows.iloc[:0], y[:0]
    names = [knob for knob in (knobs or KNOBS) if knob in rows and rows[knob].nunique() > 1]
    columns, categories = [], {}
    for knob in names:
        numbers = pd.to_numeric(rows[knob], errors="coerce")
        if numbers.notna().all():
            columns.append(numbers.to_numpy(np.float64))
        else:
            texts = rows[knob].astype(str)
            categories[knob] = sorted(texts.unique())
            columns.append(texts.map({text: k for k, text in enumerate(categories[knob])}).to_numpy(np.float64))
    values = np.column_stack(columns) if columns else np.empty((len(y), 0))
    floor = FLOOR * float(np.median(positive)) if positive.size else 1.0
    return _Design(names, values, categories, np.log(np.maximum(y, floor)))


def importance(
    trials: pd.DataFrame,
    *,
    targets: Sequence[str] = ("bias_sq", "variance"),
    knobs: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Return, for each target and each knob that varies, the knob's share of the target's variation among trials.

    `importance` is half the growth of the out-of-fold squared error when the knob is shuffled, over the variance of
    the log target: 0 for a knob that carries nothing, near R² for one that carries all (the total Sobol index of the
    forest, Bénard et al. 2022). What knobs do together counts for each of them. Its 95 % interval is t over trials, of
    the mean growth: it covers another draw of trials from the same design, not another forest, and is too narrow where
    two knobs went together in the design.
    `unexplained` is 1 − R²: interaction with things not varied, noise of the measurement, what the forest misses.

    Returns:
        Columns `TABLE`, sorted by target and rank. Without a ranking ("no ranking": R² < 0.2, or fewer than 10 trials,
        then R² is NaN) the knobs are listed with NaN. Explore trials only; those without the target (all replicas
        diverged) are left out, see `n_trials`.
    """
    table = [row for place, target in enumerate(targets) for row in _rank(trials, target, knobs, seed, place)]
    return pd.DataFrame(table, columns=TABLE)


def _rank(
    trials: pd.DataFrame, target: str, knobs: Sequence[str] | None, seed: int, stream_of: int
) -> list[dict[str, object]]:
    design = _design(trials, target, knobs)
    n, y = len(design.log_target), design.log_target
    r2, growth = math.nan, np.full((n, len(design.knobs)), math.nan)
    if n >= MIN_TRIALS and design.knobs and y.std() > 0:
        residual_sq, growth = _out_of_fold(design, seed, stream_of)
        r2 = 1 - float(residual_sq.mean() / y.var())
        growth = growth / (2 * y.var())
    status = "reliable" if r2 >= RELIABLE else "rough" if r2 >= ROUGH else "no ranking"
    rows: list[dict[str, object]] = []
    means = growth.mean(axis=0) if n else growth.sum(axis=0)
    order = np.argsort(-means, kind="stable") if status != "no ranking" else np.arange(len(design.knobs))
    for place, k in enumerate(order.tolist()):
        mean, half, rank = math.nan, math.nan, math.nan
        if status != "no ranking":
            mean = float(means[k])
            rank = place + 1.0
            half = float(stats.t.ppf(0.975, n - 1) * growth[:, k].std(ddof=1) / math.sqrt(n))
        rows.append({"target": target, "knob": design.knobs[k], "importance": mean, "importance_lo": mean - half,
                     "importance_hi": mean + half, "rank": rank, "r2": r2, "status": status, "n_trials": n,
                     "unexplained": 1 - min(max(r2, 0.0), 1.0) if math.isfinite(r2) else math.nan})  # fmt: skip
    return rows


def _out_of_fold(design: _Design, seed: int, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each trial, its squared error (n,) and its growth when each knob is shuffled (n, K)."""
    n, n_knobs = design.values.shape
    residual_sq, growth = np.zeros(n), np.zeros((n, n_knobs))
    n_splits = min(max(ENOUGH_OF_SPLITS // n, 1), N_SPLITS)
    for split in range(n_splits):
        rng = generator(seed, "analysis", place, split)
        fold_of = rng.permutation(n) % N_FOLDS
        for fold in range(N_FOLDS):
            out = np.flatnonzero(fold_of == fold)
            fitted = forest.grow(
                design.values[fold_of != fold], design.log_target[fold_of != fold], n_trees=N_TREES[n >= MANY],
                seed=stream(seed, "analysis", place, split, fold),
            )  # fmt: skip
            blocks = [design.values[out]]
            for k in range(n_knobs):
                for _ in range(N_SHUFFLES):
                    shuffled = design.values[out].copy()
                    # a value drawn from all trials, not only from the few of this fold
                    shuffled[:, k] = rng.permutation(design.values[:, k])[: len(out)]
                    blocks.append(shuffled)
            predicted = forest.predict(fitted, np.concatenate(blocks)).reshape(len(blocks), -1)
            errors = (predicted - design.log_target[out]) ** 2
            residual_sq[out] += errors[0] / n_splits
            worse = errors[1:].reshape(n_knobs, N_SHUFFLES, -1).mean(axis=1) - errors[0]
            growth[out] += worse.T / n_splits
    return residual_sq, growth


def directions(
    trials: pd.DataFrame, knobs: Sequence[str], target: str, *, seed: int = 0, n_grid: int = N_GRID
) -> dict[str, pd.DataFrame]:
    """Return how the target goes with each of some knobs, the others as they were tried: partial dependence, bands.

    The geometric mean over trials of the forest's prediction with the knob set to each value; the band is the 2.5 to
    97.5 % range over forests grown on bootstrap samples of the trials. It says where the forest's picture is stable;
    a forest flattens slopes, above all near the ends.

    Returns:
        Knob → columns `DIRECTION`: value of the knob (a number, or a category's name), mean, lo, hi in units of the
        target. A knob that does not vary is left out; so are all with fewer than 10 trials.
    """
    design = _design(trials, target, None)
    found = [knob for knob in knobs if knob in design.knobs]
    if len(design.log_target) < MIN_TRIALS or not found:
        return {}
    grids = {knob: _grid(design, knob, n_grid) for knob in found}
    tables = {}
    for knob, curves in _dependence(design, grids, seed).items():
        names = design.categories.get(knob)
        tables[knob] = pd.DataFrame({
            "value": [names[int(g)] for g in grids[knob]] if names else grids[knob],
            "mean": np.exp(curves.mean(axis=0)), "lo": np.exp(np.quantile(curves, 0.025, axis=0)),
            "hi": np.exp(np.quantile(curves, 0.975, axis=0)), "n_trials": len(design.log_target),
        })  # fmt: skip
    return tables


def direction(trials: pd.DataFrame, knob: str, target: str, *, seed: int = 0, n_grid: int = N_GRID) -> pd.DataFrame:
    """Return `directions` of one knob; empty with fewer than 10 trials, or if the knob does not vary."""
    tables = directions(trials, [knob], target, seed=seed, n_grid=n_grid)
    return tables.get(knob, pd.DataFrame(columns=DIRECTION))


def effect(trials: pd.DataFrame, knob: str, target: str, *, seed: int = 0) -> Effect | None:
    """Return the target at a numeric knob's 90 % point over that at its 10 % point (for a category: extreme options).

    The same forests as `direction`. An interval that contains 1 is no effect to speak of. For a category the two
    options are the ones with the lowest and the highest mean, so the ratio is above 1 by selection; None where there
    is nothing to compare.
    """
    design = _design(trials, target, None)
    if len(design.log_target) < MIN_TRIALS or knob not in design.knobs:
        return None
    names = design.categories.get(knob)
    column = design.values[:, design.knobs.index(knob)]
    if names:
        grid = _grid(design, knob, len(names))
        curves = _dependence(design, {knob: grid}, seed)[knob]
        low, high = int(curves.mean(axis=0).argmin()), int(curves.mean(axis=0).argmax())
    else:
        grid = np.quantile(column, [0.1, 0.9], method="nearest")
        low, high = 0, 1
        curves = _dependence(design, {knob: grid}, seed)[knob]
    change = curves[:, high] - curves[:, low]
    ends = [names[int(grid[k])] if names else float(grid[k]) for k in (low, high)]
    lo, hi = np.exp(np.quantile(change, [0.025, 0.975]))
    return Effect(knob, target, ends[0], ends[1], math.exp(float(change.mean())), float(lo), float(hi))


def moves(
    trials: pd.DataFrame, row: Mapping[str, Any] | pd.Series, *, target: str = "risk", seed: int = 0
) -> tuple[Effect, ...]:
    """Return what the target does as single knobs go from where a run has them to their best, the largest fall first.

    Of the knobs whose importance for the target excludes 0, and none at all unless the ranking is reliable. The other
    knobs stay as they were tried, so these are averages over the space and not effects at the run itself; and the best
    of a few values looks a little better than it is.
    """
    table = importance(trials, targets=(target,), seed=seed)
    knobs = table[(table["status"] == "reliable") & (table["importance_lo"] > 0)]["knob"].tolist()
    if not knobs:
        return ()
    design = _design(trials, target, None)
    grids, starts = {}, {}
    for knob in knobs:
        names, here = design.categories.get(knob), row.get(knob)
        grid = _grid(design, knob, N_GRID)
        if here is None or pd.isna(here) or (names and str(here) not in names):
            continue
        at = float(names.index(str(here))) if names else float(here)
        grids[knob] = grid if at in grid else np.append(grid, at)
        starts[knob] = int(np.flatnonzero(grids[knob] == at)[0])
    found = []
    for knob, curves in _dependence(design, grids, seed).items():
        start, best, names = starts[knob], int(curves.mean(axis=0).argmin()), design.categories.get(knob)
        change = curves[:, best] - curves[:, start]
        low, high = (names[int(grids[knob][k])] if names else float(grids[knob][k]) for k in (start, best))
        lo, hi = np.exp(np.quantile(change, [0.025, 0.975]))
        found.append(Effect(knob, target, low, high, math.exp(float(change.mean())), float(lo), float(hi)))
    return tuple(sorted(found, key=lambda effect: effect.ratio))


def _grid(design: _Design, knob: str, n_grid: int) -> np.ndarray:
    column = design.values[:, design.knobs.index(knob)]
    distinct = np.unique(column)
    if knob in design.categories or len(distinct) <= n_grid:
        return distinct
    return np.unique(np.quantile(column, np.linspace(0, 1, n_grid), method="nearest"))


def _dependence(design: _Design, grids: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Return each knob's partial dependence of the log target: a row a bootstrap sample, a column a value of its grid.

    With many trials the average runs over `MOST_BACKGROUND` of them: more change it by less than its band is wide.
    """
    n = len(design.log_target)
    background = design.values[np.unique(np.linspace(0, n - 1, min(n, MOST_BACKGROUND)).astype(int))]
    moved = []
    for knob, grid in grids.items():
        rows = np.tile(background, (len(grid), 1))
        rows[:, design.knobs.index(knob)] = np.repeat(grid, len(background))
        moved.append(rows)
    every, ends = np.concatenate(moved), np.cumsum([len(rows) for rows in moved])[:-1]
    curves: dict[str, list[np.ndarray]] = {knob: [] for knob in grids}
    for b in range(N_BOOTSTRAPS):
        drawn = generator(seed, "analysis", 1000 + b).integers(n, size=n)
        grown = forest.grow(
            design.values[drawn], design.log_target[drawn], n_trees=N_TREES_OF_BOOTSTRAP[n >= MANY],
            seed=stream(seed, "analysis", b), bootstrap=False, max_features=0.7,
        )  # fmt: skip
        for knob, values in zip(grids, np.split(forest.predict(grown, every), ends), strict=True):
            curves[knob].append(values.reshape(len(grids[knob]), -1).mean(axis=1))
    return {knob: np.array(rows) for knob, rows in curves.items()}
