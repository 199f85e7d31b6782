"""Model families, one a file, each with a capacity dial; all of them hold R networks in one stacked program.

`build(config, image_shape, n_classes)` returns a `Network`: a description without weights. `FAMILIES` is the registry.
"""

from collections.abc import Callable

from lab.knobs import TrialConfig
from lab.models.cnn import CNN
from lab.models.layers import Network, Parameter
from lab.models.mlp import MLP
from lab.models.resnet import ResNet

__all__ = ["FAMILIES", "Network", "Parameter", "build"]

FAMILIES: dict[str, Callable[[TrialConfig, tuple[int, int, int], int], Network]] = {
    "mlp": MLP,
    "cnn": CNN,
    "resnet": ResNet,
}


def build(config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> Network:
    """Return the network of a configuration for images of shape (channels, height, width).

    Raises:
        ValueError: The family is unknown.
    """
    if config.family not in FAMILIES:
        raise ValueError(f"unknown model family {config.family!r}: choose one of {', '.join(FAMILIES)}")
    return FAMILIES[config.family](config, image_shape, n_classes)
