"""What training minimises, and the three measures of error that every evaluation records.

Every training loss is the expectation, over the target distribution q of an example, of a loss ℓ_c at class c:
Σ_c w_c q_c ℓ_c(p), summed over the batch and divided by Σ w_c q_c. The target of a label is one-hot; mixed images bring
their own; label smoothing moves ε of it to all classes alike (and leaves the divisor as it was, as torch does).

Shape suffixes: R replicas, B batch, N examples, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from lab.knobs import TrialConfig
from lab.models.layout import WHOLE

Array = NDArray[np.float64]
VECTOR = 16  # values of float32 that a processor computes at once


def _cross_entropy(log_p_RBC: Tensor, gamma_R11: Tensor) -> Tensor:
    return -log_p_RBC


def _brier(log_p_RBC: Tensor, gamma_R11: Tensor) -> Tensor:
    """Return ‖e_c − p‖² = 1 − 2 p_c + Σ p² (Brier 1950)."""
    p_RBC = log_p_RBC.exp()
    return 1 - 2 * p_RBC + p_RBC.square().sum(dim=-1, keepdim=True)


def _focal(log_p_RBC: Tensor, gamma_R11: Tensor) -> Tensor:
    """Return −(1 − p_c)^γ log p_c (Lin et al. 2017): what is right already counts less."""
    # at 1 − p = 0 the derivative of a power below 1 is infinite
    miss_RBC = (-torch.expm1(log_p_RBC)).clamp_min(torch.finfo(log_p_RBC.dtype).eps)
    return -(miss_RBC**gamma_R11) * log_p_RBC


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
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
    """The training loss of R replicas, each with its own parameters: their sum, as `Pack.differentiate` wants it."""

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
        self._is_plain = loss == "cross_entropy" and class_weights_RC is None and not bool(smoothing_R.any())

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

    def __call__(self, logits_RBC: Tensor, targets: Tensor) -> Tensor:
        """Return the sum over replicas of each one's mean loss over its batch.

        Args:
            logits_RBC: Logits.
            targets: Labels (R, B), or distributions over the classes (R, B, C).
        """
        if self._is_plain and targets.dim() == 2:
            return summed_cross_entropy(logits_RBC, targets)
        n_classes = logits_RBC.shape[-1]
        q_RBC = F.one_hot(targets, n_classes).to(logits_RBC.dtype) if targets.dim() == 2 else targets
        smoothing_R11 = self.smoothing_R[:, None, None]
        smooth_RBC = q_RBC + smoothing_R11 * (1 / n_classes - q_RBC)
        loss_RBC = LOSSES[self.loss](torch.log_softmax(logits_RBC, dim=-1), self.gamma_R[:, None, None])
        if self.class_weights_RC is None:
            return (smooth_RBC * loss_RBC).sum() / q_RBC.shape[1]
        weights_R1C = self.class_weights_RC[:, None]
        loss_R = (weights_R1C * smooth_RBC * loss_RBC).sum(dim=(1, 2))
        # a replica whose batch holds no class that counts has nothing to learn from it
        return (loss_R / (weights_R1C * q_RBC).sum(dim=(1, 2)).clamp_min(torch.finfo(loss_R.dtype).tiny)).sum()


def summed_cross_entropy(logits_RBC: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over replicas of each replica's mean cross-entropy over its batch (nats).

    Targets are labels (R, B) or distributions over the classes (R, B, C).
    """
    is_few = logits_RBC.shape[-1] < VECTOR and targets.dim() == 2 and logits_RBC.device.type == "cpu"
    if is_few and not torch.is_autocast_enabled("cpu"):
        return _OfFewClasses.apply(logits_RBC, targets)
    total = F.cross_entropy(logits_RBC.flatten(0, 1), targets.flatten(0, 1), reduction="sum")
    return total / targets.shape[1]


class _OfFewClasses(torch.autograd.Function):
    """Cross-entropy with labels on the CPU, computed with the classes of all examples in rows, not in columns.

    torch's own kernels take an example at a time, and are slow where its classes do not fill a vector: with 10 of them,
    for 32 replicas and batches of 32, by a factor of 2.3 (studies/LOG.md). Shape suffix: E = R·B examples, filled up to
    whole vectors (lab.models.layout), so that the bits of an example do not depend on its place.
    """

    @staticmethod
    def forward(ctx: Any, logits_RBC: Tensor, labels_RB: Tensor) -> Tensor:
        R, B, C = ctx.shape = logits_RBC.shape
        z_CE = logits_RBC.new_zeros(C, -(-R * B // WHOLE) * WHOLE)
        examples_CE = z_CE[:, : R * B]
        examples_CE.copy_(logits_RBC.reshape(-1, C).T)
        z_CE -= z_CE.amax(dim=0)
        labels_1E = labels_RB.reshape(1, -1)
        right_E = examples_CE.gather(0, labels_1E)[0]
        p_CE = z_CE.exp_()
        sum_E = p_CE.sum(dim=0)
        loss = (sum_E[: R * B].log() - right_E).sum() / B
        p_CE /= sum_E * B
        examples_CE.scatter_add_(0, labels_1E, torch.full_like(labels_1E, -1 / B, dtype=p_CE.dtype))
        ctx.save_for_backward(examples_CE)  # the gradient: p less the one-hot label, of a mean over the batch
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (examples_CE,) = ctx.saved_tensors
        return (examples_CE * gradient).T.reshape(ctx.shape), None


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
    p_CRN = np.exp(z_CRN)
    sum_RN = p_CRN.sum(axis=0)
    z_CRN -= np.log(sum_RN)
    p_CRN /= sum_RN
    labels_1RN = np.broadcast_to(labels_RN, (R, N))[None]
    log_right = np.take_along_axis(z_CRN, labels_1RN, axis=0)[0]
    right = np.take_along_axis(p_CRN, labels_1RN, axis=0)[0]
    brier = 1 - 2 * right + np.einsum("crn,crn->rn", p_CRN, p_CRN)
    top_CRN = z_CRN == z_CRN.max(axis=0)
    n_top = top_CRN.view(np.uint8).sum(axis=0, dtype=np.uint32)
    correct = np.take_along_axis(top_CRN, labels_1RN, axis=0)[0] / np.maximum(n_top, 1)
    correct = np.where(np.isfinite(log_right), correct, np.nan)
    of_each = Errors(-log_right.mean(axis=1), brier.mean(axis=1), 1 - correct.mean(axis=1))
    return of_each, np.moveaxis(z_CRN, 0, -1)
