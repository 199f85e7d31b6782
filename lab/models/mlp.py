"""Multilayer perceptron: `depth` hidden layers of `width` units, then a linear classifier; depth 0 is linear."""

from collections.abc import Callable
from math import prod

from torch import Tensor

from lab.knobs import TrialConfig
from lab.models.layers import (
    ACTIVATIONS,
    SLOPES,
    Dropout,
    Factors,
    Network,
    Tensors,
    linear,
    linear_backward,
    product,
)


class MLP(Network):
    """R perceptrons: linear – norm – activation – dropout, `depth` times. Capacity: `width`, `depth`.

    With `residual`, a hidden layer that keeps the number of units adds its input to the activation.
    """

    def __init__(self, config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__(config)
        if config.spatial_dropout:
            raise ValueError(
                f"spatial_dropout = {config.spatial_dropout:g}: an mlp has no channels to drop: set dropout, or a "
                "family of cnn or resnet"
            )
        # where a layer is a product and an activation: autograd took a tenth to a quarter of the time of a step
        self.is_by_hand = (
            config.norm == "none"
            and not self.residual
            and config.activation in SLOPES
            and config.precision != "bf16"  # of which autograd keeps copies
        )
        n_in = prod(image_shape)
        self.widest = max(n_in, config.width if config.depth else 0)
        for layer in range(config.depth):
            self.n_blocks += 1
            self.add_weight(
                f"hidden{layer}", (n_in, config.width), fan_in=n_in, fan_out=config.width, n_bias=config.width
            )
            self.add_norm(f"norm{layer}", config.width)
            n_in = config.width
        self.add_weight("output", (n_in, n_classes), fan_in=n_in, fan_out=n_classes, n_bias=n_classes)

    def enter(self, images_RBCHW: Tensor) -> Tensor:
        """Return the pixels in a row, (R, B, F)."""
        return images_RBCHW.flatten(2)

    def block(self, k: int, x: Tensor, weights: Tensors, buffers: Tensors, dropout: Dropout | None) -> Tensor:
        """Return what hidden layer k makes of x (R, B, F); `differentiate` does the same where `is_by_hand` says so."""
        shortcut = x
        x = linear(x, weights[f"hidden{k}.weight"], weights[f"hidden{k}.bias"])
        x = ACTIVATIONS[self.config.activation](self.norm(f"norm{k}", x, weights, buffers, dropout is not None))
        if self.residual and x.shape == shortcut.shape:
            x = x + shortcut
        return x if dropout is None else dropout(k, x)

    def differentiate(
        self, x: Tensor, weights: Tensors, places: Tensors, gradient_of: Callable[[Tensor], Tensor], factors: Factors
    ) -> None:
        """Write the gradients by hand, see `Network.differentiate`: by the operations of autograd, bit for bit."""
        name, slope = self.config.activation, SLOPES[self.config.activation]
        activation = ACTIVATIONS[name]
        layers = [*(f"hidden{k}" for k in range(self.n_frozen, self.n_blocks)), "output"]
        inputs, kept = [x], []  # of each layer: what goes in; the activation and its factors
        for k, layer in enumerate(layers[:-1], self.n_frozen):
            a = activation(linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"]))
            factor = factors(k, a)
            x = a if factor is None else a * factor
            inputs.append(x)
            kept.append((a, factor))
        gradient = gradient_of(self.head(x, weights))
        for layer in reversed(layers):
            linear_backward(inputs.pop(), gradient, places[f"{layer}.weight"], places[f"{layer}.bias"])
            if kept:
                a, factor = kept.pop()
                gradient = product(gradient, weights[f"{layer}.weight"].mT)
                gradient = slope(gradient if factor is None else gradient.mul_(factor), a)

    def flat(self, x: Tensor) -> Tensor:
        """Return x (R, B, F)."""
        return x
