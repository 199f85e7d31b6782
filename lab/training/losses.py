"""What training minimises, and the three measures of error that every evaluation records.

Every training loss is the expectation, over the target distribution q of an example, of a loss ℓ_c at class c:
Σ_c w_c q_c ℓ_c(p), summed over the batch and divided by Σ w_c q_c. The target of a label is one-hot; mixed images bring
their own; label smoothing moves ε of it to all classes alike (and leaves the divisor as it was, as torch does).
Training needs the gradient alone, so that is what is here: with g_c the derivative with respect to log p_c, that with
respect to the logits is g − p Σ_c g_c.

Shape suffixes: R replicas, B batch, N examples, C classes. The bits of a replica do not depend on its place in a pack:
softmax takes a replica at a time. Few classes are an axis of rows, (R, C, B), where a row of them alone would be less
than a vector.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.knobs import TrialConfig
from lab.models.layout import VECTOR

Array = NDArray[np.float64]


def _cross_entropy(log_p_RCB: Tensor, p_RCB: Tensor, share_RCB: Tensor, gamma_R11: Tensor) -> Tensor:
    """ℓ_c = −log p_c."""
    return -share_RCB


def _brier(log_p_RCB: Tensor, p_RCB: Tensor, share_RCB: Tensor, gamma_R11: Tensor) -> Tensor:
    """ℓ_c = ‖e_c − p‖² = 1 − 2 p_c + Σ p² (Brier 1950)."""
    return 2 * p_RCB * (p_RCB * share_RCB.sum(1, keepdim=True) - share_RCB)


def _focal(log_p_RCB: Tensor, p_RCB: Tensor, share_RCB: Tensor, gamma_R11: Tensor) -> Tensor:
    """ℓ_c = −(1 − p_c)^γ log p_c (Lin et al. 2017): what is right already counts less."""
    # at 1 − p = 0 the derivative of a power below 1 is infinite
    miss_RCB = -torch.expm1(log_p_RCB).clamp_max(-torch.finfo(p_RCB.dtype).eps)
    return share_RCB * miss_RCB ** (gamma_R11 - 1) * (gamma_R11 * p_RCB * log_p_RCB - miss_RCB)


# (log p, p, w q / Σ w q, γ) → the derivative of Σ_c w_c q_c ℓ_c / Σ w q with respect to log p
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "brier": _brier,
    "focal": _focal,
}


def balanced_weights(counts_RC: Tensor) -> Tensor:
    """Return class weights (R, C) under which all classes present in a training set count alike; 0 for absent ones.

    w_c = n / (C' · n_c) for the C' classes that there are, as scikit-learn's "balanced": Σ_c n_c w_c = n.
    """
    present_RC = counts_RC > 0
    n_R1 = counts_RC.sum(dim=1, keepdim=True)
    weights_RC = n_R1 / (present_RC.sum(dim=1, keepdim=True) * counts_RC.clamp_min(1))
    return torch.where(present_RC, weights_RC, 0)


class Criterion:
    """The training loss of R replicas, each with its own parameters."""

    def __init__(self, loss: str, smoothing_R: Tensor, gamma_R: Tensor, class_weights_RC: Tensor | None = None) -> None:
        """Take the loss by name and what each replica makes of it.

        Args:
            loss: One of `LOSSES`.
            smoothing_R: The share ε of the target that goes to all classes alike (Szegedy et al. 2016).
            gamma_R: The exponent of the focal loss.
            class_weights_RC: See `balanced_weights`; None weighs all classes alike.

        Raises:
            ValueError: The loss is unknown.
        """
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}: choose one of {', '.join(LOSSES)}")
        self.loss = loss
        self.smoothing_R, self.gamma_R, self.class_weights_RC = smoothing_R, gamma_R, class_weights_RC
        self._is_smooth = bool(smoothing_R.any())

    @classmethod
    def of(cls, configs_R: Sequence[TrialConfig], counts_RC: Tensor, dtype: torch.dtype) -> "Criterion":
        """Return the loss of replicas of these configurations, which share its kind.

        `counts_RC` says how many examples of each class are in a replica's training set.
        """
        kwargs: Any = {"device": counts_RC.device, "dtype": dtype}
        weights_RC = None
        if any(config.class_weights == "balanced" for config in configs_R):
            balanced_R1 = torch.tensor([[config.class_weights == "balanced"] for config in configs_R])
            weights_RC = torch.where(balanced_R1.to(counts_RC.device), balanced_weights(counts_RC.to(dtype)), 1)
        smoothing_R = torch.tensor([config.label_smoothing for config in configs_R], **kwargs)
        gamma_R = torch.tensor([config.focal_gamma for config in configs_R], **kwargs)
        return cls(configs_R[0].loss, smoothing_R, gamma_R, weights_RC)

    def keep(self, replicas: Tensor) -> None:
        """Go on with these replicas alone."""
        self.smoothing_R, self.gamma_R = self.smoothing_R[replicas], self.gamma_R[replicas]
        if self.class_weights_RC is not None:
            self.class_weights_RC = self.class_weights_RC[replicas]

    @torch.no_grad()
    def gradient(self, logits_RBC: Tensor, targets: Tensor) -> Tensor:
        """Return the gradient of the sum over replicas of each one's mean loss over its batch.

        Args:
            logits_RBC: Logits, with respect to which it is.
            targets: Labels (R, B), or distributions over the classes (R, B, C).
        """
        weights_RC, smoothing_R = self.class_weights_RC, self.smoothing_R if self._is_smooth else None
        if self.loss == "cross_entropy" and weights_RC is None:
            return cross_entropy_gradient(logits_RBC, targets, smoothing_R)
        _, B, C = logits_RBC.shape
        log_p_RCB, p_RCB = (_along_classes(f, logits_RBC) for f in (torch.log_softmax, torch.softmax))
        if targets.dim() == 2:
            q_RCB = torch.zeros_like(p_RCB).scatter_(1, targets.unsqueeze(1), 1.0)
        else:
            q_RCB = targets.mT.to(p_RCB.dtype)
        share_RCB = q_RCB if smoothing_R is None else q_RCB + smoothing_R.view(-1, 1, 1) * (1 / C - q_RCB)
        if weights_RC is None:
            share_RCB = share_RCB / B
        else:
            weights_RC1 = weights_RC.unsqueeze(2)
            total_R11 = (q_RCB * weights_RC1).sum((1, 2), keepdim=True)
            # a replica whose batch holds no class that counts has nothing to learn from it
            share_RCB = share_RCB * weights_RC1 / total_R11.clamp_min(torch.finfo(p_RCB.dtype).tiny)
        of_log_RCB = LOSSES[self.loss](log_p_RCB, p_RCB, share_RCB, self.gamma_R.view(-1, 1, 1))
        return (of_log_RCB - p_RCB * of_log_RCB.sum(1, keepdim=True)).mT.to(logits_RBC.dtype)


def _along_classes(function: Callable[..., Tensor], logits_RBC: Tensor) -> Tensor:
    """Return softmax or its logarithm (R, C, B), in float32 at the least; it lies in memory as is fast."""
    logits_RCB, dtype = logits_RBC.mT, torch.promote_types(logits_RBC.dtype, torch.float32)
    if logits_RBC.device.type == "cpu" and logits_RBC.shape[2] < VECTOR:
        logits_RCB = logits_RCB.contiguous()
    return function(logits_RCB, 1, dtype) if logits_RCB.is_contiguous() else function(logits_RBC, 2, dtype).mT


@torch.no_grad()
def cross_entropy_gradient(logits_RBC: Tensor, targets: Tensor, smoothing_R: Tensor | None = None) -> Tensor:
    """Return the gradient of Σ over replicas of each one's mean cross-entropy over its batch: (p − q) / B.

    Targets are labels (R, B) or distributions over the classes (R, B, C), of which `smoothing_R` moves a share to all
    classes alike.
    """
    R, B, C = logits_RBC.shape
    p_RCB = _along_classes(torch.softmax, logits_RBC)
    minus_R11 = p_RCB.new_full((1, 1, 1), -1.0) if smoothing_R is None else (smoothing_R - 1).view(-1, 1, 1)
    if targets.dim() == 2:
        p_RCB.scatter_add_(1, targets.unsqueeze(1), minus_R11.expand(R, 1, B))
    else:
        p_RCB.addcmul_(targets.mT, minus_R11)
    if smoothing_R is not None:
        p_RCB -= (smoothing_R / C).view(-1, 1, 1)
    return p_RCB.div_(B).mT.to(logits_RBC.dtype)


class Errors(NamedTuple):
    """Means over examples for each replica, shape (R,), float64."""

    loss: Array  # cross-entropy in nats
    risk: Array  # Brier score: squared distance from the one-hot label, summed over classes, 0 to 2
    error: Array  # share of examples whose most probable class is wrong; ties share the blame evenly


def errors(logits_RNC: Tensor, labels_RN: NDArray[np.int64]) -> tuple[Errors, Array]:
    """Return the errors of each replica and its log probabilities (R, N, C), in float64 on the CPU.

    Args:
        logits_RNC: Logits, any device.
        labels_RN: Labels; may be of shape (1, N) when all replicas share them.
    """
    logits = logits_RNC.detach().to("cpu", torch.promote_types(logits_RNC.dtype, torch.float32)).numpy()
    R, N, C = logits.shape
    z_CRN = np.empty((C, R, N))  # sums over few classes are fast if examples lie side by side
    np.copyto(z_CRN, np.moveaxis(logits, -1, 0))
    with np.errstate(invalid="ignore"):  # of a replica that has diverged
        z_CRN -= z_CRN.max(axis=0)
    place_RN = np.arange(R * N).reshape(R, N) + np.broadcast_to(labels_RN, (R, N)) * (R * N)  # of the label's values
    right_RN = z_CRN.take(place_RN)
    n_top = (z_CRN == 0).view(np.uint8).sum(axis=0, dtype=np.uint32)
    correct = (right_RN == 0) / np.maximum(n_top, 1)
    e_CRN = np.exp(z_CRN)
    sum_RN = e_CRN.sum(axis=0)
    log_sum_RN = np.log(sum_RN)
    loss = log_sum_RN - right_RN
    brier = 1 - (2 * e_CRN.take(place_RN) - np.einsum("crn,crn->rn", e_CRN, e_CRN) / sum_RN) / sum_RN
    correct = np.where(np.isfinite(loss), correct, np.nan)
    z_CRN -= log_sum_RN
    of_each = Errors(loss.mean(axis=1), brier.mean(axis=1), 1 - correct.mean(axis=1))
    return of_each, np.moveaxis(z_CRN, 0, -1)
