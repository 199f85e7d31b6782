"""Networks that differ in width alone as one stack: the narrower in the corner of the wider, zeros around them.

Every tensor of a narrower network takes the first places of each axis of the wider one's. What is around it stays
exactly 0 in training (tests/training/test_padding.py), so that the corner is trained as if alone. `lab.fusion.form_of`
says for which networks that is so, `lab.training.strategy.packs` where it pays.

Shape suffixes: R replicas, P parameters.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lab import models
from lab.knobs import TrialConfig
from lab.models import Network

ALIGNMENT = 16  # values; rows of theta are whole cache lines (64 bytes in float32), see `lab.training.pack.Pack`
Shape = tuple[int, ...]
Values = TypeVar("Values", Tensor, NDArray[np.float32])


def built(configs: Sequence[TrialConfig], image_shape: tuple[int, int, int], n_classes: int) -> list[Network]:
    """Return the network of each configuration, of which those of one width have one: all else is equal.

    Raises:
        ValueError: One cannot be built.
    """
    first_of: dict[int, TrialConfig] = {}
    for config in configs:
        first_of.setdefault(config.width, config)
    of_width = {width: models.build(config, image_shape, n_classes) for width, config in first_of.items()}
    return [of_width[config.width] for config in configs]


def widest(networks: Sequence[Network]) -> Network:
    """Return the network that the others fit into."""
    return max(networks, key=lambda network: network.config.width)


def shapes(network: Network) -> dict[str, Shape]:
    """Return the shapes of all tensors of one network, by name."""
    return {p.name: p.shape for p in network.parameters} | network.buffers


def filled(value: Tensor, shape: Shape) -> Tensor:
    """Return a tensor of one network filled up with zeros to the shape that it has in a wider one."""
    missing = [n for size, wanted in zip(value.shape[::-1], shape[::-1], strict=True) for n in (0, wanted - size)]
    return F.pad(value, missing) if any(missing) else value


def corner(values_R: Values, shape: Shape) -> Values:
    """Return what tensors (R, …) of a wider network hold of one whose tensor has this shape, without a copy."""
    return values_R[(slice(None), *map(slice, shape))]


def corners(tensors_R: Mapping[str, Values], network: Network) -> dict[str, Values]:
    """Return the tensors (R, …) of a network among those of a wider one; what is no tensor of it stays as it is."""
    own = shapes(network)
    return {name: corner(value, own[name]) if name in own else value for name, value in tensors_R.items()}


def columns(network: Network, wide: Network) -> Tensor:
    """Return where in a row of theta (R, P) of a wider network the trained values of this one lie, in their order."""
    sizes = [math.prod(p.shape) for p in wide.trained]
    places = torch.arange(wide.n_parameters).split(sizes)
    of_each = [
        corner(part.view(1, *outer.shape), inner.shape).flatten()
        for part, outer, inner in zip(places, wide.trained, network.trained, strict=True)
    ]
    return torch.cat(of_each)


def aligned(theta_RP: Tensor) -> Tensor:
    """Return theta (R, P) with rows filled up with zeros to whole cache lines."""
    missing = -theta_RP.shape[1] % ALIGNMENT
    return F.pad(theta_RP, (0, missing)) if missing else theta_RP


def narrowed(state: Mapping[str, Tensor], network: Network, wide: Network) -> dict[str, Tensor]:
    """Return what `Crew.state` gives of replicas of this network, trained within a wider one, as if trained alone.

    Its tensors of two axes are rows as those of theta, moments and means among them: such networks have no buffers.
    """
    where = columns(network, wide)
    return {
        name: aligned(value.index_select(1, where.to(value.device))) if value.dim() == 2 else value
        for name, value in state.items()
    }
