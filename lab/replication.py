"""How a trial is repeated: the scheme that draws training sets, and how many of what.

What each scheme can show, and what it cannot, stands in `lab.data.resampling`; how a trial grows, in `lab.growth`.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from lab.errors import SpecError

SCHEMES = ("fresh", "disjoint", "subsample", "bootstrap", "seeds")
TARGETS = ("variance", "bias_sq")  # whose interval a study may want to be narrow
_MOST = 4096  # of anything that is counted here: it catches slips of the keyboard
_TIMES = 4  # as many training sets, seeds and replicas as at the start are the most, if a study does not say
_GROWTH = ("target_half_width", "target_term", "max_resamples", "max_inits", "max_replicas")


@dataclass(frozen=True)
class Replication:
    """How a trial is repeated: D training sets ("resamples") × I seeds × K draws of the label noise.

    Schemes: `fresh` (drawn anew from a generator), `disjoint` (blocks of a partition of the pool; unbiased),
    `subsample` (without replacement), `bootstrap` (with replacement), `seeds` (one training set, only seeds differ:
    n_resamples = 1). `n_partitions` independent partitions of the pool share out the resamples of `disjoint`: each
    gives n_resamples / n_partitions blocks, only blocks of one partition are compared, and the estimates are averaged.
    `stratified` gives every training set the pool's shares of the classes. With `n_noise_draws` above 1 each training
    set is used again with that many independent draws of its label noise (see `lab.data.label_noise`).

    With `target_half_width` these are what a trial starts from: it gets further training sets and seeds until half the
    interval of its `target_term` on the test set (Brier) is as narrow as that, or until it has `max_resamples`,
    `max_inits` or `max_replicas` (each four times the start if not given).
    """

    scheme: str = "disjoint"
    n_resamples: int = 8
    n_inits: int = 4
    n_partitions: int = 1
    stratified: bool = False
    n_noise_draws: int = 1
    target_half_width: float | None = None
    target_term: str = "variance"
    max_resamples: int | None = None
    max_inits: int | None = None
    max_replicas: int | None = None

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise SpecError(f"replication: scheme {self.scheme!r} is unknown: choose one of {', '.join(SCHEMES)}")
        for name, low in (("n_resamples", 1), ("n_inits", 2), ("n_partitions", 1), ("n_noise_draws", 1)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= _MOST:
                raise SpecError(f"replication: {name} = {value!r} has to be an integer from {low} to {_MOST}")
        if type(self.stratified) is not bool:
            raise SpecError(f"replication: stratified = {self.stratified!r} has to be True or False")
        if self.scheme == "seeds" and self.n_resamples != 1:
            raise SpecError(
                f"replication: scheme 'seeds' has one training set, and n_resamples = {self.n_resamples}: "
                "set it to 1, or choose another scheme"
            )
        if self.scheme != "seeds" and self.n_resamples < 2:
            raise SpecError(
                "replication: n_resamples = 1 cannot show what the training set does to a prediction: "
                "give 2 or more, or choose the scheme 'seeds'"
            )
        self._check_partitions()
        if self.scheme == "fresh" and self.stratified:
            raise SpecError("replication: scheme 'fresh' draws the labels too: set stratified to False")
        self._check_growth()

    def _check_partitions(self) -> None:
        if self.n_partitions == 1:
            return
        if self.scheme != "disjoint":
            raise SpecError(
                f"replication: n_partitions = {self.n_partitions} is for the scheme 'disjoint', not for "
                f"{self.scheme!r}: set it to 1"
            )
        if self.n_resamples % self.n_partitions or self.n_blocks < 2:
            raise SpecError(
                f"replication: {self.n_resamples} resamples cannot be shared out evenly over {self.n_partitions} "
                f"partitions with two or more each: set n_resamples to a multiple, {2 * self.n_partitions} or more"
            )

    def _check_growth(self) -> None:
        if self.target_term not in TARGETS:
            raise SpecError(f"replication: target_term {self.target_term!r} is unknown: choose {' or '.join(TARGETS)}")
        half_width, limits = self.target_half_width, _GROWTH[2:]
        if half_width is None:
            for name in _GROWTH[1:]:
                if getattr(self, name) not in (None, TARGETS[0]):
                    raise SpecError(f"replication: {name} is about how a trial grows: give target_half_width with it")
            return
        if isinstance(half_width, bool) or not isinstance(half_width, int | float) or not 0 < half_width < math.inf:
            raise SpecError(f"replication: target_half_width = {half_width!r} has to be a number above 0, or None")
        for name in ("n_resamples", "n_inits", "n_noise_draws"):
            if getattr(self, name) // (self.n_partitions if name == "n_resamples" else 1) == 2:
                each = " for each partition" if self.n_partitions > 1 and name == "n_resamples" else ""
                raise SpecError(
                    f"replication: {name} = 2{each} cannot tell how sure an estimate is: with target_half_width give 3 "
                    "or more"
                )
        is_fixed = self.scheme == "seeds" or self.n_partitions > 1
        defaults = (self.n_resamples * (1 if is_fixed else _TIMES), _TIMES * self.n_inits, _TIMES * self.n_replicas)
        starts = (self.n_resamples, self.n_inits, self.n_replicas)
        for name, default, start in zip(limits, defaults, starts, strict=True):
            value = getattr(self, name)
            if value is None:
                object.__setattr__(self, name, min(default, _MOST))
            elif type(value) is not int or not start <= value <= _MOST:
                raise SpecError(
                    f"replication: {name} = {value!r} has to be an integer from {start}, what a trial starts with, "
                    f"to {_MOST}"
                )
        if is_fixed and self.max_resamples != self.n_resamples:
            why = "has one training set" if self.scheme == "seeds" else "gets no further sets with several partitions"
            raise SpecError(f"replication: scheme {self.scheme!r} {why}: set max_resamples to {self.n_resamples}")

    @property
    def grows(self) -> bool:
        """Whether trials get further replicas until an estimate is sure enough."""
        return self.target_half_width is not None

    @property
    def most(self) -> tuple[int, int]:
        """The largest numbers of resamples and inits that a trial can have: what comes after them is never used."""
        return (self.max_resamples or self.n_resamples, self.max_inits or self.n_inits)

    def grid(self, n_resamples: int, n_inits: int) -> "Grid":
        """Return this plan with other numbers of training sets and seeds: what of it is trained at once."""
        most = dict(zip(("max_resamples", "max_inits"), self.most, strict=True))
        return Grid(**(asdict(self) | most | {"n_resamples": n_resamples, "n_inits": n_inits}))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; without a target, as it was stored before there were any."""
        return {name: value for name, value in asdict(self).items() if self.grows or name not in _GROWTH}

    @property
    def n_replicas(self) -> int:
        """The number of replicas R = D·I·K of a trial."""
        return self.n_resamples * self.n_inits * self.n_noise_draws

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, I, K)."""
        return self.n_resamples, self.n_inits, self.n_noise_draws

    @property
    def partition_D(self) -> list[int] | None:
        """Which partition each resample is of; None if there is one only."""
        return None if self.n_partitions == 1 else [d // self.n_blocks for d in range(self.n_resamples)]

    @property
    def n_blocks(self) -> int:
        """The number of resamples that one partition can give (`disjoint`): pool / n_blocks is their largest size."""
        return self.most[0] // self.n_partitions

    def smoke(self) -> "Replication":
        """Return the same plan with few replicas."""
        n_partitions = 1 if self.grows else min(self.n_partitions, 2)
        n_resamples = 1 if self.scheme == "seeds" else min(self.n_resamples, 4)
        n_resamples -= n_resamples % n_partitions
        small = replace(
            self, n_resamples=n_resamples, n_inits=min(self.n_inits, 3), n_partitions=n_partitions,
            n_noise_draws=min(self.n_noise_draws, 3 if self.grows else 2),
            max_resamples=None, max_inits=None, max_replicas=None,
        )  # fmt: skip
        if not self.grows:
            return small
        limits = {name: min(getattr(self, name), getattr(small, name)) for name in _GROWTH[2:]}
        return replace(small, **limits)


@dataclass(frozen=True)
class Grid(Replication):
    """Some training sets × seeds of a plan, one of either at the least; blocks are cut as the plan cuts them."""

    def __post_init__(self) -> None:
        """Check nothing: the plan was."""
