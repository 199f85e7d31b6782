"""What training a trial gave, and what of it counts: replicas that diverged are NaN.

Legend: D resamples, I initialisations, R = D·I replicas (replica r = d·I + i), N points, C classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lab.growth import Growth
    from lab.replication import Replication

SPLITS = ("train", "val", "test")
SCORES = ("loss", "risk", "error")
LEVEL = 0.95


@dataclass(frozen=True)
class Snapshot:
    """Scores of the replicas at one evaluation, by name as in `train_risk`, and which of them have diverged.

    `signals` are those of lab.training.health, where they were measured.
    """

    epoch: int
    metrics: Mapping[str, np.ndarray]
    diverged_R: np.ndarray
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What training a trial gave."""

    n_parameters: int
    replication: "Replication"  # as it was carried out: with the replicas of a trial that grew
    snapshots: list[Snapshot]
    decompositions: list[dict[str, Any] | None]  # on the test set, one a snapshot; None: no replica is left
    validation: dict[str, Any] | None  # at the end
    log_probabilities_DINC: np.ndarray  # on the test set, at the end
    shifted: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)  # the same under attack …
    losses: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)  # of other losses, on the test set
    seconds: float = math.nan  # of training, over all attempts that went on from another
    growth: "Growth | None" = None
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)  # at the end, see lab.training.scores.Evaluation
    timed: Mapping[str, float] = field(default_factory=dict)  # of a variant, see lab.timing
    start: Mapping[str, Any] = field(default_factory=dict)  # the digest of the weights that it began with, their number

    @cached_property
    def probabilities_DINC(self) -> np.ndarray:
        """Final predictions on the test set."""
        return np.exp(self.log_probabilities_DINC)


def alive(step: Snapshot, name: str) -> np.ndarray:
    """Return a score of each replica, NaN for those that diverged."""
    value_R = np.asarray(step.metrics[name], dtype=np.float64)
    return np.where(step.diverged_R | ~np.isfinite(value_R), np.nan, value_R)


def kept(trained: Trained, values: np.ndarray) -> np.ndarray:
    """Return values of the final predictions as (D, I, N, C), NaN for replicas that diverged.

    With K draws of the label noise the second axis has I·K places, i·K + k; `lab.history` takes them apart again.
    """
    gone = trained.snapshots[-1].diverged_R.reshape(*values.shape[:-2], 1, 1)
    kept = np.where(gone, values.dtype.type(np.nan), values)
    return kept.reshape(values.shape[0], -1, *values.shape[-2:])
