"""The domains of a search space: `Int` and `Float` ranges and a `Choice` of options, each with its role.

`at` turns a fraction of the range into a value (samplers draw fractions), `grid` lists the values of a grid. A domain
with a condition, `Float(0, 0.5, when={"family": ("cnn", "resnet")})`, is searched only in trials that meet it; in the
others the knob has its default.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from lab.errors import SpecError
from lab.knobs import Value, check_knob

Role = Literal["scientific", "nuisance"]
Condition = Mapping[str, Any]  # knob → the value, or tuple of values, that it has to have


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


def _checked_condition(when: Condition | None, what: str) -> dict[str, tuple[Value, ...]] | None:
    """Return a condition with its values in their own types, None if there is none."""
    if when is None:
        return None
    if not isinstance(when, Mapping) or not when:
        raise SpecError(f"{what}: when = {when!r}: give a knob and its values, when={{'family': ('cnn', 'resnet')}}")
    wanted = {knob: tuple(values) if isinstance(values, tuple | list) else (values,) for knob, values in when.items()}
    return {
        knob: tuple(check_knob(knob, value, where=f"{what}, when") for value in values)
        for knob, values in wanted.items()
    }


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
    when: Condition | None = None

    def __post_init__(self) -> None:
        what = f"Int({self.low!r}, {self.high!r})"
        object.__setattr__(self, "when", _checked_condition(self.when, what))
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
    when: Condition | None = None

    def __post_init__(self) -> None:
        what = f"Float({self.low!r}, {self.high!r})"
        object.__setattr__(self, "when", _checked_condition(self.when, what))
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
    when: Condition | None

    def __init__(self, *options: Value, role: Role = "nuisance", when: Condition | None = None) -> None:
        what = f"Choice{options!r}"
        if len(options) == 1 and isinstance(options[0], list | tuple):
            raise SpecError(f"{what}: give the options one by one, Choice('relu', 'tanh'), not as a list")
        if len(options) < 2:
            raise SpecError(f"{what}: give at least two options, or fix the knob")
        if any(not isinstance(option, Value) for option in options):
            raise SpecError(f"{what}: an option has to be a string, a number, True or False")
        if len({(type(o), o) for o in options}) < len(options):
            raise SpecError(f"{what}: an option is given twice")
        _check_role(role, what)
        object.__setattr__(self, "options", tuple(options))
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "when", _checked_condition(when, what))

    def at(self, u: float) -> Value:
        """Return the option at the fraction u in [0, 1) of the list."""
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]

    def grid(self) -> tuple[Value, ...]:
        """Return the values that a grid takes: all options."""
        return self.options


Domain = Int | Float | Choice


def is_active(domain: Domain, values: Mapping[str, Value]) -> bool:
    """Return whether a trial with these values of other knobs meets the condition of a domain."""
    return all(values[knob] in allowed for knob, allowed in (domain.when or {}).items())


def resolved(space: Mapping[str, Domain], given: Mapping[str, Any]) -> dict[str, Domain]:
    """Return the space without the conditions on knobs that are not searched, whose values are `given`.

    A domain whose condition these values never meet is left out. What remains depends on searched knobs alone.

    Raises:
        SpecError: A condition that no trial meets, or one on a knob that has a condition itself.
    """
    kept: dict[str, Domain] = {}
    for name, domain in space.items():
        condition = domain.when or {}
        for knob, allowed in condition.items():
            parent = space.get(knob)
            if knob == name or (parent is not None and parent.when):
                raise SpecError(f"space: {name} depends on {knob}, which has a condition itself: name its condition")
            if parent is not None and not any(_can_be(parent, value) for value in allowed):
                raise SpecError(f"space: {name} is never searched: {knob} is never {' or '.join(map(repr, allowed))}")
        if all(knob in space or given[knob] in allowed for knob, allowed in condition.items()):
            open_ = {knob: allowed for knob, allowed in condition.items() if knob in space}
            kept[name] = _with_condition(domain, open_)
    return kept


def _can_be(domain: Domain, value: Any) -> bool:
    return value in domain.options if isinstance(domain, Choice) else domain.low <= value <= domain.high


def _with_condition(domain: Domain, when: Condition) -> Domain:
    if (domain.when or {}) == when:
        return domain
    if isinstance(domain, Choice):
        return Choice(*domain.options, role=domain.role, when=when or None)
    return replace(domain, when=when or None)
