"""Convolutions of R networks at once.

On the CPU the gradient of a bias is summed here: oneDNN's gradient of the weights takes up to twice as long with it as
without (studies/LOG.md). And a convolution that is pooled is computed some images at a time, so that its map, of which
pooling leaves a quarter, stays in the cache and is not kept for the gradient.

Shape suffixes: R replicas, B batch, C and D channels, E channels of all replicas, K × K kernels, H × W pixels. Maps are
(R, B, C, H, W) or, on the CPU, folded (lab.models.layout).
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lab.models import ways
from lab.models.layers import pool
from lab.models.layout import channels_last, folded, on_folded, replica_by_replica

PIECE_VALUES = 2**20  # of the map of a convolution that is pooled, at once


def convolution(x: Tensor, weight_RDCKK: Tensor, bias_RD: Tensor | None, *, stride: int = 1) -> Tensor:
    """Return the R same-padded convolutions of maps, with D channels; height and width are H / stride rounded up.

    On the CPU one grouped convolution for all replicas (how many should share one: benchmarks/strategy.py), on a GPU in
    the way that is fastest there (lab.models.ways). In bfloat16 on the CPU as products: torch's own, of few channels
    or pixels, carries what is not finite from one group to others, and reads memory that nobody has written.
    A 1 × 1 kernel with a stride reads only the pixels that it needs: torch 2.15's own, channels last on the CPU (8 × 8
    pixels, 4 to 16 channels), writes past its buffers ("free(): invalid next size").
    """
    if stride > 1 and weight_RDCKK.shape[-1] == 1:
        # by pooling of single pixels: the gradient of a slice loses the layout
        x, stride = on_folded(lambda x_BE: F.avg_pool2d(x_BE, 1, stride), x), 1
    if bias_RD is not None and _is_by_hand(x):
        y: Tensor = _Biased.apply(ways.grouped(x, weight_RDCKK, None, stride), bias_RD)
        return y
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        maps = replica_by_replica(x, len(weight_RDCKK))
        y = channels_last(ways.by_products(maps, weight_RDCKK, bias_RD, stride))
        return folded(y) if x.dim() == 4 else y
    way = ways.fastest(x, weight_RDCKK, stride) if x.device.type == "cuda" else ways.grouped
    return way(x, weight_RDCKK, bias_RD, stride)


def halved(size: int) -> int:
    """Return the height or width that a same-padded convolution of stride 2 makes of `size`."""
    return -(-size // 2)


def pooled_convolution(x: Tensor, weight_RDCKK: Tensor, bias_RD: Tensor) -> Tensor:
    """Return the convolutions of maps, halved by max pooling (`lab.models.layers.pool`)."""
    if not _is_by_hand(x) or min(x.shape[-2:]) < 2:
        return pool("max", convolution(x, weight_RDCKK, bias_RD))
    if torch.is_grad_enabled():
        y: Tensor = _Pooled.apply(x, weight_RDCKK, bias_RD)
        return y
    parts = [pool("max", ways.grouped(part_BE, weight_RDCKK, None, 1)) for part_BE in _split(x, _piece(x, bias_RD))]
    return _joined(parts).add_(bias_RD.reshape(-1, 1, 1))


def _is_by_hand(x: Tensor) -> bool:
    """Return whether gradients are computed here: of folded maps, unless autocast makes copies of weights."""
    return x.dim() == 4 and not torch.is_autocast_enabled("cpu")


def _piece(x_BE: Tensor, bias_RD: Tensor) -> int:
    """Return how many images of a batch are convolved at once: about equally many in each piece."""
    B, _, H, W = x_BE.shape
    return -(-B // -(-B * H * W * bias_RD.numel() // PIECE_VALUES))


def _split(x_BE: Tensor, n: int) -> list[Tensor]:
    return [x_BE[start : start + n] for start in range(0, len(x_BE), n)]  # `Tensor.split` takes longer


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _pixel_sum(x_BE: Tensor) -> Tensor:
    """Return the sums of channels over images and pixels, (E,).

    By pooling, see `lab.models.layers.pixel_mean`.
    """
    B, E, H, W = x_BE.shape
    of_images_BE = F.avg_pool2d(x_BE, (H, W), divisor_override=1)
    return F.avg_pool2d(of_images_BE.as_strided((1, E, B, 1), (B * E, 1, E, 1)), (B, 1), divisor_override=1).view(E)


class _Biased(torch.autograd.Function):
    """Folded maps plus a bias, in place."""

    @staticmethod
    def forward(ctx: Any, x_BE: Tensor, bias_RD: Tensor) -> Tensor:
        ctx.mark_dirty(x_BE)
        ctx.shape = bias_RD.shape
        return x_BE.add_(bias_RD.reshape(-1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BE: Tensor) -> tuple[Tensor | None, ...]:
        return gradient_BE, _pixel_sum(gradient_BE).view(ctx.shape) if ctx.needs_input_grad[1] else None


class _Pooled(torch.autograd.Function):
    """`pooled_convolution` of folded maps: the largest of some values plus a bias is the largest of them plus it."""

    @staticmethod
    def forward(ctx: Any, x_BE: Tensor, weight_RDCKK: Tensor, bias_RD: Tensor) -> Tensor:
        ctx.save_for_backward(x_BE, weight_RDCKK)
        ctx.piece = _piece(x_BE, bias_RD)
        found = [
            F.max_pool2d(ways.grouped(part_BE, weight_RDCKK, None, 1), 2, return_indices=True)
            for part_BE in _split(x_BE, ctx.piece)
        ]
        ctx.indices = [indices_BE for _, indices_BE in found]
        return _joined([y_BE for y_BE, _ in found]).add_(bias_RD.reshape(-1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BE: Tensor) -> tuple[Tensor | None, ...]:
        x_BE, weight_RDCKK = ctx.saved_tensors
        R, D, C, K, _ = weight_RDCKK.shape
        weight, padding = weight_RDCKK.reshape(R * D, C, K, K), [K // 2, K // 2]
        of_x, of_weight, of_bias = ctx.needs_input_grad
        parts: list[tuple[Tensor, Tensor]] = []
        pieces = zip(_split(x_BE, ctx.piece), _split(gradient_BE, ctx.piece), ctx.indices, strict=True)
        for x, gradient, indices in pieces:
            shaped = torch.empty((len(x), R * D, *x.shape[2:]), dtype=x.dtype, memory_format=torch.channels_last)
            of_map = torch.ops.aten.max_pool2d_with_indices_backward(
                gradient, shaped, [2, 2], [2, 2], [0, 0], [1, 1], False, indices
            )
            found = torch.ops.aten.convolution_backward(
                of_map, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], R, [of_x, of_weight, False]
            )
            parts.append(found[:2])
        return (
            _joined([of_part for of_part, _ in parts]) if of_x else None,
            functools.reduce(torch.add, [of_part for _, of_part in parts]).view_as(weight_RDCKK) if of_weight else None,
            _pixel_sum(gradient_BE).view(R, D) if of_bias else None,
        )
