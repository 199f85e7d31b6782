"""Layers of R networks at once: every tensor has a leading replica axis, and no replica sees another.

Shape suffixes: R replicas, B batch, F features, C channels, H × W pixels. A layer takes the R weights of its name and
the R batches, and returns R outputs, as if each network had been computed alone (to float tolerance).
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lab.knobs import TrialConfig
from lab.models.initialization import Array, initial_values
from lab.models.layout import VECTOR, channels_last, folded, in_whole_vectors, on_folded, unfolded
from lab.models.normalization import BATCH_NORM_MOMENTUM, batch_norm, group_norm, n_groups

# tanh needs no whole vectors: in none of 536 pairs of trainings (widths 1 to 40, batches of 1 to 13, packs of 3 to 15,
# float32 and float64; AMD EPYC) did a bit follow a replica's place; with sigmoid left as tanh is, in 254
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": functools.partial(in_whole_vectors, torch.sigmoid),
    "gelu": functools.partial(in_whole_vectors, F.gelu),
    "leaky_relu": F.leaky_relu,  # slope 0.01, torch's default
    "elu": functools.partial(in_whole_vectors, F.elu),
}
# (gradient of the activation, activation) → gradient of what went in, where torch's own is a function of these two
SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": functools.partial(torch.ops.aten.threshold_backward.default, threshold=0),
    "tanh": torch.ops.aten.tanh_backward.default,
}
IN_PLACE = {"relu": torch.relu_}  # what can be written over what goes in: its gradient needs what comes out alone
MONOTONE = frozenset(ACTIVATIONS) - {"gelu"}  # those of which the largest of some values is that of the largest

# (layer index, activations (R, B, …), rate if it is not that of the knob) → activations, see lab.training.dropout
Dropout = Callable[..., Tensor]
Factors = Callable[[int, Tensor], Tensor | None]
Tensors = Mapping[str, Tensor]

QUARTER = 4  # values of float32 in the smallest vector (128 bits)
PLACED_VALUES = 2**13  # of a linear weight whose gradient is computed in its place, at the least
HEAD = "output."  # what the names of the tensors of a head begin with


@dataclass(frozen=True)
class Parameter:
    """One parameter tensor of one network.

    `shape` is that of a single replica. A linear weight is stored (in, out): (out, in) would make `baddbmm` copy its
    gradient at every step. `fan_in` and `fan_out` count connections as torch.nn.init does.
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["weight", "bias", "scale", "shift", "own"]  # own: a module of one's own draws it, lab.models.own
    fan_in: int
    fan_out: int


