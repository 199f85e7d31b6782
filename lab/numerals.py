"""Numbers as text, in the terminal and in reports alike: three significant digits, intervals rounded as their value."""

import math
from typing import Any

MINUS, MISSING, NARROW = "−", "–", "\u00a0"  # the last: a space at which no line breaks


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number (numpy's too; no bool)."""
    try:
        return not isinstance(value, bool | str) and value is not None and math.isfinite(value)
    except TypeError:
        return False


def _decimals(value: float, digits: int = 3) -> int:
    return min(max(digits - 1 - math.floor(math.log10(abs(value))), 0), 6) if value else digits - 1


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return MINUS + text[1:] if text.startswith("-") else text


def num(value: Any, digits: int = 3) -> str:
    """Return a number with three significant digits, thousands apart, and – where there is none."""
    if not is_number(value):
        return MISSING
    number = float(value)
    if number == int(number) and abs(number) < 1e9:
        return _fixed(number, 0)
    if abs(number) >= 1000:
        return _fixed(number, 0)
    if abs(number) < 1e-4:
        return f"{number:.{digits - 1}e}".replace("-", MINUS)
    return _fixed(number, _decimals(number, digits))


def signed(value: Any) -> str:
    """Return a change with its sign, "+0.0123" or "−0.0123"."""
    return ("+" if is_number(value) and value > 0 else "") + num(value)


def interval(low: Any, high: Any, like: Any = None) -> str:
    """Return "[0.110, 0.136]", rounded as `like` is; empty where an end is missing."""
    if not (is_number(low) and is_number(high)):
        return ""
    decimals = _decimals(float(like)) if is_number(like) else max(_decimals(float(low)), _decimals(float(high)))
    return f"[{_fixed(float(low), decimals)}, {_fixed(float(high), decimals)}]"


def with_interval(row: Any, name: str) -> str:
    """Return "0.123 [0.110, 0.136]" of a row with `name`, `name`_lo and `name`_hi."""
    value = row.get(name)
    band = interval(row.get(f"{name}_lo"), row.get(f"{name}_hi"), value)
    return f"{num(value)} {band}".rstrip()


def percent(value: Any, decimals: int = 0) -> str:
    """Return a share as "12 %"."""
    return f"{_fixed(100 * float(value), decimals)}{NARROW}%" if is_number(value) else MISSING
