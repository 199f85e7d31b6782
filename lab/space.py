"""The domains of a search space: `Int` and `Float` ranges and a `Choice` of options, each with its role.

`at` turns a fraction of the range into a value (samplers draw fractions), `grid` lists the values of a grid.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lab.errors import SpecError
from lab.knobs import Value

Role = Literal["scientific", "nuisance"]


def _check_range(low: float, high: float, log: bool, role: str, what: str) -> None:
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise SpecError(f"{what}: bound {bound!r} is not a finite number")
    if not low < high:
        raise SpecError(f"{what}: the range {low:g} to {high:g} is empty: give low < high, or fix the knob")
    if log and low <= 0:
        raise SpecError(f"{what}: a log range has to start above 0, not at {low:g}")
    _check_role(role, what)


def _check_role(role: str, what: str) -> None:
    if role not in get_args(Role):
        raise SpecError(f"{what}: role {role!r} is unknown: choose scientific or nuisance (or put the knob in fixed)")


@dataclass(frozen=True)
class Int:
    """An integer range of the search space, both ends included; `log` spaces it evenly in the logarithm.

    `step` is the spacing of the values that a grid takes and, without `log`, of those that any sampler takes.
    With `log`, a grid takes powers of two times `low`.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1
    role: Role = "nuisance"

    def __post_init__(self) -> None:
        what = f"Int({self.low!r}, {self.high!r})"
        _check_range(self.low, self.high, self.log, self.role, what)
        if not isinstance(self.low, int) or not isinstance(self.high, int):
            raise SpecError(f"{what}: the bounds have to be integers")
        if type(self.step) is not int or self.step < 1 or (self.log and self.step != 1):
            raise SpecError(f"{what}: step = {self.step!r} has to be a positive integer, and 1 in a log range")

    def at(self, u: float) -> int:
        """Return the value at the fraction u in [0, 1) of the range; every value gets its share of [0, 1)."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(max(round(math.exp(low + u * (high - low))), self.low), self.high)
        n = (self.high - self.low) // self.step + 1
        return self.low + self.step * min(int(u * n), n - 1)

    def grid(self) -> tuple[int, ...]:
        """Return the values that a grid takes."""
        if self.log:
            values = [self.low * 2**k for k in range(64) if self.low * 2**k <= self.high]
            return tuple(values)
        return tuple(range(self.low, self.high + 1, self.step))


@dataclass(frozen=True)
class Float:
    """A range of real numbers of the search space; `log` spaces it evenly in the logarithm.

    `n_grid` is the number of values, ends included, that a grid takes.
    """

    low: float
    high: float
    log: bool = False
    n_grid: int = 3
    role: Role = "nuisance"

    def __post_init__(self) -> None:
        what = f"Float({self.low!r}, {self.high!r})"
        _check_range(self.low, self.high, self.log, self.role, what)
        if type(self.n_grid) is not int or self.n_grid < 2:
            raise SpecError(f"{what}: n_grid = {self.n_grid!r} has to be an integer of 2 or more")

    def at(self, u: float) -> float:
        """Return the value at the fraction u in [0, 1] of the range."""
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def grid(self) -> tuple[float, ...]:
        """Return the values that a grid takes."""
        return tuple(self.at(k / (self.n_grid - 1)) for k in range(self.n_grid))


@dataclass(frozen=True, init=False)
class Choice:
    """A list of options of the search space: `Choice("relu", "tanh")`. Numbers are allowed; at least two options."""

    options: tuple[Value, ...]
    role: Role

    def __init__(self, *options: Value, role: Role = "nuisance") -> None:
        what = f"Choice{options!r}"
        if len(options) == 1 and isinstance(options[0], list | tuple):
            raise SpecError(f"{what}: give the options one by one, Choice('relu', 'tanh'), not as a list")
        if len(options) < 2:
            raise SpecError(f"{what}: give at least two options, or fix the knob")
        if len({(type(o), o) for o in options}) < len(options):
            raise SpecError(f"{what}: an option is given twice")
        _check_role(role, what)
        object.__setattr__(self, "options", tuple(options))
        object.__setattr__(self, "role", role)

    def at(self, u: float) -> Value:
        """Return the option at the fraction u in [0, 1) of the list."""
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]

    def grid(self) -> tuple[Value, ...]:
        """Return the values that a grid takes: all options."""
        return self.options


Domain = Int | Float | Choice