class Network(ABC):
    """A stack of R networks of one configuration, without weights: `n_blocks` blocks in a row, then a head.

    Attributes:
        parameters: What is initialised, in this order.
        buffers: Running statistics of batch normalisation, as name → shape of one replica.
        widest: The number of values of the largest activation map of one image, the input included.
        residual: Whether a layer adds its input to its output, see each family.
        n_blocks: The number of blocks.
        in_pieces: Whether its widest maps are computed some images at a time, on the CPU.
        is_own: Whether it is a module of the user's (lab.models.own): unknown inside.
        is_by_hand: Whether it has `differentiate`.
        why_alone: What keeps the R networks from running as one program; None: they do.

    The first `n_frozen` blocks stay as they are: they are evaluated as after training (no dropout, batch norm by its
    running statistics), and their tensors, statistics included, are constants among the weights.
    """

    residual_by_default = False
    is_own = is_by_hand = in_pieces = False
    why_alone: str | None = None
    where_weights = ""  # for a family that starts from a file alone: how to get one
    other_heads: tuple[str, ...] = ()  # what the names of tensors begin with that another head has left in a file

    def __init__(self, config: TrialConfig) -> None:
        self.config = config
        self.parameters: list[Parameter] = []
        self.buffers: dict[str, tuple[int, ...]] = {}
        self._block_of: dict[str, int] = {}  # name of a tensor → its block; those of the head are not in it
        self.widest = self.n_blocks = 0
        self.residual = self.residual_by_default if config.residual == "auto" else config.residual == "on"

    def forward(
        self,
        weights: Tensors,
        buffers: Tensors,
        images_RBCHW: Tensor,
        dropout: Dropout | None,
    ) -> Tensor:
        """Return logits (R, B, n_classes).

        Args:
            weights: name → (R, *shape).
            buffers: name → (R, *shape); updated in place when training.
            images_RBCHW: A batch for each replica.
            dropout: Given when training; None in evaluation (no dropout, batch norm uses running statistics).
        """
        return self.onward(self.features(weights, images_RBCHW), weights, buffers, dropout)

    def features(self, weights: Tensors, images_RBCHW: Tensor) -> Tensor:
        """Return what the frozen blocks make of images: the images themselves if none is frozen.

        If all are, it is as `flat` gives it.
        """
        x = self.enter(images_RBCHW)
        for k in range(self.n_frozen):
            x = self.block(k, x, weights, weights, None)
        return self.flat(x) if self.is_head_alone else x

    def onward(self, x: Tensor, weights: Tensors, buffers: Tensors, dropout: Dropout | None) -> Tensor:
        """Return the logits (R, B, n_classes) of what `features` returned."""
        for k in range(self.n_frozen, self.n_blocks):
            x = self.block(k, x, weights, buffers, dropout)
        return self.head(x, weights)

    def differentiate(
        self, x: Tensor, weights: Tensors, places: Tensors, gradient_of: Callable[[Tensor], Tensor], factors: Factors
    ) -> None:
        """Write the gradients of the trained weights to their places, without autograd, as `onward` has them.

        Args:
            x: What `features` returned.
            weights: name → (R, *shape).
            places: name → (R, *shape) of what is trained.
            gradient_of: Logits → the gradient of the loss with respect to them, both (R, B, n_classes).
            factors: What dropout multiplies the activations (R, B, …) of a layer by; None for nothing.
        """
        raise NotImplementedError

    def enter(self, images_RBCHW: Tensor) -> Tensor:
        """Return images as the first block takes them, and features as the first block that is trained does."""
        return images_RBCHW if images_RBCHW.dim() == 3 else channels_last(images_RBCHW)

    @abstractmethod
    def block(self, k: int, x: Tensor, weights: Tensors, buffers: Tensors, dropout: Dropout | None) -> Tensor:
        """Return what block k makes of x, see `forward`."""

    @abstractmethod
    def flat(self, x: Tensor) -> Tensor:
        """Return what the last block gives as the linear layer of the head takes it, (R, B, F); twice is as once."""

    def head(self, x: Tensor, weights: Tensors) -> Tensor:
        """Return the logits (R, B, n_classes) of what the last block gives."""
        return linear(self.flat(x), weights["output.weight"], weights["output.bias"])

    def initial(self, scheme: str, gain: float, rng: np.random.Generator) -> tuple[Array, dict[str, Tensor]]:
        """Return what one network starts from: its weights, shape (P,), and its buffers.

        Raises:
            ValueError: The scheme is unknown.
        """
        start = {
            name: (torch.ones if name.endswith(".var") else torch.zeros)(shape) for name, shape in self.buffers.items()
        }
        return initial_values(self.parameters, scheme, gain, rng), start

    def statistics_momentum(self, buffer: str) -> float | None:
        """Return the share of a batch in a running statistic; None for a buffer that is none."""
        return BATCH_NORM_MOMENTUM

    @property
    def n_frozen(self) -> int:
        """The number of blocks, from the first on, that are not trained."""
        return round(self.config.frozen * self.n_blocks)

    @property
    def is_head_alone(self) -> bool:
        """Whether nothing but the head is trained, of a network that has blocks."""
        return self.n_frozen == self.n_blocks > 0

    def is_frozen(self, name: str) -> bool:
        """Return whether a weight or a running statistic stays as it is."""
        return self._block_of.get(name, self.n_blocks) < self.n_frozen

    @property
    def trained(self) -> list[Parameter]:
        """What is trained, in the order of `parameters`."""
        return [p for p in self.parameters if not self.is_frozen(p.name)]

    @property
    def n_parameters(self) -> int:
        """The number of trained values of one network."""
        return sum(torch.Size(p.shape).numel() for p in self.trained)

    def _declare(self, parameter: Parameter) -> None:
        self.parameters.append(parameter)
        if not parameter.name.startswith(HEAD):
            self._block_of[parameter.name] = self.n_blocks - 1

    def add_weight(self, name: str, shape: tuple[int, ...], *, fan_in: int, fan_out: int, n_bias: int) -> None:
        """Declare a weight and its bias, or no bias for `n_bias` 0."""
        self._declare(Parameter(f"{name}.weight", shape, "weight", fan_in, fan_out))
        if n_bias:
            self._declare(Parameter(f"{name}.bias", (n_bias,), "bias", fan_in, fan_out))

    def add_norm(self, name: str, n_channels: int) -> None:
        """Declare the scale, shift and running statistics of the normalisation that the configuration asks for."""
        if self.config.norm == "none":
            return
        self._declare(Parameter(f"{name}.scale", (n_channels,), "scale", n_channels, n_channels))
        self._declare(Parameter(f"{name}.shift", (n_channels,), "shift", n_channels, n_channels))
        if self.config.norm == "batch":
            for statistic in (f"{name}.mean", f"{name}.var"):
                self.buffers[statistic] = (n_channels,)
                self._block_of[statistic] = self.n_blocks - 1

    def activate(self, x: Tensor) -> Tensor:
        """Return the activations of x, which nothing else needs: in its place where x is folded, and so is no view."""
        name = self.config.activation
        return (IN_PLACE.get(name, ACTIVATIONS[name]) if x.dim() == 4 else ACTIVATIONS[name])(x)

    def norm(self, name: str, x_RBC: Tensor, weights: Tensors, buffers: Tensors, training: bool) -> Tensor:
        """Normalise activations, as `batch_norm` takes them, as `config.norm` says, each replica by itself."""
        kind = self.config.norm
        if kind == "none":
            return x_RBC
        scale, shift = weights[f"{name}.scale"], weights[f"{name}.shift"]
        if kind == "batch":
            return batch_norm(x_RBC, scale, shift, buffers[f"{name}.mean"], buffers[f"{name}.var"], training)
        return group_norm(x_RBC, scale, shift, 1 if kind == "layer" else n_groups(scale.shape[1]))


