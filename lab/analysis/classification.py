"""Which classes are mistaken for which, and the usual scores: means over replicas, with intervals.

Shapes: D data resamples, I initialisations, R replicas left after leaving out the diverged ones (NaN), N test points,
C classes. A replica's class is the argmax of its probabilities.

What the intervals cover: another set of replicas (training set and seed drawn anew: the crossed standard error of
`lab.analysis.training_curve.mean_over_replicas`) and another test set of the same size (infinitesimal jackknife over
the test points of the mean over replicas). The two variances are added; the replica scatter of single test points
enters both, so the sum errs on the wide side.

Conventions: precision of a class that a replica never predicts is 0 (scikit-learn's zero_division=0), and so is its
F1. A class without a test point has no recall, precision or F1 (NaN), and does not enter their means over classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from lab.analysis.training_curve import ReplicaMean, mean_over_replicas

N_BINS = 15  # of the calibration error; Guo et al. 2017
PER_CLASS = [
    "class", "name", "precision", "precision_lo", "precision_hi", "recall", "recall_lo", "recall_hi",
    "f1", "f1_lo", "f1_hi", "support", "n_replicas", "n_diverged",
]  # fmt: skip
SUMMARY = ["metric", "value", "lo", "hi", "n_replicas", "n_diverged", "covers"]
_RANGES = {
    "accuracy": 1.0, "balanced_accuracy": 1.0, "macro_precision": 1.0, "macro_f1": 1.0, "log_loss": math.inf,
    "brier": 2.0, "ece": 1.0,
}  # fmt: skip
_MACRO = {"balanced_accuracy": "recall", "macro_precision": "precision", "macro_f1": "f1"}


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix, rows the true classes: mean counts over replicas, and percentages of each row.

    The percentages of a class without a test point are NaN; with no replica left all is NaN.
    """

    counts_CC: np.ndarray
    percent_CC: np.ndarray
    n_replicas: int
    n_diverged: int


@dataclass(frozen=True)
class Replicas:
    """The replicas of one configuration that did not diverge, with the classes that they predict."""

    probabilities_RNC: np.ndarray  # float64, of the replicas that are left
    predicted_RN: np.ndarray
    labels_N: np.ndarray
    kept_DI: np.ndarray
    n_classes: int

    @property
    def n_diverged(self) -> int:
        """How many were left out."""
        return int(self.kept_DI.size - self.kept_DI.sum())

    def on_grid(self, values_R: np.ndarray) -> np.ndarray:
        """Return one number a replica as (D, I); NaN where a replica was left out."""
        values_DI = np.full(self.kept_DI.shape, math.nan)
        values_DI[self.kept_DI] = values_R
        return values_DI


def prepare(probabilities_DINC: np.ndarray, labels_N: np.ndarray, n_classes: int | None = None) -> Replicas:
    """Return the usable replicas of predictions (D, I, N, C); refuse shapes and labels that do not fit together.

    Draws of the label noise, (D, I, K, N, C), count as I·K seeds here.
    """
    if probabilities_DINC.ndim == 5:
        probabilities_DINC = probabilities_DINC.reshape(len(probabilities_DINC), -1, *probabilities_DINC.shape[3:])
    if probabilities_DINC.ndim != 4 or labels_N.shape != probabilities_DINC.shape[2:3]:
        raise ValueError(
            f"probabilities of shape {probabilities_DINC.shape} with labels of shape {labels_N.shape}: "
            "give (resamples, inits, points, classes) and (points,)"
        )
    if n_classes is not None and n_classes != probabilities_DINC.shape[3]:
        raise ValueError(f"probabilities of {probabilities_DINC.shape[3]} classes, but n_classes = {n_classes}")
    n_classes = probabilities_DINC.shape[3]
    if labels_N.size and not (0 <= labels_N.min() and labels_N.max() < n_classes):
        raise ValueError(f"labels run from {labels_N.min()} to {labels_N.max()}: give 0 to {n_classes - 1}")
    kept_DI = np.isfinite(probabilities_DINC).all(axis=(2, 3))
    if labels_N.size == 0:
        kept_DI = np.zeros_like(kept_DI)
    kept_RNC = probabilities_DINC[kept_DI].astype(np.float64)
    return Replicas(kept_RNC, kept_RNC.argmax(axis=2), labels_N.astype(np.int64), kept_DI, n_classes)


def confusion(probabilities_DINC: np.ndarray, labels_N: np.ndarray, n_classes: int | None = None) -> Confusion:
    """Return the confusion matrix (rows: true class), averaged over the replicas that did not diverge."""
    replicas = prepare(probabilities_DINC, labels_N, n_classes)
    n, n_classes = len(replicas.predicted_RN), replicas.n_classes
    if n == 0:
        empty = np.full((n_classes, n_classes), math.nan)
        return Confusion(empty, empty.copy(), 0, replicas.n_diverged)
    counts = _confusions(replicas).mean(axis=0)
    support = counts.sum(axis=1, keepdims=True)
    percent = np.where(support > 0, 100 * counts / np.maximum(support, 1e-300), math.nan)
    return Confusion(counts, percent, n, replicas.n_diverged)


