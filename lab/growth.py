"""Growth: how a trial gets further training sets and seeds until an estimate is as sure as its study asks.

A decomposition tells the variance of each estimate by what was sampled (`Decomposition.interval_parts`). Another
training set divides what training sets add by D + 1 in place of D and costs I trainings; another seed costs D. A step
takes, one after the other, whichever takes away more of that variance per training, until the interval is predicted to
be narrow enough. As the prediction rests on few replicas, a step adds `GROWTH` of what there is at the most, and then
the interval is looked at again. Trainings of a trial take about equal time, so none of this looks at a clock: a trial
that is trained again takes the same steps.

To stop once an interval is narrow is to stop more often where it came out too narrow by chance. In
benchmarks/adaptive.md (n = 320 a learner, start 4 × 4, target 31 % of the variance) variances then came out 5 to 7 %
low, and nominal 95 % intervals covered them in 88 to 93 %, against 90 to 98 % for fixed grids of the same size.

Shape letters: D training sets, I seeds.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy import stats

from lab.analysis.decomposition import Decomposition
from lab.analysis.layout import CAUSES, Factors
from lab.replication import Replication

GROWTH = 0.5  # more cells, at the most, in one step (but always one training set or seed)
Shape = tuple[int, int]
Parts = Mapping[str, float]  # variance of an estimate by source, see `Decomposition.interval_parts`
Stopped = Literal["reached", "cap", "test set", "no interval"]

WHY: dict[Stopped, str] = {
    "reached": "the interval is narrow enough",
    "cap": "the plan allows no more replicas",
    "test set": "the test set alone makes the interval wider than that",
    "no interval": "too few replicas are left to tell how sure the estimate is",
}
_AXES = {name: axes for axes, name in CAUSES.items()}


@dataclass(frozen=True)
class Step:
    """What a trial had come to: its grid, its estimate, half the interval, and the seconds of training until then."""

    n_resamples: int
    n_inits: int
    value: float | None
    half_width: float | None
    seconds: float


@dataclass(frozen=True)
class Growth:
    """How a trial grew, and why it stopped."""

    steps: tuple[Step, ...]
    stopped: Stopped

    def metrics(self) -> dict[str, float | None]:
        """Return what is tracked of it."""
        last = self.steps[-1]
        return {
            "n_resamples": last.n_resamples,
            "n_inits": last.n_inits,
            "n_growth_steps": len(self.steps) - 1,
            "half_width": last.half_width,
            "target_reached": float(self.stopped == "reached"),
        }

    def to_dict(self, plan: Replication) -> dict[str, Any]:
        """Return it as plain JSON values, with what was asked for."""
        return {
            "term": plan.target_term,
            "target_half_width": plan.target_half_width,
            "stopped": self.stopped,
            "why": WHY[self.stopped],
            "steps": [asdict(step) for step in self.steps],
        }


def half_width(found: Decomposition | None, term: str) -> float:
    """Return half the interval of a term; NaN where there is none."""
    if found is None or (ends := found.terms[term]).lo is None or ends.hi is None:
        return math.nan
    return (ends.hi - ends.lo) / 2


def following(plan: Replication, shape: Shape, found: Decomposition | None) -> Shape | Stopped:
    """Return the grid that a trial is to have after this one, or why it stops here.

    Args:
        plan: With a target.
        shape: The training sets and seeds that the trial has.
        found: Their decomposition on the test set, with intervals; None if no replica is left.
    """
    assert plan.target_half_width is not None
    now = half_width(found, plan.target_term)
    if not math.isfinite(now):
        return "no interval"
    if now <= plan.target_half_width:
        return "reached"
    assert found is not None
    assert found.level is not None
    parts = found.interval_parts[plan.target_term]
    least = stats.norm.ppf((1 + found.level) / 2) * math.sqrt(variance(parts, shape, (math.inf, math.inf)))
    if least > plan.target_half_width:
        return "test set"
    after = grown(plan, shape, parts, now)
    return "cap" if after == shape else after


def grown(plan: Replication, shape: Shape, parts: Parts, now: float) -> Shape:
    """Return the next grid of a trial whose half interval is `now`; the same if the plan allows no more."""
    assert plan.target_half_width is not None
    wanted = variance(parts, shape, shape) * (plan.target_half_width / now) ** 2
    d, i = shape
    while moves := [after for after in _moves(plan, (d, i)) if (d, i) == shape or _within_step(shape, after)]:
        here = variance(parts, shape, (d, i))
        d, i = max(moves, key=lambda after: (here - variance(parts, shape, after)) / (math.prod(after) - d * i))
        if variance(parts, shape, (d, i)) <= wanted:
            break
    return d, i


def _moves(plan: Replication, shape: Shape) -> Iterator[Shape]:
    """Yield the grids that have one training set, or one seed, more than this one."""
    d, i = shape
    assert plan.max_replicas is not None
    for after in ((d + 1, i), (d, i + 1)):
        fits = after[0] <= plan.most[0] and after[1] <= plan.most[1]
        if fits and math.prod(after) * plan.n_noise_draws <= plan.max_replicas:
            yield after


def _within_step(shape: Shape, after: Shape) -> bool:
    return math.prod(after) <= (1 + GROWTH) * math.prod(shape)


def variance(parts: Parts, shape: Shape, other: tuple[float, float]) -> float:
    """Return what the variance of an estimate is predicted to be on another grid.

    Parts that fall alike are taken together, and count 0 where their sum came out below it.
    """
    together: dict[Factors, float] = {}
    for source, part in parts.items():
        axes = tuple(axis for axis in _AXES.get(source.removesuffix("_test"), ()) if axis in (0, 1))
        together[axes] = together.get(axes, 0.0) + part
    return sum(max(part, 0.0) * math.prod(shape[a] / other[a] for a in axes) for axes, part in together.items())
