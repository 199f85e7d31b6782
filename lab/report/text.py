"""Words around numbers: counts, sentences, durations, the few terms a stranger needs. Numbers: `lab.numerals`."""

from typing import Any, NamedTuple

import pandas as pd

from lab.numerals import MINUS, MISSING, NARROW, interval, is_number, num, percent, with_interval

__all__ = [
    "MINUS", "MISSING", "NARROW", "Word", "count", "duration", "glossary", "interval", "is_number", "knob_value",
    "moment", "num", "percent", "sentence", "with_interval",
]  # fmt: skip


def count(number: float, one: str, many: str | None = None) -> str:
    """Return "1 trial", "3 trials"."""
    return f"{number:,.0f} {one if number == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """Return a remark of the analysis as a sentence: a capital (names of knobs stay as they are) and a stop."""
    text = text.strip()
    first = text.split(" ", 1)[0]
    head = text if "_" in first or "=" in first or not text else text[0].upper() + text[1:]
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
