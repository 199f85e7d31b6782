"""Which way a GPU computes the convolutions of R networks at once: measured, at the first use of each shape.

One grouped convolution reads and writes least, but how fast cuDNN computes many groups of few channels differs between
its versions and between GPUs by large factors; unfolding, whose patches take as many times the memory as a kernel has
values, leaves the work to batched matrix products. Both give the same up to rounding. On the CPU it is always the
former, see benchmarks/ways.md.

Shape suffixes: R replicas, B batch, C and D channels, K × K kernels, H × W pixels, L places of a kernel.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.models.layout import on_folded

# (x, weight, bias (R, D) or None, stride) → (R, B, D, H / stride, W / stride), sizes rounded up
Way = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]

N_TIMED = 5  # runs of each way, after one that does not count
MARGIN = 0.8  # of the time of one grouped convolution, which another way has to be within

_chosen: dict[tuple[Any, ...], Way] = {}


def grouped(x: Tensor, weight_RDCKK: Tensor, bias_RD: Tensor | None, stride: int) -> Tensor:
    """Return the same-padded convolutions as one of R groups; of folded maps folded."""
    R, D, C, K, _ = weight_RDCKK.shape
    weight, bias = weight_RDCKK.reshape(R * D, C, K, K), None if bias_RD is None else bias_RD.reshape(R * D)
    return on_folded(lambda x_BE: F.conv2d(x_BE, weight, bias, stride=stride, padding=K // 2, groups=R), x)


def by_products(x_RBCHW: Tensor, weight_RDCKK: Tensor, bias_RD: Tensor | None, stride: int) -> Tensor:
    """Return the same-padded convolutions as products of kernels and unfolded images."""
    R, B, _, H, _ = x_RBCHW.shape
    K = weight_RDCKK.shape[-1]
    patches = F.unfold(x_RBCHW.flatten(0, 1), K, padding=K // 2, stride=stride).unflatten(0, (R, B))  # (R, B, C·K², L)
    y_RBDL = torch.matmul(weight_RDCKK.flatten(2).unsqueeze(1), patches)
    y_RBDL = y_RBDL if bias_RD is None else y_RBDL + bias_RD[:, None, :, None]
    return y_RBDL.unflatten(3, (-(-H // stride), -1))


WAYS: tuple[Way, ...] = (grouped, by_products)


def fastest(x_RBCHW: Tensor, weight_RDCKK: Tensor, stride: int) -> Way:
    """Return the way that takes least time forward and backward for networks of these shapes, on the device of x.

    Measured at the first call for a shape (of one network, and of arithmetic); the number of replicas and the batch of
    that call decide for all. If the memory suffices for no way, the next call measures again: it may have fewer
    replicas. Not in the capture of a graph, which a first epoch comes before.
    """
    key = (*x_RBCHW.shape[2:], *weight_RDCKK.shape[1:], stride, x_RBCHW.dtype, torch.is_autocast_enabled("cuda"))
    if key not in _chosen:
        seconds = [_seconds(way, x_RBCHW, weight_RDCKK, stride) for way in WAYS]
        best = min(range(len(WAYS)), key=seconds.__getitem__)
        if math.isinf(seconds[best]):
            return grouped
        _chosen[key] = WAYS[best] if seconds[best] < MARGIN * seconds[0] else WAYS[0]
    return _chosen[key]


@torch.enable_grad()
def _seconds(way: Way, x_RBCHW: Tensor, weight_RDCKK: Tensor, stride: int) -> float:
    """Return the time of `N_TIMED` runs, infinite where the memory does not suffice or a graph is captured."""
    if torch.cuda.is_current_stream_capturing():
        return math.inf
    x, weight = (value.detach().requires_grad_() for value in (x_RBCHW, weight_RDCKK))

    def run() -> None:
        y = way(x, weight, None, stride)
        torch.autograd.grad(y, [x, weight], torch.ones_like(y))

    try:
        run()
        torch.cuda.synchronize(x.device)
        started = time.perf_counter()
        for _ in range(N_TIMED):
            run()
        torch.cuda.synchronize(x.device)
        return time.perf_counter() - started
    except torch.OutOfMemoryError:
        return math.inf
