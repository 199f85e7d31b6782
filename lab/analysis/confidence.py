"""What predicted probabilities are worth: do they rank (ROC), and can they be taken at their word (reliability)?

Shapes: D data resamples, I initialisations, R replicas left after leaving out the diverged ones (NaN), N test points,
C classes, G points of a grid, B bins. Intervals cover new replicas and a new test set, as in
`lab.analysis.classification`: crossed standard error over replicas, infinitesimal jackknife over test points.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.analysis.classification import N_BINS, interval_of, prepare
from lab.analysis.training_curve import mean_over_replicas

AUC = ["class", "name", "auc", "auc_lo", "auc_hi", "support", "n_replicas"]
ROC = ["class", "name", "fpr", "tpr", "tpr_lo", "tpr_hi"]
RELIABILITY = ["bin", "confidence", "accuracy", "accuracy_lo", "accuracy_hi", "share", "n_predictions"]
GRID = np.concatenate([[0.0], np.geomspace(0.002, 1.0, 40)])  # false-positive rates: most of a good curve lies near 0


def areas(
    probabilities_DINC: np.ndarray, labels_N: np.ndarray, *, class_names: Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """Return the area under the ROC curve of each class against all others: mean over replicas, with interval.

    The area is the share of pairs (one test point of the class, one of the others) that a replica puts in the right
    order, ties counted half (Mann & Whitney); its part of the interval for the test set is DeLong's (1988).

    Returns:
        Columns `AUC`, one row a class; NaN for a class without a test point, or with nothing else.
    """
    replicas = prepare(probabilities_DINC, labels_N)
    names = [str(c) for c in range(replicas.n_classes)] if class_names is None else list(class_names)
    rows: list[dict[str, object]] = []
    for c in range(replicas.n_classes):
        true_N = replicas.labels_N == c
        row = {"class": c, "name": names[c], "support": int(true_N.sum()), "n_replicas": len(replicas.predicted_RN)}
        area = (math.nan, math.nan, math.nan)
        if len(replicas.predicted_RN) and 0 < true_N.sum() < len(true_N):
            values_R, influence_N = ranked(replicas.probabilities_RNC[:, :, c], true_N)
            area = interval_of(replicas, values_R, influence_N, level, 1.0)
        rows.append(row | dict(zip(("auc", "auc_lo", "auc_hi"), area, strict=True)))
    return pd.DataFrame(rows, columns=AUC)


def ranked(score_RN: np.ndarray, true_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the area of each replica (R,), and the influence of each test point on their mean (N,)."""
    n_true, n = int(true_N.sum()), len(true_N)
    order_RN = score_RN.argsort(axis=1)
    sorted_RN = np.take_along_axis(score_RN, order_RN, axis=1)
    true_RN = true_N[order_RN]
    upto_RN = true_RN.cumsum(axis=1)
    # of points of the class, those below and half of those that are equal; of points before, the same
    true_below_RN, before_RN = upto_RN - true_RN / 2, np.arange(n) + 0.5
    same_RN = sorted_RN[:, 1:] == sorted_RN[:, :-1]
    if same_RN.any():
        true_below_RN, before_RN = _among_equals(same_RN, upto_RN)
    other_below_RN = before_RN - true_below_RN
    sorted_right_RN = np.where(true_RN, other_below_RN / (n - n_true), 1 - true_below_RN / n_true)
    right_RN = np.empty_like(sorted_right_RN)
    np.put_along_axis(right_RN, order_RN, sorted_right_RN, axis=1)
    area_R = right_RN[:, true_N].mean(axis=1)
    count_N = np.where(true_N, n_true, n - n_true)
    return area_R, ((right_RN - area_R[:, None]) / count_N).mean(axis=0)


