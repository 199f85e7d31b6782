"""Learning curve: error and its parts against the number of training examples, and a careful look beyond the data.

Models of the curve (α, β ≥ 0; Viering & Loog 2023 compare them and more):
  pow3  α + β·n^−c
  pow4  α + β·(n + d)^−c,  d ≥ 0
  mmf4  α + β/(1 + (n/κ)^c)
For given c, d, κ each is linear in α and β, so the fit is a grid over the non-linear parameters with a weighted
non-negative least squares in closed form: deterministic, no start values, no failure to converge.

Shapes: S measured sizes, T sizes to predict, B bootstrap draws, K points of the grid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lab.analysis.capacity_curve import PART_COLUMNS, Estimate, estimate, newest_first, number_column, of_phase
from lab.knobs import KNOBS
from lab.numerals import num
from lab.seeds import generator

CURVE = [
    "n_train", "key", "phase", "n_replicas", "n_resamples", "train_risk", "train_risk_lo", "train_risk_hi",
    "val_risk", "val_risk_lo", "val_risk_hi", "train_error", "test_error", *PART_COLUMNS,
]  # fmt: skip
MIN_SIZES = 6
SIZES_FOR_POW4 = 8
REACH = 4.0  # times the largest measured size
TOLERANCE = 0.10  # what back-testing may miss, if two standard errors are less
N_DRAWS = 200

_FINE_POWERS = np.concatenate([np.geomspace(0.05, 0.4, 25, endpoint=False), np.linspace(0.4, 3.0, 261)])
_POWERS = np.concatenate([np.geomspace(0.05, 0.4, 12, endpoint=False), np.linspace(0.4, 3.0, 53)])
_SHIFTS = np.concatenate([[0.0], np.geomspace(0.02, 8.0, 16)])  # d, in units of the median measured size
_SCALES = np.geomspace(0.02, 50.0, 28)  # κ, in the same units

# (n, unit) → basis function g for each point of the grid, (K, len(n)), and the names and values of its parameters
_Basis = Callable[[np.ndarray, float], tuple[np.ndarray, dict[str, np.ndarray]]]


def _pow3(n: np.ndarray, unit: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return (n[None, :] / unit) ** -_FINE_POWERS[:, None], {"c": _FINE_POWERS}


def _pow4(n: np.ndarray, unit: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    power, shift = (axis.ravel() for axis in np.meshgrid(_POWERS, _SHIFTS))
    return (n[None, :] / unit + shift[:, None]) ** -power[:, None], {"c": power, "d": shift * unit}


def _mmf4(n: np.ndarray, unit: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    power, scale = (axis.ravel() for axis in np.meshgrid(_POWERS, _SCALES))
    return 1 / (1 + (n[None, :] / unit / scale[:, None]) ** power[:, None]), {"c": power, "kappa": scale * unit}


MODELS: dict[str, _Basis] = {"pow3": _pow3, "pow4": _pow4, "mmf4": _mmf4}


def learning_curve(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row a training-set size, ascending, of the newest confirmed configuration.

    Rows are the newest run of phase "confirm" (the best, where a study confirms several) and the runs of phase
    "learning_curve" whose knobs, but for `n_train`, are those of that run (without a confirm run: of the newest
    learning-curve run). A size measured twice is shown once: the confirm run before others, the newer before the older.

    Returns:
        Columns `CURVE`; a run of which every replica diverged keeps its row, with NaN. Empty if there are no such runs.
    """
    confirm, sizes = of_phase(trials, "confirm"), of_phase(trials, "learning_curve")
    rows = pd.concat([confirm, sizes]) if len(confirm) and len(sizes) else (confirm if len(confirm) else sizes)
    n_train = number_column(rows, "n_train")
    rows = rows[n_train > 0]
    if rows.empty:
        return pd.DataFrame(columns=CURVE)
    rows = newest_first(rows)
    anchor = rows.iloc[0]
    for knob in KNOBS:
        if knob in rows and knob != "n_train" and pd.notna(anchor[knob]):
            rows = rows[rows[knob] == anchor[knob]]
    rows = rows.drop_duplicates("n_train").reindex(columns=CURVE)
    numeric = [column for column in CURVE if column not in ("key", "phase")]
    rows = rows.assign(**{column: number_column(rows, column) for column in numeric})
    return rows.astype({"n_train": int}).sort_values("n_train", kind="stable").reset_index(drop=True)


