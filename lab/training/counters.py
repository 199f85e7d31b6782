"""Random numbers that do not know the pack: a counter-based hash of (stream, step, purpose, position).

The same numbers come out whatever other replicas share the pack, on every device, and after any interruption.

Shape suffixes: U streams, K steps of an epoch, S some of them.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lab import seeds
from lab.training.moment import Moment, stored

_M1 = 0x7FEB352D
_M2 = 0x846CA68B - 2**32  # as a signed 32-bit number


class Keys:
    """The keys of some streams at every step of an epoch, laid out where the data are."""

    def __init__(self, streams_U: Sequence[int], device: torch.device) -> None:
        self._streams_U, self._device = np.array(streams_U, dtype=np.uint64), device
        self._steps_K = np.zeros(1, dtype=np.uint64)
        self._tables: dict[int, Tensor] = {}  # purpose → (K, U, 2)

    def begin(self, first_step: int, n_steps: int) -> None:
        """Begin an epoch: moments now count from this step of the training."""
        self._steps_K = np.arange(first_step, first_step + n_steps, dtype=np.uint64)
        for purpose, table in self._tables.items():
            self._tables[purpose] = stored(table, self._table(purpose), self._device)

    def _table(self, purpose: int) -> Tensor:
        inner_K = seeds.mix64((self._steps_K << np.uint64(16)) + np.uint64(purpose))
        words_KU = seeds.mix64(self._streams_U + inner_K[:, None])
        return torch.from_numpy(words_KU.view(np.int32).reshape(*words_KU.shape, 2))

    def at(self, moment: Moment, purpose: int) -> tuple[Tensor, Tensor]:
        """Return the two halves of the key of each stream for a purpose (below 2¹⁶), each (U, 1) int32."""
        first_U1, second_U1 = moment.of(self._at_every_step(purpose)).split(1, dim=1)
        return first_U1, second_U1

    def of_steps(self, k: int, n_steps: int, purpose: int) -> tuple[Tensor, Tensor]:
        """Return the same of so many steps of the epoch from the k-th on, or of those that are left, each (S, U, 1)."""
        first_SU1, second_SU1 = self._at_every_step(purpose)[k : k + n_steps].split(1, dim=2)
        return first_SU1, second_SU1

    def _at_every_step(self, purpose: int) -> Tensor:
        if purpose not in self._tables:
            self._tables[purpose] = stored(None, self._table(purpose), self._device)
        return self._tables[purpose]


def hashed(counters: Tensor, keys: tuple[Tensor, Tensor]) -> Tensor:
    """Return 32 random bits for each stream and counter, shape (…, U, n) int32, given keys (…, U, 1).

    The counters are (n,), or (U, n) of each stream.

    The mixing constants are those of lowbias32 (C. Wellons, "Prospecting for hash functions", 2018); the second half
    of the key enters between its rounds.
    """
    first, second = keys
    h = counters ^ first
    h ^= (h >> 16) & 0xFFFF  # torch shifts in the sign: the mask makes the shift a logical one
    h *= _M1
    h += second
    h ^= (h >> 15) & 0x1FFFF
    h *= _M2
    h ^= (h >> 16) & 0xFFFF
    return h


class Counters:
    """Uniform and normal numbers of some streams, step by step."""

    def __init__(self, streams_U: Sequence[int], device: torch.device) -> None:
        self._keys, self._device = Keys(streams_U, device), device
        self._counters: dict[int, Tensor] = {}

    def begin(self, first_step: int, n_steps: int) -> None:
        """Begin an epoch, see `Keys`."""
        self._keys.begin(first_step, n_steps)

    def uniform(self, moment: Moment, purpose: int, n: int) -> Tensor:
        """Return n numbers of each stream, evenly spread over [0, 1), shape (U, n) float32; 24 bits of each count."""
        if n not in self._counters:
            self._counters[n] = torch.arange(n, dtype=torch.int32, device=self._device)
        h = hashed(self._counters[n], self._keys.at(moment, purpose))
        return ((h >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24

    def normal(self, moment: Moment, purpose: int, n: int) -> Tensor:
        """Return n standard normal numbers of each stream, shape (U, n) float32 (Box & Muller 1958)."""
        half = (n + 1) // 2
        u = self.uniform(moment, purpose, 2 * half)
        radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :half]))
        angle = 2 * math.pi * u[:, half:]
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :n]
