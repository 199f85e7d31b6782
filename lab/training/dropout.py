"""Dropout whose masks do not know the pack: a counter-based hash of (stream, step, layer, unit or channel).

Shape suffixes: R replicas, U distinct pairs of init stream and rate, B batch; maps are CHW.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lab import seeds
from lab.training.counters import Keys, hashed
from lab.training.moment import Moment

LEVELS = 65536  # of a rate: a unit is dropped if its 16 random bits are below rate × LEVELS
AHEAD = 2**16  # values of factors that are worked out at once
CHANNELS = 2**15  # the masks of whole channels have purposes from here on, those of units the ones below


class Masks:
    """Which things each replica keeps: a function of the init stream, the step and the purpose, and of nothing else.

    A mask is a hash of (stream key, step, purpose, position in the batch), computed where the data are: it is the same
    whatever other replicas share the pack, on every device, and after any interruption. Two 16-bit halves of a 32-bit
    hash serve two things, so the rate is rounded to 1/65536. Units of a replica that is filled up to a wider network
    (lab.training.padding) have the positions that they have alone.
    """

    def __init__(
        self,
        rates_R: Sequence[float],
        inits_R: Sequence[int],
        *,
        seed: int,
        device: torch.device,
        filled_R: Sequence[int] | None = None,
    ) -> None:
        """Take the rate and the init stream of each replica, and how many units its layers are filled up with."""
        filled_R = filled_R or [0] * len(rates_R)
        kinds = [(int(i), round(r * LEVELS), f) for r, i, f in zip(rates_R, inits_R, filled_R, strict=True)]
        distinct = sorted(set(kinds))
        dropped = torch.tensor([level for _, level, _ in distinct], dtype=torch.int32, device=device)[:, None]
        self._keys = Keys([seeds.stream(seed, "dropout", i) for i, _, _ in distinct], device)
        self._filled_U1: Tensor | None = None
        if any(filled_R):
            self._filled_U1 = torch.tensor([f for _, _, f in distinct], dtype=torch.int32, device=device)[:, None]
        self.is_off = not bool(dropped.any())
        self._threshold_U1 = (dropped - LEVELS // 2).to(torch.int16)
        self._scale_U1 = LEVELS / (LEVELS - dropped)
        self._index_R = torch.tensor([distinct.index(kind) for kind in kinds], device=device)
        self._device = device
        self._counters: dict[int, Tensor] = {}
        self._ahead: dict[tuple[int, int | None], tuple[int, Tensor]] = {}  # see `factors`: first step, (S, U, n)

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        self._index_R = self._index_R.index_select(0, rows_S)

    def begin(self, first_step: int, n_steps: int) -> None:
        """Begin an epoch: moments now count from this step of the training."""
        self._keys.begin(first_step, n_steps)
        self._ahead.clear()

    def kept(self, moment: Moment, purpose: int, n: int, level: int | None = None, n_examples: int = 1) -> Tensor:
        """Return which of n things, of so many examples, each pair of stream and rate keeps, shape (U, n), bool.

        With `level` all have the rate level / LEVELS.
        """
        return self._kept(self._keys.at(moment, purpose), n, level, n_examples)

    def _kept(self, keys: tuple[Tensor, Tensor], n: int, level: int | None, n_examples: int) -> Tensor:
        """Return the same for keys (…, U, 1), shape (…, U, n)."""
        if self._filled_U1 is None:
            bits = hashed(self._range((n + 1) // 2), keys).view(torch.int16)[..., :n]
        else:
            at_n = self._range(n)
            own_Un = at_n - at_n // (n // n_examples) * self._filled_U1
            bits = hashed(own_Un >> 1, keys) << ((own_Un & 1 ^ 1) << 4) >> 16  # the lower half is that of even ones
        return bits >= (self._threshold_U1 if level is None else level - LEVELS // 2)

    def _range(self, n: int) -> Tensor:
        if n not in self._counters:
            self._counters[n] = torch.arange(n, dtype=torch.int32, device=self._device)
        return self._counters[n]

    def factors(
        self, moment: Moment, purpose: int, like: Tensor, n: int, level: int | None = None, n_examples: int = 1
    ) -> Tensor:
        """Return what each pair of stream and rate multiplies n things by, as `like`, shape (U, n).

        It is 0, or 1 / (1 − rate) for what is kept. On the host that is worked out for some steps of the epoch ahead:
        for one small layer most of the time would go into calls.
        """
        scale = self._scale_U1 if level is None else LEVELS / (LEVELS - level)

        def of(keys: tuple[Tensor, Tensor]) -> Tensor:
            return self._kept(keys, n, level, n_examples).to(like.dtype).mul_(scale)

        n_steps = AHEAD // (len(self._threshold_U1) * n)
        if moment.counter is not None or n_steps < 2:  # large ones are not kept
            return of(self._keys.at(moment, purpose))
        k, (first, ahead_SUn) = moment.k, self._ahead.get((purpose, level), (0, None))
        if ahead_SUn is None or not first <= k < first + len(ahead_SUn) or ahead_SUn.shape[2] < n:
            first, ahead_SUn = k, of(self._keys.of_steps(k, n_steps, purpose))
            self._ahead[purpose, level] = first, ahead_SUn
        return ahead_SUn[k - first, :, :n]  # a smaller batch has the first ones

    def of_replicas(self, values_U: Tensor) -> Tensor:
        """Return values (U, …) of pairs of stream and rate for each replica, (R, …)."""
        return values_U.index_select(0, self._index_R)


class Dropout:
    """Inverted dropout of units, and of whole channels of an image: all of a map or nothing (Tompson et al. 2015)."""

    def __init__(
        self,
        rates_R: Sequence[float],
        inits_R: Sequence[int],
        *,
        seed: int,
        device: torch.device,
        channel_rates_R: Sequence[float] | None = None,
        filled_R: Sequence[int] | None = None,
    ) -> None:
        """Take the rates and the init stream of each replica; without `channel_rates_R` no channel is dropped.

        `filled_R` is how many units a replica's layers, of a perceptron, are filled up with.
        """
        self._units = Masks(rates_R, inits_R, seed=seed, device=device, filled_R=filled_R)
        self._channels = Masks(channel_rates_R or [0.0] * len(rates_R), inits_R, seed=seed, device=device)
        self.moment = Moment(0)

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        self._units.keep(rows_S)
        self._channels.keep(rows_S)

    def begin(self, first_step: int, n_steps: int) -> None:
        """Begin an epoch: `moment` now counts from this step of the training."""
        self._units.begin(first_step, n_steps)
        self._channels.begin(first_step, n_steps)

    def kept(self, layer: int, n: int, level: int | None = None) -> Tensor:
        """Return which of n units each pair of stream and rate keeps at this moment and layer, shape (U, n), bool.

        With `level` all have the rate level / LEVELS.
        """
        return self._units.kept(self.moment, layer, n, level)

    def kept_channels(self, layer: int, n: int) -> Tensor:
        """Return the same of n channels, of all images of a batch together."""
        return self._channels.kept(self.moment, CHANNELS + layer, n)

    def factors(self, layer: int, x: Tensor, level: int | None = None) -> Tensor | None:
        """Return what each unit of x (R, B, …) is multiplied by; None where none is dropped."""
        if self._units.is_off if level is None else level == 0:
            return None
        factor_Un = self._units.factors(self.moment, layer, x, x[0].numel(), level, x.shape[1])
        factor_UB = factor_Un.unflatten(1, x.shape[1:])
        if x.dim() == 3 and x.mT.is_contiguous():  # the same order in memory, see lab.models.layers.product
            return self._units.of_replicas(factor_UB.mT.contiguous()).mT
        return self._units.of_replicas(factor_UB)

    def __call__(self, layer: int, x: Tensor, rate: float | None = None) -> Tensor:
        """Return x (R, B, …) with what is dropped at 0 and what is kept scaled by 1 / (1 − rate).

        The rates are those of each replica's configuration, unless one is given for the units of all of them. With a
        rate of channels, x is images (R, B, C, H, W).
        """
        level = None if rate is None else round(rate * LEVELS)
        factors = self.factors(layer, x, level)
        if factors is not None:
            x = x * factors
        if level is None and not self._channels.is_off:
            R, B, C = x.shape[:3]
            factor_Un = self._channels.factors(self.moment, CHANNELS + layer, x, B * C)
            x = x * self._channels.of_replicas(factor_Un).view(R, B, C, 1, 1)
        return x
