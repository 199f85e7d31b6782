"""Convolutional network: `depth` blocks of `width` channels, then a linear classifier on the flattened map."""

from torch import Tensor

from lab.knobs import TrialConfig
from lab.models.convolution import convolution, pooled_convolution
from lab.models.layers import (
    MONOTONE,
    Dropout,
    Network,
    Tensors,
    pool,
    pooled,
)
from lab.models.layout import channels_last, replica_by_replica, side_by_side

KERNEL = 3


class CNN(Network):
    """R networks of blocks convolution (3 × 3, same padding) – norm – activation – 2 × 2 pooling – dropout.

    With `convolutions` of 2 or 3, a block has as many of them in a row, each with norm and activation, before it pools,
    as VGG has (Simonyan & Zisserman 2015). A map that is down to one pixel is not pooled any further, so every depth
    can be built. With `residual`, a convolution that keeps the number of channels adds its input to the activation.
    Capacity: `width`, `depth`.
    """

    def __init__(self, config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__(config)
        n_in, height, width = image_shape
        n_out = config.width
        # the same numbers with a quarter of the activations
        self.pools_first = config.pooling == "max" and config.activation in MONOTONE and not self.residual
        has_pieces = self.pools_first and config.norm == "none" and config.precision != "bf16"
        self.in_pieces = has_pieces and config.convolutions == 1
        self.widest = max(n_in, n_out if config.depth else 0) * height * width
        self.blocks: list[list[tuple[str, str]]] = []  # the names of each block's convolutions and norms
        for block in range(config.depth):
            self.n_blocks += 1
            suffixes = ["", *(f".{k}" for k in range(1, config.convolutions))]
            self.blocks.append([(f"block{block}{suffix}", f"norm{block}{suffix}") for suffix in suffixes])
            for convolution_name, norm_name in self.blocks[-1]:
                self.add_weight(
                    convolution_name,
                    (n_out, n_in, KERNEL, KERNEL),
                    fan_in=n_in * KERNEL**2,
                    fan_out=n_out * KERNEL**2,
                    n_bias=n_out,
                )
                self.add_norm(norm_name, n_out)
                n_in = n_out
            if min(height, width) >= 2:
                height, width = pooled(height), pooled(width)
        n_features = n_in * height * width
        self.add_weight("output", (n_features, n_classes), fan_in=n_features, fan_out=n_classes, n_bias=n_classes)

    def block(self, k: int, x: Tensor, weights: Tensors, buffers: Tensors, dropout: Dropout | None) -> Tensor:
        """Return what block k makes of x (R, B, C, H, W)."""
        names, R, x = self.blocks[k], len(x), side_by_side(x)
        for place, (convolution_name, norm_name) in enumerate(names):
            shortcut = x
            weight, bias = weights[f"{convolution_name}.weight"], weights[f"{convolution_name}.bias"]
            pools = self.pools_first and place == len(names) - 1
            if pools and self.config.norm == "none":
                x = pooled_convolution(x, weight, bias)
            else:
                x = self.norm(norm_name, convolution(x, weight, bias), weights, buffers, dropout is not None)
                x = pool(self.config.pooling, x) if pools else x
            x = self.activate(x)
            if self.residual and x.shape == shortcut.shape:
                x = x + shortcut
        if not self.pools_first:
            x = pool(self.config.pooling, x)
        x = replica_by_replica(x, R)
        return x if dropout is None else dropout(k, x)

    def flat(self, x: Tensor) -> Tensor:
        """Return the pixels of maps x (R, B, C, H, W) in a row."""
        if x.dim() == 5 and x.requires_grad:
            x.register_hook(channels_last)
        return x.flatten(2)
