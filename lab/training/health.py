"""Signal health: whether activations and gradients of each layer are of a size that lets it learn.

Measured at an evaluation, for each replica: on examples of its own training set, what leaves each hidden layer; and of
the last training step, how large gradient and update were beside the weights. Nothing of the training is changed.

Names are "signal:<what>:<layer>". Activations: `rms`; `dead`, the share of units that are 0 for all examples (relu);
`saturated`, the share of values at which the slope of the activation is below 5 % of its largest (tanh, sigmoid).
Weights: `gradient` and `weight`, root mean squares over the values of the tensor; `update`, the norm of the last step
divided by that of the weights before it.

Shape suffixes: R replicas, P parameters, B batch; images are CHW.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.models import Network
from lab.training.pack import Pack

# At which signals are measured: at each of 20 they took 7 to 11 % of the processor time of training on digits, at 6 up
# to 4 % (three perceptrons and a cnn of 32 replicas, least of 2 or 3 by turns, 2 shared cores of an AMD EPYC).
N_EVALUATIONS = 6
N_EXAMPLES = 128  # of the training set that the activations are measured on, at the most
FLAT = 0.05  # a slope below this share of the largest one counts as saturated

# activation → slope at its own output, as a share of the largest slope
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda a: 1 - a.square(),
    "sigmoid": lambda a: 4 * a * (1 - a),
}


def watched(epochs: Sequence[int]) -> set[int]:
    """Return the epochs, of those of the evaluations, after which signals are measured: the first and last are in."""
    return {*epochs[:: -(-len(epochs) // (N_EVALUATIONS - 1))], epochs[-1]}


class Probe:
    """Stands where a network expects its dropout, and takes note of what passes."""

    def __init__(self, activation: str, width_R: Tensor, wide: int) -> None:
        """Take the width of each replica, and that to which it is filled up with zeros, which do not count."""
        self._activation, self._width_R, self._wide = activation, width_R, wide
        self.found: dict[str, Tensor] = {}

    def __call__(self, layer: int, x: Tensor) -> Tensor:
        """Measure the activations (R, B, units, …) of a layer and return them as they are."""
        self.found[f"signal:rms:{layer}"] = self._mean(x.square()).sqrt()
        if self._activation == "relu":
            alive_RC = (x > 0).transpose(1, 2).flatten(2).any(dim=2)
            self.found[f"signal:dead:{layer}"] = 1 - self._mean(alive_RC.to(x.dtype))
        if self._activation in SLOPES:
            flat = SLOPES[self._activation](x) < FLAT
            self.found[f"signal:saturated:{layer}"] = self._mean(flat.to(x.dtype))
        return x

    def _mean(self, values: Tensor) -> Tensor:
        """Return the mean of each replica's own values, given (R, …) that are 0 elsewhere."""
        return values.flatten(1).sum(dim=1) / (values[0].numel() * self._width_R // self._wide)


@torch.no_grad()
def measure(
    pack: Pack,
    before_RP: Tensor,
    images_RBCHW: Tensor | None,
    known_RB: Tensor | None = None,
    networks_R: Sequence[Network] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return the signals of every replica after a training step, name → (R,).

    Args:
        pack: After the step; it still holds the gradient.
        before_RP: The weights before the step; afterwards it holds something else.
        images_RBCHW: Examples of each replica's training set; None if their features are known.
        known_RB: What the frozen blocks make of them.
        networks_R: Of each replica, if some are narrower than the pack's: means are over its own units and weights.
    """
    networks_R = networks_R or [pack.network] * len(pack)
    width_R = torch.tensor([own.config.width for own in networks_R], device=pack.theta_RP.device)
    probe = Probe(pack.network.config.activation, width_R, pack.network.config.width)
    if not pack.network.is_own:  # which of its activations were those of a layer is not known
        buffers = {name: value.clone() for name, value in pack.buffers.items()}
        network = pack.network
        if images_RBCHW is None:
            assert known_RB is not None
            x = network.enter(known_RB)
        else:
            x = network.features(pack.weights, images_RBCHW)
        network.onward(x, pack.weights, buffers, probe)
    found = dict(probe.found)
    gradient_RP = pack.theta_RP.grad
    assert gradient_RP is not None
    sizes = {own: [math.prod(p.shape) for p in own.trained if p.kind == "weight"] for own in set(networks_R)}
    for k, (name, columns) in enumerate(_weights(pack)):
        n_R = [sizes[own][k] for own in networks_R]
        weight_Rp, start_Rp = pack.theta_RP[:, columns], before_RP[:, columns]
        found[f"signal:weight:{name}"] = _root_mean_square(weight_Rp, n_R)
        found[f"signal:gradient:{name}"] = _root_mean_square(gradient_RP[:, columns], n_R)
        size_R = torch.linalg.vector_norm(start_Rp, dim=1)
        found[f"signal:update:{name}"] = torch.linalg.vector_norm(start_Rp.sub_(weight_Rp), dim=1) / size_R
    return {name: value_R.to("cpu", torch.float64).numpy() for name, value_R in found.items()}


def _root_mean_square(values_Rp: Tensor, n_R: Sequence[int]) -> Tensor:
    root_R = torch.tensor([n**0.5 for n in n_R], dtype=values_Rp.dtype, device=values_Rp.device)
    return torch.linalg.vector_norm(values_Rp, dim=1) / root_R


def _weights(pack: Pack) -> Iterator[tuple[str, slice]]:
    """Yield the layers that have a weight, in their order, and where it lies in theta."""
    start = 0
    for parameter in pack.network.trained:
        end = start + int(np.prod(parameter.shape))
        if parameter.kind == "weight":
            yield parameter.name.removesuffix(".weight"), slice(start, end)
        start = end
