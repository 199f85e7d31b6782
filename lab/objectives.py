"""What a search minimises, and what a trial is judged by on the way: replicas that diverged count with the worst value.

Without that, a configuration that diverges on its hard resamples would look better than one that survives them.

Shape suffixes: D resamples, R replicas.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

WORST = {"risk": 2.0, "error": 1.0}  # of the Brier score summed over classes, and of the zero-one loss


def values(
    objective: str | list[str],
    metrics: Mapping[str, np.ndarray],
    diverged_R: np.ndarray,
    validation: Mapping[str, Any] | None,
) -> list[float]:
    """Return what the search minimises: a mean over replicas, or a pair of parts of the risk on the validation set.

    Args:
        objective: "val_risk", "val_error", or names of parts.
        metrics: name → (R,), at the end.
        diverged_R: Which replicas have diverged.
        validation: The parts on the validation set; None if no replica is left.
    """
    if isinstance(objective, str):
        return [float(_judged(objective, metrics, diverged_R).mean())]
    share = float(np.mean(diverged_R))
    terms = [None if validation is None else validation[name] for name in objective]
    return [WORST["risk"] if term is None else (1 - share) * term + share * WORST["risk"] for term in terms]


def by_resample(
    objective: str, metrics: Mapping[str, np.ndarray], diverged_R: np.ndarray, n_resamples: int
) -> tuple[float, ...]:
    """Return an objective on each training set, the mean over its replicas."""
    return tuple(_judged(objective, metrics, diverged_R).reshape(n_resamples, -1).mean(axis=1).tolist())


def _judged(objective: str, metrics: Mapping[str, np.ndarray], diverged_R: np.ndarray) -> np.ndarray:
    value_R = np.asarray(metrics[objective], dtype=np.float64)
    return np.where(diverged_R | ~np.isfinite(value_R), WORST[objective.removeprefix("val_")], value_R)
