"""How often the intervals of a part were measured to cover the truth, and where that is less than they claim.

`coverage.json` is written by `python -m benchmarks.coverage`: for each loss, term and size of a crossed design, the
lowest and the highest coverage of nominal 95 % intervals over the learners whose truth is known. A design stands under
the largest measured one that it contains; of smaller ones, and of other designs, nothing was measured.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

LEVEL = 0.95  # of the intervals that were measured
WANTED = (92.0, 98.0)  # % for risk and bias
WANTED_VARIANCE = 90.0  # % at least, for variances and their parts
TABLE = Path(__file__).with_name("coverage.json")


class Coverage(NamedTuple):
    """The lowest and highest coverage in % over learners, and the design that it was measured for."""

    low: float
    high: float
    n_resamples: int
    n_inits: int
    n_repetitions: int

    def __str__(self) -> str:
        ends = sorted({f"{self.low:.0f}", f"{self.high:.0f}"}, key=float)
        return "–".join(ends) + " %"


def measured(term: str, n_resamples: int, n_inits: int, *, loss: str = "brier") -> Coverage | None:
    """Return the measured coverage of 95 % intervals of a term; None where it was not measured.

    Args:
        term: A term of the decomposition, such as `bias_sq`.
        n_resamples: Training sets of the crossed design, D.
        n_inits: Seeds, I.
        loss: Of the decomposition.
    """
    table = _table()
    sizes = table["covers"].get(loss, {}).get(term, {})
    within = [size for size in map(_size, sizes) if size[0] <= n_resamples and size[1] <= n_inits]
    if not within:
        return None
    D, I = max(within)  # noqa: E741 - the letters of the shape legend
    low, high = sizes[f"{D}x{I}"]
    return Coverage(low, high, D, I, table["repetitions"])


def falls_short(term: str, found: Coverage) -> bool:
    """Return whether the intervals of a term cover the truth less often than wanted for some of the learners."""
    return found.low < (WANTED_VARIANCE if "variance" in term else WANTED[0])


def remark(term: str, n_resamples: int, n_inits: int, *, loss: str = "brier") -> str:
    """Return what to say beside the interval of a term that covers too seldom; empty where it covers as it should."""
    found = measured(term, n_resamples, n_inits, loss=loss)
    if found is None or not falls_short(term, found):
        return ""
    return f"95 % intervals like this one were measured to cover the truth in {found} of cases"


def _size(text: str) -> tuple[int, int]:
    D, _, I = text.partition("x")  # noqa: E741 - the letters of the shape legend
    return int(D), int(I)


@cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text(encoding="utf-8"))
