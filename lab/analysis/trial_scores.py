"""The usual scores of a classifier as numbers that are tracked: means over the replicas of a trial, with intervals.

The Brier score and the error are in the decomposition, with other names: `risk` and `error`.
"""

import math

import numpy as np

from lab.analysis.classification import Replicas, interval_of, overall, prepare
from lab.analysis.confidence import ranked

TRACKED = ("accuracy", "balanced_accuracy", "macro_precision", "macro_f1", "log_loss", "ece",
           "worst_class_precision", "worst_class_recall", "worst_class_f1")  # fmt: skip


def scores(
    probabilities_DINC: np.ndarray, labels_N: np.ndarray, diverged_R: np.ndarray, *, level: float = 0.95
) -> dict[str, float]:
    """Return name → value, and name_lo and name_hi, of the scores `TRACKED` and of `auc`, on the test set.

    Balanced accuracy is macro recall. `auc` is the mean over classes of the area under the ROC curve of a class against
    all others, which is scikit-learn's `roc_auc_score(multi_class="ovr")`.

    Args:
        probabilities_DINC: Predictions of D·I replicas at N points.
        labels_N: The classes of the points.
        diverged_R: Replicas that are left out.
        level: Of the intervals.
    """
    gone_DI = np.asarray(diverged_R).reshape(probabilities_DINC.shape[:2])
    if gone_DI.all():
        return {}
    kept_DINC = np.where(gone_DI[:, :, None, None], np.float32(np.nan), probabilities_DINC)
    replicas = prepare(kept_DINC, labels_N)
    found = overall(replicas, level)
    values = {name: found[name] for name in TRACKED} | {"auc": _mean_area(replicas, level)}
    return {
        f"{name}{end}": float(value)
        for name, three in values.items()
        for end, value in zip(("", "_lo", "_hi"), three, strict=True)
        if math.isfinite(value)
    }


def _mean_area(replicas: Replicas, level: float) -> tuple[float, float, float]:
    counts = np.bincount(replicas.labels_N, minlength=replicas.n_classes)
    present = np.flatnonzero((counts > 0) & (counts < len(replicas.labels_N)))
    if not len(present) or not len(replicas.predicted_RN):
        return math.nan, math.nan, math.nan
    areas = [ranked(replicas.probabilities_RNC[:, :, c], replicas.labels_N == c) for c in present]
    area_R, influence_N = (np.mean(parts, axis=0) for parts in zip(*areas, strict=True))
    return interval_of(replicas, area_R, influence_N, level, 1.0)
