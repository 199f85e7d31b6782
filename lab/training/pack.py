"""A pack: R replicas of one configuration as one stacked program.

All weights lie in one buffer theta (R, P) and all gradients in another, so that an optimiser step is one call. Each
parameter is a view (R, *shape) into them. The loss that is differentiated is the sum of the replicas' losses: the
gradient of a sum of functions of separate rows is, row by row, the gradient of each, so no replica sees another, and a
replica that turns to NaN keeps it to itself.

Shape suffixes: R replicas, P parameters, U distinct init streams, B batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lab import seeds
from lab.knobs import TrialConfig
from lab.models import Network
from lab.models.initialization import initial_values


class Pack:
    """The state of R replicas: weights, gradients and running statistics, on one device."""

    def __init__(
        self, network: Network, inits_R: Sequence[int], *, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Draw the initial weights: replicas of the same init index start equal."""
        config = network.config
        streams, index_R = np.unique(np.asarray(inits_R), return_inverse=True)
        start_UP = np.stack(
            [
                initial_values(
                    network.parameters, config.init_scheme, config.init_gain, seeds.generator(seed, "init", int(i))
                )
                for i in streams
            ]
        )
        n_replicas = len(inits_R)
        self.network = network
        self.theta_RP = torch.from_numpy(start_UP[index_R]).to(device, dtype)
        self.theta_RP.grad = torch.zeros_like(self.theta_RP)
        self.weights: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []
        start = 0
        for parameter in network.parameters:
            end = start + int(np.prod(parameter.shape))
            shape = (n_replicas, *parameter.shape)
            self.weights[parameter.name] = self.theta_RP[:, start:end].view(shape).detach().requires_grad_()
            self._gradients.append(self.theta_RP.grad[:, start:end].view(shape))
            start = end
        self.buffers = {
            name: (torch.ones if name.endswith(".var") else torch.zeros)(
                (n_replicas, *shape), device=device, dtype=dtype
            )
            for name, shape in network.buffers.items()
        }

    def differentiate(self, summed_loss: Tensor) -> None:
        """Write the gradient of each replica's own loss to theta's gradient (R, P)."""
        torch._foreach_copy_(self._gradients, torch.autograd.grad(summed_loss, list(self.weights.values())))

    def finite_R(self) -> Tensor:
        """Return which replicas have finite weights, shape (R,)."""
        return torch.isfinite(self.theta_RP).all(dim=1)


class Dropout:
    """Inverted dropout whose masks depend on the init stream, the step and the layer, and on nothing else.

    A mask is a hash of (stream key, step, layer, position in the batch), computed where the data are: it is the same
    whatever other replicas share the pack, on every device, and after any interruption. Two 16-bit halves of a 32-bit
    hash serve two units, so the rate is rounded to 1/65536. The mixing constants are those of lowbias32
    (C. Wellons, "Prospecting for hash functions", 2018); the second half of the key enters between its rounds.
    """

    _M1 = 0x7FEB352D
    _M2 = 0x846CA68B - 2**32  # as a signed 32-bit number

    def __init__(self, config: TrialConfig, inits_R: Sequence[int], *, seed: int, device: torch.device) -> None:
        streams, index_R = np.unique(np.asarray(inits_R), return_inverse=True)
        self._keys = [seeds.stream(seed, "dropout", int(i)) for i in streams]
        self._index_R = torch.from_numpy(index_R).to(device)
        self._device = device
        self._dropped = round(config.dropout * 65536)
        self._counters: dict[int, Tensor] = {}
        self.step = 0

    def _layer_keys(self, layer: int) -> tuple[Tensor, Tensor]:
        words = np.array(
            [seeds.mix64(key + seeds.mix64((self.step << 16) + layer)) for key in self._keys], dtype=np.uint64
        )
        halves = words.view(np.int32).reshape(-1, 2)
        return tuple(torch.from_numpy(halves[:, k : k + 1].copy()).to(self._device) for k in (0, 1))  # type: ignore[return-value]

    def kept(self, layer: int, n: int) -> Tensor:
        """Return which of n units each stream keeps at this step and layer, shape (U, n), bool."""
        n_words = (n + 1) // 2
        if n_words not in self._counters:
            self._counters[n_words] = torch.arange(n_words, dtype=torch.int32, device=self._device)[None]
        first_U1, second_U1 = self._layer_keys(layer)
        h = self._counters[n_words] ^ first_U1
        h ^= (h >> 16) & 0xFFFF  # torch shifts in the sign: the mask makes the shift a logical one
        h *= self._M1
        h += second_U1
        h ^= (h >> 15) & 0x1FFFF
        h *= self._M2
        h ^= (h >> 16) & 0xFFFF
        return h.view(torch.int16)[:, :n] >= self._dropped - 32768

    def __call__(self, layer: int, x: Tensor) -> Tensor:
        """Return x (R, B, …) with dropped units at 0 and the kept ones scaled by 1 / (1 − rate)."""
        if self._dropped == 0:
            return x
        n = x[0].numel()
        scale = 65536 / (65536 - self._dropped)
        mask_Un = self.kept(layer, n).to(x.dtype).mul_(scale)
        return x * mask_Un.index_select(0, self._index_R).view(x.shape)
