"""Multilayer perceptron: `depth` hidden layers of `width` units, then a linear classifier; depth 0 is linear."""

from math import prod

from torch import Tensor

from lab.knobs import TrialConfig
from lab.models.layers import ACTIVATIONS, Dropout, Network, Tensors, linear


class MLP(Network):
    """R perceptrons: linear – norm – activation – dropout, `depth` times. Capacity: `width`, `depth`.

    With `residual`, a hidden layer that keeps the number of units adds its input to the activation.
    """

    def __init__(self, config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__(config)
        n_in = prod(image_shape)
        self.widest = max(n_in, config.width if config.depth else 0)
        for layer in range(config.depth):
            self.add_weight(
                f"hidden{layer}", (n_in, config.width), fan_in=n_in, fan_out=config.width, n_bias=config.width
            )
            self.add_norm(f"norm{layer}", config.width)
            n_in = config.width
        self.add_weight("output", (n_in, n_classes), fan_in=n_in, fan_out=n_classes, n_bias=n_classes)

    def forward(
        self,
        weights: Tensors,
        buffers: Tensors,
        images_RBCHW: Tensor,
        dropout: Dropout | None,
    ) -> Tensor:
        """Return logits (R, B, n_classes), see `Network.forward`."""
        activation = ACTIVATIONS[self.config.activation]
        x = images_RBCHW.flatten(2)
        for layer in range(self.config.depth):
            shortcut = x
            x = linear(x, weights[f"hidden{layer}.weight"], weights[f"hidden{layer}.bias"])
            x = activation(self.norm(f"norm{layer}", x, weights, buffers, dropout is not None))
            if self.residual and x.shape == shortcut.shape:
                x = x + shortcut
            if dropout is not None:
                x = dropout(layer, x)
        return linear(x, weights["output.weight"], weights["output.bias"])
