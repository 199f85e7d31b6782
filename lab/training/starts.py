"""Where a replica starts: weights drawn from its init stream, or those of a file, with or without a head of its own.

Shape suffixes: R replicas, S some of them, U distinct starts, P weights of one network.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab import seeds, weights
from lab.errors import SpecError
from lab.knobs import TrialConfig
from lab.models import Network
from lab.models.initialization import Array, initial_values
from lab.models.layers import HEAD, Parameter


class Frozen(NamedTuple):
    """What stays as it is in the networks of a pack: weights and running statistics, once a start.

    Attributes:
        tensors: name → (U, *shape).
        origins_R: Which of the U starts each replica has.
    """

    tensors: Mapping[str, Tensor]
    origins_R: Tensor

    def of_replicas(self) -> dict[str, Tensor]:
        """Return name → (R, *shape), without a copy if all replicas have one start."""
        n_starts, n_replicas = len(next(iter(self.tensors.values()), ())), len(self.origins_R)
        if n_starts == 1:
            return {name: value.expand(n_replicas, *value.shape[1:]) for name, value in self.tensors.items()}
        if self.origins_R.tolist() == list(range(n_starts)):
            return dict(self.tensors)
        return {name: value.index_select(0, self.origins_R) for name, value in self.tensors.items()}

    def take(self, rows_S: Tensor) -> "Frozen":
        """Return those of these replicas."""
        origins, origins_S = torch.unique(self.origins_R.index_select(0, rows_S), return_inverse=True)
        return Frozen({name: value.index_select(0, origins) for name, value in self.tensors.items()}, origins_S)


def origin(config: TrialConfig, init: int) -> tuple[Any, ...]:
    """Return what the blocks of two replicas, which their heads may differ from, start equal by."""
    if config.weights:
        return (init % len(weights.given(config.weights).replicas),)
    return config.init_scheme, config.init_gain, init


def start(network: Network, config: TrialConfig, init: int, *, seed: int) -> dict[str, Tensor]:
    """Return where init `init` starts: weights and buffers by name.

    With `config.weights` it is replica init modulo n of the n that are there, so that each seed has a start of its own
    and common ones with every other trial; with `config.new_head` the output layer is drawn all the same.

    Raises:
        SpecError: The file is none, or its weights are not those of such a network.
        ValueError: The initialisation scheme is unknown.
    """
    if not config.weights and network.where_weights:
        raise SpecError(f"family {config.family!r} has no weights to start from: {network.where_weights}")
    if network.is_own or not config.weights:
        rng = seeds.generator(seed, "init", init)
        values_P, buffers = network.initial(config.init_scheme, config.init_gain, rng)
        started = _parts(network.parameters, values_P) | buffers
    else:
        shapes = {p.name: p.shape for p in network.parameters} | network.buffers
        started = {name: torch.empty(shape) for name, shape in shapes.items()}
        if config.new_head:  # drawn as it would have been after all that comes before it
            started |= _drawn_head(tuple(network.parameters), config.init_scheme, config.init_gain, seed, init)
    if not config.weights:
        return started
    replicas = weights.given(config.weights).replicas
    tensors = dict(replicas[init % len(replicas)])
    wanted = set(started)
    if config.new_head:
        wanted = {name for name in wanted if not name.startswith(HEAD)}
        tensors = {name: value for name, value in tensors.items() if not name.startswith(HEAD)}
    for name in [name for name in started if name in wanted]:
        found = torch.from_numpy(_taken(config, network, name, tuple(started[name].shape), tensors))
        started[name] = found.to(started[name].dtype)
    known = ("input.", *(network.other_heads if config.new_head else ()))
    strange = sorted(n for n in tensors if not n.startswith(known) and not n.endswith(".num_batches_tracked"))
    if strange:
        raise SpecError(
            f"weights: {config.weights} has {strange[0]}, which this {config.family} has not: set its depth and norm"
        )
    return started


def _parts(parameters: Sequence[Parameter], values_P: Array) -> dict[str, Tensor]:
    ends = np.cumsum([int(np.prod(p.shape)) for p in parameters])
    return {
        p.name: torch.from_numpy(part.reshape(p.shape))
        for p, part in zip(parameters, np.split(values_P, ends[:-1]), strict=True)
    }


@functools.lru_cache(maxsize=256)
def _drawn_head(
    parameters: tuple[Parameter, ...], scheme: str, gain: float, seed: int, init: int
) -> Mapping[str, Tensor]:
    """Return the head that a seed would have had without a file; a process draws it once."""
    drawn = _parts(parameters, initial_values(parameters, scheme, gain, seeds.generator(seed, "init", init)))
    return {name: value.clone() for name, value in drawn.items() if name.startswith(HEAD)}


def _taken(
    config: TrialConfig, network: Network, name: str, shape: tuple[int, ...], tensors: dict[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Take a tensor out of those of a file, as the network stores it."""
    theirs = name if network.is_own else weights.torch_name(name)
    is_head = " (for other classes set new_head=True)" if name.startswith(HEAD) else ""
    if theirs not in tensors:
        raise SpecError(f"weights: {config.weights} has no {theirs}, which this {config.family} needs{is_head}")
    value = tensors.pop(theirs)
    value = weights.transposed(value) if name.endswith(".weight") and not network.is_own else value
    if value.shape != shape:
        raise SpecError(
            f"weights: {theirs} of {config.weights} has the shape {value.shape}, and this {config.family} of width "
            f"{config.width} needs {shape}{is_head}"
        )
    return np.ascontiguousarray(value)
