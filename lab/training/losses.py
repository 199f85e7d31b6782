"""What training minimises, and the three measures of error that every evaluation records.

Shape suffixes: R replicas, B batch, N examples, C classes.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def summed_cross_entropy(logits_RBC: Tensor, labels_RB: Tensor) -> Tensor:
    """Return the sum over replicas of each replica's mean cross-entropy over its batch (nats)."""
    total = F.cross_entropy(logits_RBC.flatten(0, 1), labels_RB.flatten(), reduction="sum")
    return total / labels_RB.shape[1]


class Errors(NamedTuple):
    """Means over examples for each replica, shape (R,), float64."""

    loss: Array  # cross-entropy in nats
    risk: Array  # Brier score: squared distance from the one-hot label, summed over classes, 0 to 2
    error: Array  # share of examples whose most probable class is wrong; ties share the blame evenly


def errors(logits_RNC: Tensor, labels_RN: NDArray[np.int64]) -> tuple[Errors, Array]:
    """Return the errors of each replica and its probabilities (R, N, C), in float64 on the CPU.

    Args:
        logits_RNC: Logits, any device.
        labels_RN: Labels; may be of shape (1, N) when all replicas share them.
    """
    logits = logits_RNC.detach().to("cpu", torch.float64)
    log_probabilities = torch.log_softmax(logits, dim=-1).numpy()
    probabilities = np.exp(log_probabilities)
    labels = np.broadcast_to(labels_RN, probabilities.shape[:2])[..., None]
    log_right = np.take_along_axis(log_probabilities, labels, axis=-1)[..., 0]
    right = np.take_along_axis(probabilities, labels, axis=-1)[..., 0]
    brier = 1 - 2 * right + np.einsum("rnc,rnc->rn", probabilities, probabilities)
    top = log_probabilities == log_probabilities.max(axis=-1, keepdims=True)
    correct = np.take_along_axis(top, labels, axis=-1)[..., 0] / np.maximum(top.sum(axis=-1), 1)
    correct = np.where(np.isfinite(log_right), correct, np.nan)
    return Errors(-log_right.mean(axis=1), brier.mean(axis=1), 1 - correct.mean(axis=1)), probabilities
