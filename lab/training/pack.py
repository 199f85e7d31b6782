"""A pack: R replicas as one stacked program.

All weights lie in one buffer theta (R, P) and all gradients in another, so that an optimiser step is one call. Each
parameter is a view (R, *shape) into them. The loss that is differentiated is the sum of the replicas' losses: the
gradient of a sum of functions of separate rows is, row by row, the gradient of each, so no replica sees another, and a
replica that turns to NaN keeps it to itself.

Shape suffixes: R replicas, S some of them, P parameters, U distinct starts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import seeds
from lab.knobs import TrialConfig
from lab.models import Network

ALIGNMENT = 16  # values; rows of whole cache lines (64 bytes in float32), see `Pack`
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
        theta_RP: All weights; its `grad` holds all gradients.
        weights: name → (R, *shape), views into theta.
        buffers: name → (R, *shape), running statistics.
    """

    def __init__(self, network: Network, theta_RP: Tensor, buffers: Mapping[str, Tensor]) -> None:
        """Take over weights (R, P), filled up or not, and running statistics (R, *shape)."""
        n_replicas, n_filled = len(theta_RP), -(-network.n_parameters // ALIGNMENT) * ALIGNMENT
        self.network = network
        if theta_RP.shape[1] != n_filled:
            theta_RP = F.pad(theta_RP, (0, n_filled - theta_RP.shape[1]))
        self.theta_RP = theta_RP
        self.theta_RP.grad = torch.zeros_like(theta_RP)
        self.buffers = dict(buffers)
        self.weights: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []
        start = 0
        for parameter in network.parameters:
            end = start + int(np.prod(parameter.shape))
            shape = (n_replicas, *parameter.shape)
            self.weights[parameter.name] = theta_RP[:, start:end].view(shape).detach().requires_grad_()
            self._gradients.append(self.theta_RP.grad[:, start:end].view(shape))
            start = end

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
    ) -> "Pack":
        """Draw the initial weights: replicas of equal scheme, gain and init index start equal."""
        starts = [(c.init_scheme, c.init_gain, int(i)) for c, i in zip(configs_R, inits_R, strict=True)]
        distinct = list(dict.fromkeys(starts))
        values_U, buffers_U = zip(
            *(network.initial(scheme, gain, seeds.generator(seed, "init", init)) for scheme, gain, init in distinct),
            strict=True,
        )
        index_R = torch.tensor([distinct.index(start) for start in starts], device=device)
        buffers = {}
        for name in network.buffers:
            value = torch.stack([buffers[name] for buffers in buffers_U]).index_select(0, index_R.cpu())
            buffers[name] = value.to(device, dtype if value.is_floating_point() else value.dtype)
        start_UP = torch.from_numpy(np.stack(values_U)).to(device, dtype)
        return cls(network, start_UP.index_select(0, index_R), buffers)

    def __len__(self) -> int:
        return len(self.theta_RP)

    def differentiate(self, summed_loss: Tensor) -> None:
        """Write the gradient of each replica's own loss to theta's gradient (R, P)."""
        torch._foreach_copy_(self._gradients, torch.autograd.grad(summed_loss, list(self.weights.values())))

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
        return torch.isfinite(self.theta_RP).all(dim=1)

    def take(self, rows_S: Tensor) -> "Pack":
        """Return a copy of these replicas as a pack of their own."""
        buffers = {name: value.index_select(0, rows_S) for name, value in self.buffers.items()}
        return Pack(self.network, self.theta_RP.index_select(0, rows_S), buffers)

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

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that training goes on from, without a copy: weights and running statistics."""
        return {"theta": self.theta_RP} | {f"buffer.{name}": value for name, value in self.buffers.items()}