def doubling(curve: pd.DataFrame, column: str) -> tuple[int, int, Estimate] | None:
    """Return (from, to, change of the column) between the largest measured size and the one nearest to half of it."""
    table = curve[np.isfinite(number_column(curve, column))]
    if len(table) < 2:
        return None
    last, before = table.iloc[-1], table.iloc[:-1]
    half = before.iloc[int(np.argmin(np.abs(np.log(2 * number_column(before, "n_train") / last["n_train"]))))]
    return int(half["n_train"]), int(last["n_train"]), estimate(last, column) - estimate(half, column)


@dataclass(frozen=True)
class Refusal:
    """Why a learning curve is not extrapolated; `reason` is a sentence without its full stop."""

    column: str
    reason: str


@dataclass(frozen=True)
class Extrapolation:
    """A learning curve continued beyond the measured sizes, at most `REACH` times the largest.

    `table` has columns n_train, value, lo, hi, extrapolated. The band covers the spread of the three models, the error
    of back-testing and two standard errors: it says how far the curve can be trusted, it is no confidence interval.
    `backtest_error` is the worst miss at the two largest sizes when predicted from the others, as a fraction.
    """

    column: str
    model: str
    parameters: dict[str, float]
    table: pd.DataFrame = field(repr=False, compare=False)
    n_sizes: int
    n_max: int
    backtest_error: float


@dataclass(frozen=True)
class Needed:
    """How many training examples a target needs: `n` by the curve, `n_lo` and `n_hi` by the edges of the band.

    None: more than `REACH` times the largest measured size, if ever.
    """

    target: float
    n: int | None
    n_lo: int | None
    n_hi: int | None
    text: str


def extrapolate(curve: pd.DataFrame, column: str = "risk") -> Extrapolation | Refusal:
    """Return the curve of a column continued to 4 times the largest measured size, or why it is not continued.

    The model is pow4 with 8 or more sizes, pow3 with 6 or 7. Refused are: fewer than 6 sizes, a curve that rises
    somewhere by more than two standard errors, and one whose last two sizes, predicted from the others, are missed by
    more than the larger of 10 % and two standard errors. bias² and variance are to be continued apart.

    Half-width of the band at n: the largest distance between the three models, plus the worst miss of back-testing,
    plus two standard errors of the fit. That standard error is the larger of two: of a parametric bootstrap with
    independent errors of the sizes, and the measured one at the largest size (the sizes share test set, nested
    resamples and seeds, so that an error common to all of them moves the curve as a whole). The band stops at 0.

    Args:
        curve: Table of `learning_curve`. Without intervals all sizes weigh alike, and their scatter about the fit
            stands in for the standard error.
        column: What to continue, e.g. "risk", "bias_sq", "variance".
    """
    n, y = number_column(curve, "n_train").to_numpy(), number_column(curve, column).to_numpy()
    known = np.isfinite(y) & (n > 0)
    if known.sum() < MIN_SIZES:
        return Refusal(column, f"{int(known.sum())} measured training-set sizes are too few: {MIN_SIZES} are needed")
    order = np.argsort(n[known], kind="stable")
    n, y, se = n[known][order], y[known][order], standard_errors(curve, column)[known][order]
    if np.unique(n).size < len(n):
        return Refusal(column, "a training-set size stands twice in the table")
    slack = np.nan_to_num(2 * np.sqrt(se[:, None] ** 2 + se[None, :] ** 2))
    if np.triu(y[None, :] - y[:, None] > slack + 1e-12, 1).any():
        return Refusal(column, "the measured curve is not monotone: it rises with more data somewhere")
    model = "pow4" if len(n) >= SIZES_FOR_POW4 else "pow3"
    before = _fit(model, n[:-2], y[None, :-2], se[:-2], n)[0][0]
    missed = np.abs(before[-2:] - y[-2:])
    allowed = np.maximum(2 * np.nan_to_num(se[-2:]), TOLERANCE * np.abs(y[-2:]))
    if (missed > allowed).any():
        worst = int(np.argmax(missed / np.maximum(allowed, 1e-300)))
        return Refusal(
            column,
            f"back-testing fails: from the smaller sizes, {before[-2:][worst]:.3g} is predicted at "
            f"{n[-2:][worst]:g} examples, measured was {y[-2:][worst]:.3g}",
        )
    n_max = int(n[-1])
    targets = np.unique(np.round(np.concatenate([n, np.geomspace(n[0], REACH * n_max, 60)])))
    table = _band(model, n, y, se, targets, float(missed.max()))
    best = _fit(model, n, y[None], se, n)
    relative = float((missed / np.maximum(np.abs(y[-2:]), 1e-300)).max())
    return Extrapolation(column, model, best[1], table, len(n), n_max, relative)


