"""Model families, one a file, each with a capacity dial; all of them hold R networks in one stacked program.

`build(config, image_shape, n_classes)` returns a `Network`: a description without weights. `FAMILIES` is the registry;
`register` adds a family of the user's own (lab.models.own).
"""

from collections.abc import Callable
from functools import partial

from lab.knobs import TrialConfig
from lab.models.cnn import CNN
from lab.models.layers import Network, Parameter
from lab.models.mlp import MLP
from lab.models.own import Build, Own
from lab.models.pretrained import Pretrained
from lab.models.resnet import ResNet

__all__ = ["FAMILIES", "Network", "Parameter", "build", "register"]

Family = Callable[[TrialConfig, tuple[int, int, int], int], Network]
FAMILIES: dict[str, Family] = {
    "mlp": MLP,
    "cnn": CNN,
    "resnet": ResNet,
    "pretrained": Pretrained,
}
_REGISTERED: dict[str, Family] = {}


def register(name: str, function: Build) -> None:
    """Make a family of a function that builds a torch.nn.Module, see lab.models.own; a second call replaces it.

    Raises:
        ValueError: The name is that of a family of the lab.
    """
    if name in FAMILIES:
        raise ValueError(f"family {name!r} is one of the lab's own: give your function another name")
    _REGISTERED[name] = partial(Own, name, function)


def build(config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> Network:
    """Return the network of a configuration for images of shape (channels, height, width).

    Raises:
        ValueError: The family is unknown, or cannot be built.
    """
    families = FAMILIES | _REGISTERED
    if config.family not in families:
        raise ValueError(f"unknown model family {config.family!r}: choose one of {', '.join(families)}")
    network = families[config.family](config, image_shape, n_classes)
    if network.is_own and (config.frozen or config.new_head or config.head_rate_factor != 1):
        raise ValueError(
            f"family {config.family!r}: frozen, new_head and head_rate_factor are for the lab's own families: "
            "in a module, let parameters not require a gradient"
        )
    return network
