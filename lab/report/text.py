"""Numbers as words: rounding, intervals, and the few terms a stranger needs."""

import math
from typing import Any, NamedTuple

import pandas as pd

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


def count(number: float, one: str, many: str | None = None) -> str:
    """Return "1 trial", "3 trials"."""
    return f"{number:,.0f} {one if number == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """Return a remark of the analysis as a sentence: a capital (names of knobs stay as they are) and a stop."""
    text = text.strip()
    first = text.split(" ", 1)[0]
    head = text if "_" in first or not text else text[0].upper() + text[1:]
    return head if not head or head.endswith((".", "!", "?", ":")) else head + "."


def duration(seconds: Any) -> str:
    """Return a time as "45 s", "2 min 5 s" or "3 h 10 min"."""
    if not is_number(seconds):
        return MISSING
    whole = round(float(seconds))
    if whole < 60:
        return f"{float(seconds):.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(seconds: Any) -> str:
    """Return a moment in UTC: the same text wherever the report is built."""
    return f"{pd.Timestamp(float(seconds), unit='s'):%Y-%m-%d %H:%M} UTC" if is_number(seconds) else MISSING


def knob_value(value: Any) -> str:
    """Return the value of a knob as a user would write it."""
    if isinstance(value, bool) or not is_number(value):
        return str(value)
    return f"{float(value):.3g}" if float(value) != int(value) or abs(value) >= 1e6 else f"{int(value)}"


class Word(NamedTuple):
    """A term and what it means here."""

    id: str
    term: str
    meaning: str


def glossary(known_noise: bool, level: str = "95") -> list[Word]:
    """Return the terms of the report for a reader who has not met them."""
    noise = (
        "The part of the risk that no model can remove, because the same image can have different labels. Known here, "
        "since the data come from a generator."
        if known_noise
        else "The part of the risk that no model can remove. It cannot be measured here (each image has one label), so "
        "it is contained in what is called “bias² + noise”."
    )
    bias = (
        "How wrong the average of many trainings is. High bias² means underfitting: more examples of the same kind "
        "help little, a more able model or better training helps."
    )
    if not known_noise:
        bias += " The noise is contained in it, since it cannot be told apart here: wrong labels look like bias."
    return [
        Word("risk", "risk", "The expected error on new images: the Brier score, the squared distance between the "
             "predicted probabilities and the true label, summed over the classes. 0 is perfect, 2 is certain and "
             "always wrong. Lower is better."),
        Word("bias_sq", "bias²" if known_noise else "bias² + noise", bias),
        Word("variance", "variance", "How much predictions change when the same recipe is trained again, on another "
             "training set or from another seed. High variance means overfitting: more data, regularisation, a "
             "smaller model or averaging several trainings help."),
        Word("noise", "noise", noise),
        Word("causes", "variance by cause", "From the training set: what another sample of examples changes. From the "
             "seed: what other initial weights, batch order and dropout change. From both together: what depends on "
             "their combination. Estimates can be slightly negative when the truth is near 0."),
        Word("replica", "replica", "One training of a configuration, with its own training set and its own seed."),
        Word("trial", "trial", "One configuration of hyperparameters (“knobs”), trained as many replicas."),
        Word("interval", "interval", "The numbers in brackets: made so that, of 100 repetitions of the study with "
             f"other training sets, seeds and test images, about {level} contain the true value."),
        Word("explore", "explore and confirm", "The search compares many trials and picks the best, which is partly "
             "luck. The pick is then measured again with training sets and seeds that the search never saw."),
        Word("threshold", "interpolation threshold", "The smallest model that learns its training set by heart "
             "(training error of 1 % or less). Variance often peaks near it."),
    ]  # fmt: skip
