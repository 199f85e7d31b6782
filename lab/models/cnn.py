"""Convolutional network: `depth` blocks of `width` channels, then a linear classifier on the flattened map."""

from torch import Tensor

from lab.knobs import TrialConfig
from lab.models.layers import ACTIVATIONS, Dropout, Network, Tensors, convolution, linear, max_pool, pooled

KERNEL = 3


class CNN(Network):
    """R networks of blocks convolution (3 × 3, same padding) – norm – activation – 2 × 2 max pooling – dropout.

    A map that is down to one pixel is not pooled any further, so every depth can be built. Capacity: `width`, `depth`.
    """

    def __init__(self, config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__(config)
        n_in, height, width = image_shape
        n_out = config.width
        self.widest = max(n_in, n_out if config.depth else 0) * height * width
        for block in range(config.depth):
            self.add_weight(
                f"block{block}",
                (n_out, n_in, KERNEL, KERNEL),
                fan_in=n_in * KERNEL**2,
                fan_out=n_out * KERNEL**2,
                n_bias=n_out,
            )
            self.add_norm(f"norm{block}", n_out)
            if min(height, width) >= 2:
                height, width = pooled(height), pooled(width)
            n_in = n_out
        n_features = n_in * height * width
        self.add_weight("output", (n_features, n_classes), fan_in=n_features, fan_out=n_classes, n_bias=n_classes)

    def forward(
        self,
        weights: Tensors,
        buffers: Tensors,
        images_RBCHW: Tensor,
        dropout: Dropout | None,
    ) -> Tensor:
        """Return logits (R, B, n_classes), see `Network.forward`."""
        activation = ACTIVATIONS[self.config.activation]
        x = images_RBCHW
        for block in range(self.config.depth):
            x = convolution(x, weights[f"block{block}.weight"], weights[f"block{block}.bias"])
            x = activation(self.norm(f"norm{block}", x, weights, buffers, dropout is not None))
            x = max_pool(x)
            if dropout is not None:
                x = dropout(block, x)
        return linear(x.flatten(2), weights["output.weight"], weights["output.bias"])
