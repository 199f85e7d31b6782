"""Where the values of R networks lie in memory, and what is left over beside whole vectors.

A processor computes vectors of values at once, and what is left over at the end of a row one by one, which rounds
otherwise. A replica must have the same bits wherever in its pack it sits, so rows are filled up to whole vectors where
that matters.

Shape suffixes: R replicas, B batch, C channels, E = R·C channels of all replicas, H × W pixels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

VECTOR = 16  # values of float32 in the largest vector (512 bits)
WHOLE = 64  # values: two of the largest vectors (512 bits) in float32, which loops over single values take at once


def channels_last(x_RBCHW: Tensor) -> Tensor:
    """Return images in the memory layout that their device computes fastest with; the shape stays (R, B, C, H, W).

    On the CPU that is (B, H, W, R, C): folded to (B, R·C, H, W), which is then a view, it is torch's "channels last",
    which convolution, pooling, normalisation and activations keep.
    """
    if x_RBCHW.device.type != "cpu":
        return x_RBCHW
    R, B, C, H, W = x_RBCHW.shape
    memory_BHWRC = torch.empty((B, H, W, R, C), dtype=x_RBCHW.dtype)
    return memory_BHWRC.permute(3, 0, 4, 1, 2).copy_(x_RBCHW)


def folded(x_RBCHW: Tensor) -> Tensor:
    """Return the maps of all replicas as channels of one image, (B, R·C, H, W)."""
    R, B, C, H, W = x_RBCHW.shape
    if R * C == 1:  # either layout at once: torch takes such strides for channels last only if they say so
        return x_RBCHW.as_strided((B, 1, H, W), (H * W, 1, W, 1)) if x_RBCHW.is_contiguous() else x_RBCHW[0]
    return x_RBCHW.transpose(0, 1).reshape(B, R * C, H, W)


def side_by_side(x_RBCHW: Tensor) -> Tensor:
    """Return maps as a block computes them: folded on the CPU, where that is a view, so that its layers need no views.

    Elsewhere as they are: there a convolution may be computed replica by replica (lab.models.ways).
    """
    return folded(x_RBCHW) if x_RBCHW.device.type == "cpu" else x_RBCHW


def replica_by_replica(x: Tensor, n_replicas: int) -> Tensor:
    """Return maps that may be folded as (R, B, C, H, W)."""
    return unfolded(x, n_replicas) if x.dim() == 4 else x


def unfolded(y_BE: Tensor, n_replicas: int) -> Tensor:
    """Return (B, R·C, …) as (R, B, C, …)."""
    return y_BE.unflatten(1, (n_replicas, -1)).transpose(0, 1)


def on_folded(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return what a function makes of folded maps: of maps (R, B, C, H, W) in this shape, of folded ones folded."""
    return function(x) if x.dim() == 4 else unfolded(function(folded(x)), len(x))


def in_whole_vectors(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return a function of each value alone, with the same bits for a value wherever it lies."""
    n_missing = -x.numel() % WHOLE
    if not n_missing or x.device.type != "cpu":
        return function(x)
    order = sorted(range(x.dim()), key=x.stride, reverse=True)  # as the values lie in memory
    lying = x.permute(order)
    y = function(F.pad(lying.reshape(-1), (0, n_missing)))[: x.numel()].view(lying.shape)
    return y.permute(sorted(range(x.dim()), key=order.__getitem__))
