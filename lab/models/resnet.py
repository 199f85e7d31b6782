"""Residual network for small images (He et al. 2016): ResNet-18 at `depth` 2 and `width` 64 with batch norm.

The stem is the one used for CIFAR (3 × 3, stride 1, no pooling): torchvision's would shrink 32 × 32 pixels to 8 × 8
before the first block.
"""

from torch import Tensor

from lab.knobs import TrialConfig
from lab.models.convolution import convolution, halved
from lab.models.layers import Dropout, Network, Tensors, pixel_mean
from lab.models.layout import replica_by_replica, side_by_side

N_STAGES = 4
KERNEL = 3


class ResNet(Network):
    """R networks: stem, four stages of `depth` basic blocks, mean over pixels, linear classifier.

    Stage s has width · 2^s channels; from the second on, the first block of a stage halves height and width. A block
    is convolution – norm – activation – dropout – convolution – norm, plus its input (by a 1 × 1 convolution with norm
    where the shape changes), then activation; dropout lies between the convolutions (Zagoruyko & Komodakis 2016).
    Without `residual` the input is not added: He et al.'s plain network. Convolutions have a bias only where no norm
    follows. Depth 0 is a linear model of the mean pixel. The stem counts as a block. Capacity: `width`, `depth`.
    """

    residual_by_default = True

    def __init__(self, config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__(config)
        n_in, height, width = image_shape
        self.widest = n_in * height * width
        self.blocks: list[tuple[str, int, bool]] = []  # name, stride, whether the input is projected
        n = n_in
        if config.depth:
            self.n_blocks += 1
            self._add_convolution("stem", n_in, config.width, KERNEL)
            n = config.width
        for stage in range(N_STAGES):
            n_out = config.width * 2**stage
            for block in range(config.depth):
                name, stride = f"stage{stage}.block{block}", 2 if stage and not block else 1
                projected = self.residual and (stride != 1 or n != n_out)
                self.n_blocks += 1
                self._add_convolution(f"{name}.first", n, n_out, KERNEL)
                self._add_convolution(f"{name}.second", n_out, n_out, KERNEL)
                if projected:
                    self._add_convolution(f"{name}.shortcut", n, n_out, 1)
                self.blocks.append((name, stride, projected))
                if stride == 2:
                    height, width = halved(height), halved(width)
                n = n_out
                self.widest = max(self.widest, n * height * width)
        self.add_weight("output", (n, n_classes), fan_in=n, fan_out=n_classes, n_bias=n_classes)

    def _add_convolution(self, name: str, n_in: int, n_out: int, kernel: int) -> None:
        self.add_weight(
            name,
            (n_out, n_in, kernel, kernel),
            fan_in=n_in * kernel**2,
            fan_out=n_out * kernel**2,
            n_bias=n_out if self.config.norm == "none" else 0,
        )
        self.add_norm(f"{name}.norm", n_out)

    def block(self, k: int, x: Tensor, weights: Tensors, buffers: Tensors, dropout: Dropout | None) -> Tensor:
        """Return what the stem (k = 0) or residual block k − 1 makes of x (R, B, C, H, W)."""
        R, x = len(x), side_by_side(x)

        def normed(name: str, x: Tensor, stride: int = 1) -> Tensor:
            x = convolution(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), stride=stride)
            return self.norm(f"{name}.norm", x, weights, buffers, dropout is not None)

        if k == 0:
            return replica_by_replica(self.activate(normed("stem", x)), R)
        name, stride, projected = self.blocks[k - 1]
        shortcut = normed(f"{name}.shortcut", x, stride) if projected else x
        x = self.activate(normed(f"{name}.first", x, stride))
        if dropout is not None:
            x = side_by_side(dropout(k - 1, replica_by_replica(x, R)))
        x = normed(f"{name}.second", x)
        if self.residual:
            x = x.add_(shortcut) if x.dim() == 4 else x + shortcut  # in place where x is no view
        return replica_by_replica(self.activate(x), R)

    def flat(self, x: Tensor) -> Tensor:
        """Return the means of maps x (R, B, C, H, W) over their pixels."""
        return x if x.dim() == 3 else pixel_mean(x)
