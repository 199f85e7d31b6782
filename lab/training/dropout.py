"""Dropout whose masks do not know the pack: a counter-based hash of (stream, step, layer, unit).

Shape suffixes: R replicas, U distinct pairs of init stream and rate, B batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lab import seeds
from lab.training.counters import Keys, hashed
from lab.training.moment import Moment

LEVELS = 65536  # of a rate: a unit is dropped if its 16 random bits are below rate × LEVELS


class Dropout:
    """Inverted dropout whose masks depend on the init stream, the step and the layer, and on nothing else.

    A mask is a hash of (stream key, step, layer, position in the batch), computed where the data are: it is the same
    whatever other replicas share the pack, on every device, and after any interruption. Two 16-bit halves of a 32-bit
    hash serve two units, so the rate is rounded to 1/65536.
    """

    def __init__(self, rates_R: Sequence[float], inits_R: Sequence[int], *, seed: int, device: torch.device) -> None:
        """Take the dropout rate and the init stream of each replica."""
        pairs = [(int(i), round(rate * LEVELS)) for rate, i in zip(rates_R, inits_R, strict=True)]
        distinct = sorted(set(pairs))
        dropped = torch.tensor([level for _, level in distinct], dtype=torch.int32, device=device)[:, None]
        self._keys = Keys([seeds.stream(seed, "dropout", i) for i, _ in distinct], device)
        self._is_off = not bool(dropped.any())
        self._threshold_U1 = (dropped - LEVELS // 2).to(torch.int16)
        self._scale_U1 = LEVELS / (LEVELS - dropped)
        self._index_R = torch.tensor([distinct.index(pair) for pair in pairs], device=device)
        self._device = device
        self._counters: dict[int, Tensor] = {}
        self.moment = Moment(0)

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        self._index_R = self._index_R.index_select(0, rows_S)

    def begin(self, first_step: int, n_steps: int) -> None:
        """Begin an epoch: `moment` now counts from this step of the training."""
        self._keys.begin(first_step, n_steps)

    def kept(self, layer: int, n: int, level: int | None = None) -> Tensor:
        """Return which of n units each pair of stream and rate keeps at this moment and layer, shape (U, n), bool.

        With `level` all have the rate level / LEVELS.
        """
        n_words = (n + 1) // 2
        if n_words not in self._counters:
            self._counters[n_words] = torch.arange(n_words, dtype=torch.int32, device=self._device)
        h = hashed(self._counters[n_words], self._keys.at(self.moment, layer))
        return h.view(torch.int16)[:, :n] >= (self._threshold_U1 if level is None else level - LEVELS // 2)

    def __call__(self, layer: int, x: Tensor, rate: float | None = None) -> Tensor:
        """Return x (R, B, …) with dropped units at 0 and the kept ones scaled by 1 / (1 − rate).

        The rate is that of each replica's configuration, unless one is given for all of them.
        """
        if self._is_off if rate is None else rate == 0:
            return x
        level = None if rate is None else round(rate * LEVELS)
        scale = self._scale_U1 if level is None else LEVELS / (LEVELS - level)
        mask_Un = self.kept(layer, x[0].numel(), level).to(x.dtype).mul_(scale)
        return x * mask_Un.index_select(0, self._index_R).view(x.shape)
