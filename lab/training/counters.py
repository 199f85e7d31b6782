"""Random numbers that do not know the pack: a counter-based hash of (stream, step, purpose, position).

The same numbers come out whatever other replicas share the pack, on every device, and after any interruption.

Shape suffixes: U streams.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lab import seeds

_M1 = 0x7FEB352D
_M2 = 0x846CA68B - 2**32  # as a signed 32-bit number


def step_keys(streams_U: Sequence[int], step: int, purpose: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the two halves of the key of each stream at a step for a purpose (below 2¹⁶), each (U, 1) int32."""
    words = np.array([seeds.mix64(key + seeds.mix64((step << 16) + purpose)) for key in streams_U], dtype=np.uint64)
    halves = words.view(np.int32).reshape(-1, 2)
    first, second = (torch.from_numpy(halves[:, k : k + 1].copy()).to(device) for k in (0, 1))
    return first, second


def hashed(counters_n: Tensor, keys: tuple[Tensor, Tensor]) -> Tensor:
    """Return 32 random bits for each stream and counter, shape (U, n) int32.

    The mixing constants are those of lowbias32 (C. Wellons, "Prospecting for hash functions", 2018); the second half
    of the key enters between its rounds.
    """
    first_U1, second_U1 = keys
    h = counters_n[None] ^ first_U1
    h ^= (h >> 16) & 0xFFFF  # torch shifts in the sign: the mask makes the shift a logical one
    h *= _M1
    h += second_U1
    h ^= (h >> 15) & 0x1FFFF
    h *= _M2
    h ^= (h >> 16) & 0xFFFF
    return h


class Counters:
    """Uniform and normal numbers of some streams, step by step."""

    def __init__(self, streams_U: Sequence[int], device: torch.device) -> None:
        self._streams, self._device = list(streams_U), device
        self._counters: dict[int, Tensor] = {}

    def uniform(self, step: int, purpose: int, n: int) -> Tensor:
        """Return n numbers of each stream, evenly spread over [0, 1), shape (U, n) float32; 24 bits of each count."""
        if n not in self._counters:
            self._counters[n] = torch.arange(n, dtype=torch.int32, device=self._device)
        h = hashed(self._counters[n], step_keys(self._streams, step, purpose, self._device))
        return ((h >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24

    def normal(self, step: int, purpose: int, n: int) -> Tensor:
        """Return n standard normal numbers of each stream, shape (U, n) float32 (Box & Muller 1958)."""
        half = (n + 1) // 2
        u = self.uniform(step, purpose, 2 * half)
        radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :half]))
        angle = 2 * math.pi * u[:, half:]
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :n]