def per_class(
    probabilities_DINC: np.ndarray,
    labels_N: np.ndarray,
    n_classes: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return precision, recall and F1 of each class: mean over replicas, interval, and the number of test points.

    Returns:
        Columns `PER_CLASS`, one row a class. The module's docstring says what the intervals cover.
    """
    replicas = prepare(probabilities_DINC, labels_N, n_classes)
    names = list(class_names) if class_names is not None else [str(c) for c in range(replicas.n_classes)]
    values_RC, influences = _scores(replicas), _influences(replicas)
    rows = []
    for c in range(replicas.n_classes):
        true_N = replicas.labels_N == c
        row: dict[str, object] = {"class": c, "name": names[c], "support": int(true_N.sum())}
        row |= {"n_replicas": len(replicas.predicted_RN), "n_diverged": replicas.n_diverged}
        for name, values in values_RC.items():
            value, lo, hi = math.nan, math.nan, math.nan
            if true_N.any():
                value, lo, hi = interval_of(replicas, values[:, c], influences[name][c], level, 1.0)
            row |= {name: value, f"{name}_lo": lo, f"{name}_hi": hi}
        rows.append(row)
    return pd.DataFrame(rows, columns=PER_CLASS)


def plain(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return a table as columns and rows of plain JSON values, None for NaN: a file that MLflow shows as a table."""
    columns = [[None if value != value else value for value in table[name].tolist()] for name in table]
    return {"columns": [*table.columns], "data": [[*row] for row in zip(*columns, strict=True)]}


def _confusions(replicas: Replicas) -> np.ndarray:
    """Return how many points of each class (second axis) each replica predicts as which (third), (R, C, C)."""
    n_replicas, n_classes = len(replicas.predicted_RN), replicas.n_classes
    cell_RN = (np.arange(n_replicas)[:, None] * n_classes + replicas.labels_N) * n_classes + replicas.predicted_RN
    counts = np.bincount(cell_RN.ravel(), minlength=n_replicas * n_classes**2)
    return counts.reshape(n_replicas, n_classes, n_classes).astype(np.float64)


def _counts(replicas: Replicas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many points of each class are predicted right, predicted at all, and there, each (R, C)."""
    counts_RCC = _confusions(replicas)
    return np.einsum("rcc->rc", counts_RCC), counts_RCC.sum(axis=1), counts_RCC.sum(axis=2)


def _scores(replicas: Replicas) -> dict[str, np.ndarray]:
    """Return precision, recall and F1, each (R, C)."""
    hit_RC, said_RC, true_RC = _counts(replicas)
    shares = {"precision": (hit_RC, said_RC), "recall": (hit_RC, true_RC), "f1": (2 * hit_RC, said_RC + true_RC)}
    return {name: np.divide(a, b, out=np.zeros_like(a), where=b > 0) for name, (a, b) in shares.items()}


def _influences(replicas: Replicas) -> dict[str, np.ndarray]:
    """Return each test point's influence on each class's scores, averaged over replicas, shape (C, N).

    Each score is a ratio A/B of sums over points; its derivative in the weight of point n is (a_n − (A/B)·b_n)/B,
    which is 0 but for the class of the point and the one that is predicted.
    """
    labels_N, said_RN, n_classes = replicas.labels_N, replicas.predicted_RN, replicas.n_classes
    n_replicas, n = said_RN.shape
    scores, (_, n_said_RC, n_true_RC) = _scores(replicas), _counts(replicas)
    row_R1, hit_RN = np.arange(n_replicas)[:, None], (said_RN == labels_N).astype(np.float64)
    true_RN = np.broadcast_to(labels_N, said_RN.shape)

    def summed(class_RN: np.ndarray, values_RN: np.ndarray) -> np.ndarray:
        """Return for each class and point the mean over replicas of the values that belong to the class."""
        cells = (class_RN * n + np.arange(n)).ravel()
        return np.bincount(cells, values_RN.ravel(), n_classes * n).reshape(n_classes, n) / max(n_replicas, 1)

    def share(name: str, class_RN: np.ndarray, below_RC: np.ndarray, gain: float) -> np.ndarray:
        return (gain * hit_RN - scores[name][row_R1, class_RN]) / below_RC[row_R1, class_RN]

    both_RC = n_said_RC + n_true_RC
    return {
        "precision": summed(said_RN, share("precision", said_RN, n_said_RC, 1.0)),
        "recall": summed(true_RN, share("recall", true_RN, n_true_RC, 1.0)),
        # a point that is hit counts twice in the numerator: once as one of those, once as one called so
        "f1": summed(said_RN, share("f1", said_RN, both_RC, 1.0)) + summed(true_RN, share("f1", true_RN, both_RC, 1.0)),
    }


def interval_of(
    replicas: Replicas, values_R: np.ndarray, influence_N: np.ndarray, level: float, ceiling: float
) -> tuple[float, float, float]:
    """Return mean, lower and upper end of a score; the ends are NaN with a single replica.

    Args:
        replicas: What was scored.
        values_R: The score of each replica.
        influence_N: The derivative of the mean score in the weight of each test point.
        level: Of the interval.
        ceiling: The greatest value that the score can have; the least is 0.
    """
    over: ReplicaMean = mean_over_replicas(replicas.on_grid(values_R))
    n = len(influence_N)
    if over.n < 2 or n < 2:
        return over.mean, math.nan, math.nan
    test_variance = float((influence_N**2).sum()) * n / (n - 1)
    variance = over.se**2 + test_variance
    below = over.se**4 / over.df + test_variance**2 / (n - 1)
    if not below > 0:
        return over.mean, over.mean, over.mean
    # as scipy.stats.t.ppf, a hundred times faster
    half = float(special.stdtrit(variance**2 / below, (1 + level) / 2)) * math.sqrt(variance)
    return over.mean, max(over.mean - half, 0.0), min(over.mean + half, ceiling)


def summary(
    probabilities_DINC: np.ndarray, labels_N: np.ndarray, n_classes: int | None = None, *, level: float = 0.95
) -> pd.DataFrame:
    """Return accuracy, macro scores, log loss, Brier score (summed over classes, 0…2) and expected calibration error.

    Balanced accuracy is the mean recall of the classes that have test points, and so is macro recall.
    The calibration error takes the confidence of the predicted class in 15 bins of equal width (Guo et al. 2017). It
    is a sum of absolute values, hence too large on average with few test points.

    Returns:
        Columns `SUMMARY`, one row a metric; `covers` says what the interval covers.
    """
    replicas = prepare(probabilities_DINC, labels_N, n_classes)
    n, n_test = len(replicas.predicted_RN), len(replicas.labels_N)
    n_resamples, n_inits = replicas.kept_DI.shape
    covers = f"{level:.0%}: new training sets and seeds ({n_resamples} × {n_inits}), new test sets ({n_test} points)"
    measured = overall(replicas, level)
    rows = []
    for name in _RANGES:
        value, lo, hi = measured.get(name, (math.nan, math.nan, math.nan))
        rows.append({"metric": name, "value": value, "lo": lo, "hi": hi, "n_replicas": n,
                     "n_diverged": replicas.n_diverged, "covers": covers})  # fmt: skip
    return pd.DataFrame(rows, columns=SUMMARY)


def overall(replicas: Replicas, level: float) -> dict[str, tuple[float, float, float]]:
    """Return name → value and the ends of its interval, of the scores of `summary` and of the worst class.

    `worst_class_f1` and so on are those of the class of which the mean over replicas is least: chosen for being low,
    so rather too low than too high. Nothing without a replica.
    """
    if not len(replicas.predicted_RN):
        return {}
    scored = _summary_scores(replicas)
    return {name: interval_of(replicas, *parts, level, _RANGES.get(name, 1.0)) for name, parts in scored.items()}


def _summary_scores(replicas: Replicas) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, for each metric of `overall`, its value in each replica (R,) and each test point's influence (N,)."""
    labels_N, p_RNC = replicas.labels_N, replicas.probabilities_RNC
    n_test = len(labels_N)
    right_RN = (replicas.predicted_RN == labels_N).astype(np.float64)
    true_RN = p_RNC[:, np.arange(n_test), labels_N]
    losses = {
        "accuracy": right_RN,
        "log_loss": -np.log(np.clip(true_RN, np.finfo(np.float32).eps, 1.0)),  # predictions are stored as float32
        "brier": 1 - 2 * true_RN + np.einsum("rnc,rnc->rn", p_RNC, p_RNC),
    }
    result = {name: (x.mean(axis=1), (x - x.mean(axis=1, keepdims=True)).mean(axis=0) / n_test)
              for name, x in losses.items()}  # fmt: skip
    present = np.unique(labels_N)
    by_class, influences = _scores(replicas), _influences(replicas)
    for name, score in _MACRO.items():
        result[name] = by_class[score][:, present].mean(axis=1), influences[score][present].mean(axis=0)
    for score, values_RC in by_class.items():
        worst = present[values_RC[:, present].mean(axis=0).argmin()]
        result[f"worst_class_{score}"] = values_RC[:, worst], influences[score][worst]
    result["ece"] = _calibration(p_RNC.max(axis=2), right_RN)
    return result


def _calibration(confidence_RN: np.ndarray, right_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n_test = confidence_RN.shape[1]
    gap_RN = right_RN - confidence_RN
    # bins (0, 1/15], (1/15, 2/15] …, as in Guo et al.
    bin_RN = np.clip(np.ceil(confidence_RN * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    cell_RN = np.arange(len(gap_RN))[:, None] * N_BINS + bin_RN
    sum_RB = np.bincount(cell_RN.ravel(), gap_RN.ravel(), len(gap_RN) * N_BINS).reshape(-1, N_BINS)
    values_R = np.abs(sum_RB).sum(axis=1) / n_test
    signed_RN = np.sign(np.take_along_axis(sum_RB, bin_RN, axis=1)) * gap_RN
    return values_R, (signed_RN - values_R[:, None]).mean(axis=0) / n_test
