"""Normalisation of R networks at once, each by itself.

On the CPU a replica has the same bits at every place of its pack. Two things of torch's depend on the place, where a
row of memory holds the values of several replicas: its batch normalisation computes the gradient of its input in whole
vectors and the channels that are left over one by one, which rounds otherwise, and a sum over rows adds columns in
fours of vectors and the rest in another order, as it also does inside batch normalisation if input and gradient differ
in their strides. Hence `_Placeless`.

Shape suffixes: R replicas, B batch, C units or channels, H × W pixels.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lab.models.layout import VECTOR, folded, unfolded

BATCH_NORM_MOMENTUM = 0.1  # torch's default
EPSILON = 1e-5  # torch's default
GROUPS = 8  # of group norm, at the most; see `n_groups`


def n_groups(n_channels: int) -> int:
    """Return the largest number of equal groups, up to `GROUPS`, of at least two channels each (else 1).

    A group of one unit of a perceptron has no spread: normalising it would erase the unit.
    """
    return max((g for g in range(1, GROUPS + 1) if n_channels % g == 0 and n_channels >= 2 * g), default=1)


def batch_norm(
    x: Tensor, scale_RC: Tensor, shift_RC: Tensor, mean_RC: Tensor, var_RC: Tensor, training: bool
) -> Tensor:
    """Batch normalisation of R networks (Ioffe & Szegedy 2015), each with its own statistics: a channel is a channel.

    x is (R, B, C), (R, B, C, H, W) or folded, (B, R·C, H, W). In training the running statistics are updated in place
    (variance unbiased). A batch of a single value a channel, for which torch raises an error, gives the shift.
    """
    R, C = scale_RC.shape
    if training and x.numel() == R * C:
        if x.dim() == 4:
            return folded(batch_norm(unfolded(x, R), scale_RC, shift_RC, mean_RC, var_RC, training))
        with torch.no_grad():
            mean_RC.lerp_(x.view(R, C).to(mean_RC.dtype), BATCH_NORM_MOMENTUM)
            var_RC.mul_(1 - BATCH_NORM_MOMENTUM)
        scale, shift = (values_RC.view(R, 1, C, *([1] * (x.dim() - 3))) for values_RC in (scale_RC, shift_RC))
        return (x - x) * scale + shift
    on_cpu, has_places = x.device.type == "cpu", R > 1 and (x.dim() == 3 or R * C % VECTOR > 0)
    # strides of maps are channels last without doubt unless a size is 1; of others torch's gradients may be wrong
    is_doubtful = x.dim() > 3 and 1 in (x.shape[0 if x.dim() == 4 else 1], *x.shape[-2:])
    if training and on_cpu and (has_places or is_doubtful):
        y: Tensor = _Placeless.apply(x, scale_RC, shift_RC, mean_RC, var_RC)
        return y
    if on_cpu and not training and (x.dim() == 3 or x.requires_grad):
        factor_RC = scale_RC * torch.rsqrt(var_RC + EPSILON)
        # of maps only in an attack: the gradient of torch's own depends on the place
        at = (-1, 1, 1) if x.dim() == 4 else (R, 1, C, *[1] * (x.dim() - 3))
        return torch.addcmul((shift_RC - mean_RC * factor_RC).view(at), x, factor_RC.view(at))
    y_BE = torch.batch_norm(
        _side_by_side(x), scale_RC.reshape(-1), shift_RC.reshape(-1), mean_RC.reshape(-1), var_RC.reshape(-1), training,
        BATCH_NORM_MOMENTUM, EPSILON, False,
    )  # fmt: skip
    return _as_given(y_BE, x, R)


def _side_by_side(x: Tensor) -> Tensor:
    """Return (R, B, C) as (B, R·C), (R, B, C, H, W) as (B, R·C, H, W), and the latter as it is."""
    if x.dim() == 4:
        return x
    return x.transpose(0, 1).flatten(1) if x.dim() == 3 else folded(x)


def _as_given(y_BE: Tensor, x: Tensor, n_replicas: int) -> Tensor:
    """Return what has been computed of `_side_by_side(x)` with the dimensions that x has."""
    return y_BE if x.dim() == 4 else unfolded(y_BE, n_replicas)


def _dense(x: Tensor) -> Tensor:
    """Return the same without doubt channels last: maps of one pixel, and a batch of one, may have other strides.

    Not to be differentiated: the gradient of such a view is laid out anew.
    """
    x_BE = _side_by_side(x)
    if x_BE.dim() == 2:
        return x_BE.contiguous()  # it is a view where products lie the other way round (lab.models.layers)
    _, E, H, W = x_BE.shape
    return x_BE.contiguous(memory_format=torch.channels_last).as_strided(x_BE.shape, (H * W * E, 1, W * E, E))


class _Placeless(torch.autograd.Function):
    """Batch normalisation in training whose bits do not depend on the place in the pack."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale_RC: Tensor, shift_RC: Tensor, mean_RC: Tensor, var_RC: Tensor) -> Tensor:
        x_BE, scale_E = _dense(x), scale_RC.reshape(-1)
        y_BE, batch_mean_E, batch_scale_E = torch.native_batch_norm(
            x_BE, scale_E, shift_RC.reshape(-1), mean_RC.view(-1), var_RC.view(-1), True, BATCH_NORM_MOMENTUM, EPSILON
        )
        ctx.save_for_backward(x_BE, scale_E, batch_mean_E, batch_scale_E)
        ctx.shape = scale_RC.shape
        return _as_given(y_BE, x, len(scale_RC))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_BE, scale_E, mean_E, inverse_std_E = ctx.saved_tensors
        R, C = ctx.shape
        gradient_BE, is_whole = _dense(gradient), R * C % VECTOR == 0
        of_x_BE, of_scale_E, of_shift_E = torch.ops.aten.native_batch_norm_backward(
            gradient_BE, x_BE, scale_E, None, None, mean_E, inverse_std_E, True, EPSILON, [is_whole, True, True]
        )
        if not is_whole:  # by operations that round once for each value, which is the same in a vector and out of it
            n = x_BE.numel() / (R * C)

            def channel(values_E: Tensor) -> Tensor:
                return values_E.view(-1, *[1] * (x_BE.dim() - 2))

            of_x_BE = (x_BE - channel(mean_E)).mul_(channel(inverse_std_E * of_scale_E / -n))
            of_x_BE.add_(gradient_BE).sub_(channel(of_shift_E / n)).mul_(channel(scale_E * inverse_std_E))
        of_x = _as_given(of_x_BE, gradient, R)
        # rows of units are sums of the bias before, whose gradient is a sum over them
        return of_x.contiguous() if of_x.dim() == 3 else of_x, of_scale_E.view(R, C), of_shift_E.view(R, C), None, None


def group_norm(x: Tensor, scale_RC: Tensor, shift_RC: Tensor, groups: int) -> Tensor:
    """Group normalisation of R networks (Wu & He 2018); one group is layer normalisation over channels and pixels.

    x is as `batch_norm` takes it.
    """
    R = len(scale_RC)
    if x.dim() == 3 and x.device.type == "cpu":
        normal_RBC = torch.group_norm(x.flatten(0, 1), groups, None, None, EPSILON, False).view(x.shape)
        return torch.addcmul(shift_RC.unsqueeze(1), normal_RBC, scale_RC.unsqueeze(1))
    scale, shift = scale_RC.reshape(-1), shift_RC.reshape(-1)
    return _as_given(torch.group_norm(_side_by_side(x), R * groups, scale, shift, EPSILON, False), x, R)