def linear(x_RBF: Tensor, weight_RFG: Tensor, bias_RG: Tensor) -> Tensor:
    """Return the R affine maps (R, B, G) of x (R, B, F).

    Where `placed` has said where the gradient of the weight belongs, it is computed there.
    """
    kind = x_RBF.device.type
    is_by_hand = torch.is_grad_enabled() and (kind == "cpu" or hasattr(weight_RFG, "place"))
    if is_by_hand and not torch.is_autocast_enabled(kind):  # which knows no products into a given place
        y: Tensor = _Linear.apply(x_RBF, weight_RFG, bias_RG)
        return y
    return _affine(x_RBF, weight_RFG, bias_RG)


def _affine(x_RBF: Tensor, weight_RFG: Tensor, bias_RG: Tensor) -> Tensor:
    if _is_turned(x_RBF, x_RBF.shape[1], bias_RG.shape[1]):
        return torch.baddbmm(bias_RG.unsqueeze(2), weight_RFG.mT, x_RBF.mT).mT
    return torch.baddbmm(bias_RG.unsqueeze(1), x_RBF, weight_RFG)


def product(a_RMK: Tensor, b_RKN: Tensor) -> Tensor:
    """Return the R matrix products (R, M, N), which lie in memory as (R, N, M) where that is faster."""
    if _is_turned(a_RMK, a_RMK.shape[1], b_RKN.shape[2]):
        return torch.bmm(b_RKN.mT, a_RMK.mT).mT
    return torch.bmm(a_RMK, b_RKN)


def _is_turned(a: Tensor, m: int, n: int) -> bool:
    """Return whether products (M, N) are computed as (N, M).

    MKL is slow at rows that are short or no whole vectors (on AMD EPYC: studies/LOG.md, "short rows").
    """

    def is_slow(size: int) -> bool:
        return size < VECTOR or size % QUARTER > 0

    return a.device.type == "cpu" and is_slow(n) and (not is_slow(m) or n < VECTOR <= m)