def standard_errors(curve: pd.DataFrame, column: str) -> np.ndarray:
    """Return the standard errors of a column, as half the half-width of its 95 % intervals; NaN without an interval.

    So "two standard errors" are the half-width itself, a little more than two for the t intervals of few replicas.
    """
    half = (number_column(curve, f"{column}_hi") - number_column(curve, f"{column}_lo")).to_numpy() / 2
    return np.where(half >= 0, half / 2, np.nan)


def _band(model: str, n: np.ndarray, y: np.ndarray, se: np.ndarray, targets: np.ndarray, missed: float) -> pd.DataFrame:
    fits = {name: _fit(name, n, y[None], se, targets)[0][0] for name in MODELS}
    value = fits[model]
    spread = np.max([np.abs(other - value) for other in fits.values()], axis=0)
    rest = y - _fit(model, n, y[None], se, n)[0][0]
    scatter = math.sqrt(float((rest**2).sum()) / max(len(n) - 3, 1))
    errors = np.where(np.isfinite(se), se, scatter)
    draws = y + errors * generator(0, "analysis", len(n)).standard_normal((N_DRAWS, len(n)))
    drawn_se = _fit(model, n, draws, se, targets)[0].std(axis=0, ddof=1)
    half = spread + missed + 2 * np.maximum(drawn_se, errors[-1])
    return pd.DataFrame({
        "n_train": targets.astype(int), "value": value, "lo": np.maximum(value - half, 0.0), "hi": value + half,
        "extrapolated": targets > n[-1],
    })  # fmt: skip


def _fit(
    model: str, n: np.ndarray, y_BS: np.ndarray, se: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the predictions (B, T) of the best fit to each row of y, and the parameters of the first row's fit."""
    usable = np.isfinite(se).all() and (se > 0).all()
    weight = 1 / np.maximum(se, 0.05 * se.max()) ** 2 if usable else np.ones(len(n))
    weight = weight / weight.sum()
    unit = float(np.median(n))
    g_KS, names = MODELS[model](n, unit)
    g_KT, _ = MODELS[model](targets, unit)
    # α + β·g: weighted least squares with α, β ≥ 0, for every point k of the grid and every row b
    mean_g, mean_y = g_KS @ weight, y_BS @ weight
    apart_g, apart_y = g_KS - mean_g[:, None], y_BS - mean_y[:, None]
    spread_g, spread_y = (apart_g**2) @ weight, (apart_y**2) @ weight
    cross = (apart_y * weight) @ apart_g.T
    slope_only = np.maximum(((y_BS * weight) @ g_KS.T) / np.maximum((g_KS**2) @ weight, 1e-300), 0.0)
    beta = np.maximum(cross / np.maximum(spread_g, 1e-300), 0.0)  # (B, K)
    alpha = mean_y[:, None] - beta * mean_g[None, :]
    beta, alpha = np.where(alpha < 0, slope_only, beta), np.maximum(alpha, 0.0)
    shift = mean_y[:, None] - alpha - beta * mean_g[None, :]
    error = shift**2 + spread_y[:, None] - 2 * beta * cross + beta**2 * spread_g[None, :]
    best, rows = error.argmin(axis=1), np.arange(len(y_BS))
    predicted = alpha[rows, best][:, None] + beta[rows, best][:, None] * g_KT[best]
    k = int(best[0])
    parameters = {"alpha": float(alpha[0, k]), "beta": float(beta[0, k])}
    parameters["beta"] *= unit ** float(names["c"][k]) if model != "mmf4" else 1.0  # from units of `unit` to examples
    return predicted, parameters | {name: float(values[k]) for name, values in names.items()}


def n_needed(extrapolation: Extrapolation | Refusal, target: float) -> Needed:
    """Return how many training examples bring the column down to `target`, with the range that the band allows."""
    if isinstance(extrapolation, Refusal):
        return Needed(target, None, None, None, f"not known: {extrapolation.reason}")
    table = extrapolation.table

    def first(column: str) -> int | None:
        reached = table[table[column] <= target]
        return None if reached.empty else int(reached["n_train"].iloc[0])

    n, n_lo, n_hi = first("value"), first("lo"), first("hi")
    limit = int(REACH * extrapolation.n_max)
    what = f"{extrapolation.column} {num(target)}"
    if n is None:
        text = f"{what} is not reached by {limit} examples"
        text += f" (lower end of the band: from {n_lo} on)" if n_lo is not None else ""
    else:
        text = f"{what} is reached near {n} examples (band {n_lo} to {n_hi if n_hi is not None else f'over {limit}'})"
    return Needed(target, n, n_lo, n_hi, text)
