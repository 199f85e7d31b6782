"""Dropout whose masks do not know the pack: a counter-based hash of (stream, step, layer, unit).

Shape suffixes: R replicas, U distinct pairs of init stream and rate, B batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lab import seeds

LEVELS = 65536  # of a rate: a unit is dropped if its 16 random bits are below rate × LEVELS


class Dropout:
    """Inverted dropout whose masks depend on the init stream, the step and the layer, and on nothing else.

    A mask is a hash of (stream key, step, layer, position in the batch), computed where the data are: it is the same
    whatever other replicas share the pack, on every device, and after any interruption. Two 16-bit halves of a 32-bit
    hash serve two units, so the rate is rounded to 1/65536. The mixing constants are those of lowbias32
    (C. Wellons, "Prospecting for hash functions", 2018); the second half of the key enters between its rounds.
    """

    _M1 = 0x7FEB352D
    _M2 = 0x846CA68B - 2**32  # as a signed 32-bit number

    def __init__(self, rates_R: Sequence[float], inits_R: Sequence[int], *, seed: int, device: torch.device) -> None:
        """Take the dropout rate and the init stream of each replica."""
        pairs = [(int(i), round(rate * LEVELS)) for rate, i in zip(rates_R, inits_R, strict=True)]
        distinct = sorted(set(pairs))
        dropped = torch.tensor([level for _, level in distinct], dtype=torch.int32, device=device)[:, None]
        self._keys = [seeds.stream(seed, "dropout", i) for i, _ in distinct]
        self._is_off = not bool(dropped.any())
        self._threshold_U1 = (dropped - LEVELS // 2).to(torch.int16)
        self._scale_U1 = LEVELS / (LEVELS - dropped)
        self._index_R = torch.tensor([distinct.index(pair) for pair in pairs], device=device)
        self._device = device
        self._counters: dict[int, Tensor] = {}
        self.step = 0

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        self._index_R = self._index_R.index_select(0, rows_S)

    def _layer_keys(self, layer: int) -> tuple[Tensor, Tensor]:
        words = np.array(
            [seeds.mix64(key + seeds.mix64((self.step << 16) + layer)) for key in self._keys], dtype=np.uint64
        )
        halves = words.view(np.int32).reshape(-1, 2)
        return tuple(torch.from_numpy(halves[:, k : k + 1].copy()).to(self._device) for k in (0, 1))  # type: ignore[return-value]

    def kept(self, layer: int, n: int) -> Tensor:
        """Return which of n units each pair of stream and rate keeps at this step and layer, shape (U, n), bool."""
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
        return h.view(torch.int16)[:, :n] >= self._threshold_U1

    def __call__(self, layer: int, x: Tensor) -> Tensor:
        """Return x (R, B, …) with dropped units at 0 and the kept ones scaled by 1 / (1 − rate)."""
        if self._is_off:
            return x
        mask_Un = self.kept(layer, x[0].numel()).to(x.dtype).mul_(self._scale_U1)
        return x * mask_Un.index_select(0, self._index_R).view(x.shape)