def _among_equals(same_RN: np.ndarray, upto_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is below each place in the order if equals count half: points of the class, and all points.

    Args:
        same_RN: Whether a place has the score of the one before it, from the second on.
        upto_RN: Points of the class up to each place.
    """
    n_replicas, n = upto_RN.shape
    edge_R1 = np.ones((n_replicas, 1), bool)
    # equals stand next to each other: each of them gets the place of the first and of the last of its kind
    begins_RN, ends_RN = np.hstack([edge_R1, ~same_RN]), np.hstack([~same_RN, edge_R1])
    first_RN = np.maximum.accumulate(np.where(begins_RN, np.arange(n), 0), axis=1)
    last_RN = np.minimum.accumulate(np.where(ends_RN, np.arange(n), n)[:, ::-1], axis=1)[:, ::-1]
    below_RN = np.hstack([np.zeros((n_replicas, 1), int), upto_RN])
    true_below_RN = (np.take_along_axis(below_RN, first_RN, 1) + np.take_along_axis(below_RN, last_RN + 1, 1)) / 2
    return true_below_RN, (first_RN + last_RN + 1) / 2


def roc(
    probabilities_DINC: np.ndarray, labels_N: np.ndarray, *, class_names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the ROC curve of each class against all others: mean true-positive rate over replicas on a grid of rates.

    The band is ±2 standard errors over replicas (vertical averaging, Fawcett 2006).

    Returns:
        Columns `ROC`, G rows a class; a class without a test point, or with nothing else, has none.
    """
    replicas = prepare(probabilities_DINC, labels_N)
    names = [str(c) for c in range(replicas.n_classes)] if class_names is None else list(class_names)
    tables = []
    for c in range(replicas.n_classes):
        true_N = replicas.labels_N == c
        if not len(replicas.predicted_RN) or not 0 < true_N.sum() < len(true_N):
            continue
        curve_RG = np.array([_curve(score_N, true_N) for score_N in replicas.probabilities_RNC[:, :, c]])
        over = [mean_over_replicas(replicas.on_grid(values_R)) for values_R in curve_RG.T]
        mean_G, se_G = np.array([m.mean for m in over]), np.array([m.se for m in over])
        tables.append(pd.DataFrame({
            "class": c, "name": names[c], "fpr": GRID, "tpr": mean_G,
            "tpr_lo": np.clip(mean_G - 2 * se_G, 0, 1), "tpr_hi": np.clip(mean_G + 2 * se_G, 0, 1),
        }))  # fmt: skip
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=ROC)


def _curve(score_N: np.ndarray, true_N: np.ndarray) -> np.ndarray:
    """Return the true-positive rate at each false-positive rate of the grid; points of equal score move together."""
    order = np.argsort(-score_N, kind="stable")
    last_of_ties = np.append(np.diff(score_N[order]) != 0, True)
    tpr = np.concatenate([[0.0], np.cumsum(true_N[order])[last_of_ties] / true_N.sum()])
    fpr = np.concatenate([[0.0], np.cumsum(~true_N[order])[last_of_ties] / (~true_N).sum()])
    rates_G = np.interp(GRID, fpr, tpr)
    rates_G[0] = tpr[fpr == 0].max()
    return rates_G


def reliability(
    probabilities_DINC: np.ndarray, labels_N: np.ndarray, *, n_bins: int = N_BINS, level: float = 0.95
) -> pd.DataFrame:
    """Return how often predictions of some confidence are right: one row a bin of confidence that holds any.

    The predictions of all replicas are put together; `confidence` is the mean probability of the predicted class in
    the bin, `accuracy` the share that is right, `share` that of all predictions.

    Returns:
        Columns `RELIABILITY`; bins of equal width, (0, 1/B], (1/B, 2/B] … as in Guo et al. 2017.
    """
    replicas = prepare(probabilities_DINC, labels_N)
    confidence_RN = replicas.probabilities_RNC.max(axis=2)
    right_RN = (replicas.predicted_RN == replicas.labels_N).astype(np.float64)
    bin_RN = np.clip(np.ceil(confidence_RN * n_bins).astype(int) - 1, 0, n_bins - 1)
    rows = []
    for b in range(n_bins):
        inside_RN = bin_RN == b
        n = int(inside_RN.sum())
        if not n:
            continue
        accuracy = float(right_RN[inside_RN].mean())
        # accuracy is a ratio of sums; its derivative in the weight of a prediction is (right − accuracy)/n
        influence_RN = np.where(inside_RN, (right_RN - accuracy) / n, 0.0)
        values_R = accuracy + len(influence_RN) * influence_RN.sum(axis=1)
        _, lo, hi = interval_of(replicas, values_R, influence_RN.sum(axis=0), level, 1.0)
        rows.append({
            "bin": b, "confidence": float(confidence_RN[inside_RN].mean()), "accuracy": accuracy, "accuracy_lo": lo,
            "accuracy_hi": hi, "share": n / inside_RN.size, "n_predictions": n,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=RELIABILITY)
