"""A pack: R replicas as one stacked program.

All weights lie in one buffer theta (R, P) and all gradients in another, so that an optimiser step is one call. Each
parameter is a view (R, *shape) into them. The loss that is differentiated is the sum of the replicas' losses: the
gradient of a sum of functions of separate rows is, row by row, the gradient of each, so no replica sees another, and a
replica that turns to NaN keeps it to itself.

Shape suffixes: R replicas, S some of them, P parameters, U distinct starts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lab.knobs import TrialConfig
from lab.models import Network
from lab.models.layers import HEAD, Factors, placed
from lab.training.padding import aligned, filled, shapes
from lab.training.starts import Frozen, origin, start

TINY = 1e-6  # added to the norm of a gradient before dividing by it, as torch.nn.utils.clip_grad_norm_ does


class View(NamedTuple):
    """Some replicas of a pack, for looking at: weights and running statistics are slices of the pack's."""

    network: Network
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]


class Pack:
    """The state of R replicas: weights, gradients and running statistics, on one device.

    A row of theta is filled up with zeros to whole cache lines. A fused optimiser computes the last few values of a
    buffer by other instructions than the rest, which round differently: with whole lines there are none, and a replica
    has the same bits wherever in a pack it sits.

    Attributes:
        theta_RP: All weights that are trained; its `grad` holds all gradients.
        weights: name → (R, *shape), views into theta, and `frozen`.
        buffers: name → (R, *shape), running statistics of what is trained.
        frozen: Weights and running statistics of the blocks that are not trained.
    """

    def __init__(
        self,
        network: Network,
        theta_RP: Tensor,
        buffers: Mapping[str, Tensor],
        frozen: Frozen | None = None,
    ) -> None:
        """Take over weights (R, P), filled up or not, running statistics (R, *shape), and what is frozen."""
        n_replicas = len(theta_RP)
        self.network = network
        theta_RP = aligned(theta_RP)
        self.theta_RP = theta_RP
        self.theta_RP.grad = torch.zeros_like(theta_RP)
        self.buffers = dict(buffers)
        self.frozen = frozen or Frozen({}, torch.zeros(n_replicas, dtype=torch.int64, device=theta_RP.device))
        self.weights: dict[str, Tensor] = {}
        self._places: dict[str, Tensor] = {}  # name → where its gradient goes
        start = 0
        for parameter in network.trained:
            end = start + int(np.prod(parameter.shape))
            shape = (n_replicas, *parameter.shape)
            weight = theta_RP[:, start:end].view(shape).detach().requires_grad_()
            self._places[parameter.name] = self.theta_RP.grad[:, start:end].view(shape)
            self.weights[parameter.name] = placed(weight, self._places[parameter.name])
            start = end
        self._trained = list(self.weights.values())
        self.weights |= self.frozen.of_replicas()

    @classmethod
    def start(
        cls,
        network: Network,
        configs_R: Sequence[TrialConfig],
        inits_R: Sequence[int],
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        networks_R: Sequence[Network] | None = None,
    ) -> "Pack":
        """Give each replica its start (lab.training.starts): those of equal scheme, gain and init index start equal.

        With `networks_R`, narrower than the pack's, each starts as that network of its own and is filled up with zeros.

        Raises:
            SpecError: The configurations start from a file that does not fit.
            ValueError: The initialisation scheme is unknown.
        """
        networks_R = networks_R or [network] * len(configs_R)
        names = [
            (own, c.init_scheme, c.init_gain, int(i)) for own, c, i in zip(networks_R, configs_R, inits_R, strict=True)
        ]
        distinct, wanted = dict(zip(names, configs_R, strict=True)), shapes(network)
        starts_U = [
            {name: filled(value, wanted[name]) for name, value in start(own, config, init, seed=seed).items()}
            for (own, _, _, init), config in distinct.items()
        ]
        index_R = torch.tensor([list(distinct).index(name) for name in names])

        def stacked(values_U: Sequence[Tensor]) -> Tensor:
            value = torch.stack(list(values_U)).index_select(0, index_R)
            return value.to(device, dtype if value.is_floating_point() else value.dtype)

        trained = [p.name for p in network.trained]
        theta_RP = stacked([torch.cat([of_one[name].flatten() for name in trained]) for of_one in starts_U])
        others = [name for name in starts_U[0] if name not in trained]
        buffers = {n: stacked([of_one[n] for of_one in starts_U]) for n in others if not network.is_frozen(n)}
        if not network.n_frozen:
            return cls(network, theta_RP, buffers)
        origins_R = [origin(config, int(i)) for config, i in zip(configs_R, inits_R, strict=True)]
        first_of: dict[tuple[Any, ...], int] = {}
        for name, k in zip(origins_R, index_R.tolist(), strict=True):
            first_of.setdefault(name, k)
        tensors = {
            name: torch.stack([starts_U[k][name] for k in first_of.values()]).to(theta_RP)
            for name in others if network.is_frozen(name)
        }  # fmt: skip
        places_R = torch.tensor([list(first_of).index(name) for name in origins_R], device=device)
        return cls(network, theta_RP, buffers, Frozen(tensors, places_R))

    def __len__(self) -> int:
        return len(self.theta_RP)

    def differentiate(self, outputs: Tensor, gradient: Tensor | None = None) -> None:
        """Write the gradient of each replica's own loss to theta's gradient (R, P).

        The outputs are logits, of which the gradient of the losses is given, or the sum of the losses itself. What is
        computed is written there as soon as it is known (lab.models.layers.placed), and what is copied is released:
        there are never two of all of them.
        """
        torch.autograd.grad(outputs, self._trained, gradient)

    @torch.no_grad()
    def differentiate_by_hand(self, x: Tensor, gradient_of: Callable[[Tensor], Tensor], factors: Factors) -> None:
        """Do the same by the network's own `differentiate`, whose arguments these are."""
        self.network.differentiate(x, self.weights, self._places, gradient_of, factors)

    def penalise(self, l1_R1: Tensor) -> None:
        """Add to each replica's gradient that of its factor times the sum of its absolute weights."""
        gradient_RP = self.theta_RP.grad
        assert gradient_RP is not None
        gradient_RP.addcmul_(self.theta_RP.sign(), l1_R1)

    def clip(self, norm_R1: Tensor) -> None:
        """Scale down each replica's gradient to its own largest norm, as clip_grad_norm_ does with one network."""
        gradient_RP = self.theta_RP.grad
        assert gradient_RP is not None
        size_R1 = torch.linalg.vector_norm(gradient_RP, dim=1, keepdim=True)
        gradient_RP.mul_((norm_R1 / (size_R1 + TINY)).clamp_max_(1.0))

    def finite_R(self) -> Tensor:
        """Return which replicas have finite weights, shape (R,)."""
        # NaN if any is; no second copy of the weights. torch.aminmax along an axis takes 20 times as long on the CPU
        least_R, largest_R = self.theta_RP.amin(dim=1), self.theta_RP.amax(dim=1)
        return torch.isfinite(least_R) & torch.isfinite(largest_R)

    def take(self, rows_S: Tensor) -> "Pack":
        """Return a copy of these replicas as a pack of their own."""
        buffers = {name: value.index_select(0, rows_S) for name, value in self.buffers.items()}
        return Pack(self.network, self.theta_RP.index_select(0, rows_S), buffers, self.frozen.take(rows_S))

    def view(self, rows: slice) -> View:
        """Return these replicas, without a copy."""
        return View(
            self.network,
            {name: value[rows] for name, value in self.weights.items()},
            {name: value[rows] for name, value in self.buffers.items()},
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return all weights and running statistics by name, (R, *shape), without a copy."""
        return {name: value.detach() for name, value in {**self.weights, **self.buffers}.items()}

    def head(self) -> slice:
        """Return the columns of theta that are the head's, which are its last."""
        n_head = sum(int(np.prod(p.shape)) for p in self.network.trained if p.name.startswith(HEAD))
        return slice(self.network.n_parameters - n_head, self.network.n_parameters)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that training goes on from, without a copy: weights and running statistics."""
        return {"theta": self.theta_RP} | {f"buffer.{name}": value for name, value in self.buffers.items()}