def placed(weight: Tensor, place: Tensor) -> Tensor:
    """Return the weight, whose gradient is from now on written to `place` by every backward pass through it.

    By a copy, except for linear layers on a GPU and large ones on the CPU, whose product is written to its place at
    once: training steps of perceptrons then took 0.74 to 0.97 of the time on the CPU (studies/LOG.md, "gradients in
    their place"). On a GPU, where it was not measured, it saves a launch, and reading and writing the gradient.
    """

    def put(gradient: Tensor) -> None:
        if gradient.data_ptr() != place.data_ptr():
            place.copy_(gradient)

    weight.register_hook(put)
    if weight.dim() == 3:
        weight.place = place  # type: ignore[attr-defined]
    return weight


def _is_filled_at_once(place: Tensor) -> bool:
    return place.device.type == "cuda" or (place.device.type == "cpu" and place.shape[1:].numel() >= PLACED_VALUES)


def linear_backward(x_RBF: Tensor, gradient_RBG: Tensor, weight_place: Tensor, bias_place: Tensor) -> None:
    """Write the gradients of the weight and the bias of `linear` to their places."""
    _of_weight(x_RBF, gradient_RBG, weight_place)
    torch.sum(gradient_RBG, 1, out=bias_place)


def _of_weight(x_RBF: Tensor, gradient_RBG: Tensor, place: Tensor | None) -> Tensor:
    if place is None:
        return product(x_RBF.mT, gradient_RBG)
    _, n_in, n_out = place.shape
    if _is_filled_at_once(place) and not _is_turned(place, n_in, n_out):
        return torch.bmm(x_RBF.mT, gradient_RBG, out=place)
    return place.copy_(product(x_RBF.mT, gradient_RBG))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RBF: Tensor, weight_RFG: Tensor, bias_RG: Tensor) -> Tensor:
        ctx.save_for_backward(x_RBF, weight_RFG)
        ctx.place = getattr(weight_RFG, "place", None)
        return _affine(x_RBF, weight_RFG, bias_RG)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_RBG: Tensor) -> tuple[Tensor | None, ...]:
        x_RBF, weight_RFG = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient_RBG, weight_RFG.mT) if of_x else None,
            _of_weight(x_RBF, gradient_RBG, ctx.place) if of_weight else None,
            gradient_RBG.sum(dim=1) if of_bias else None,
        )


def _max_pool(x_BE: Tensor, size: int) -> Tensor:
    """Return the largest of each size × size pixels, of which only a gradient needs to know which they were."""
    if torch.is_grad_enabled() or x_BE.device.type != "cpu":
        return F.max_pool2d(x_BE, size)
    height, width = (n // size * size for n in x_BE.shape[-2:])
    x_BE = functools.reduce(torch.maximum, (x_BE[..., k:width:size] for k in range(size)))
    return functools.reduce(torch.maximum, (x_BE[..., k:height:size, :] for k in range(size)))


POOLINGS: dict[str, Callable[[Tensor, int], Tensor]] = {"max": _max_pool, "average": F.avg_pool2d}


def pool(kind: str, x: Tensor) -> Tensor:
    """Halve height and width (rounding down) by 2 × 2 pooling; a map less than 2 pixels wide stays as it is.

    x is (R, B, C, H, W) or folded.
    """
    return x if min(x.shape[-2:]) < 2 else on_folded(lambda x_BE: POOLINGS[kind](x_BE, 2), x)


def pooled(size: int) -> int:
    """Return the height or width that `pool` makes of `size`, for a square map."""
    return size // 2 if size >= 2 else size


def pixel_mean(x_RBCHW: Tensor) -> Tensor:
    """Return the means of maps over their pixels, (R, B, C).

    By pooling, which adds pixel by pixel in every channel: a sum over rows that hold several replicas does not, see
    lab.models.normalization.
    """
    return unfolded(F.avg_pool2d(folded(x_RBCHW), x_RBCHW.shape[-2:]).flatten(1), len(x_RBCHW))
