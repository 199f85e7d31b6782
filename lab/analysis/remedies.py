"""What puts a weakness of a study right: more replicas, more data, a larger test set, as changes that `--set` takes.

A change is proposed only where pool and scheme can give it (`lab.data.resampling`), and its words say what it costs.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from lab.analysis.capacity_curve import number
from lab.analysis.case import Case
from lab.errors import SpecError
from lab.knobs import check_knob
from lab.numerals import percent
from lab.replication import Replication


class Change(NamedTuple):
    """A change of the plan, in words and as settings."""

    words: str
    settings: dict[str, Any]


def plan_of(case: Case) -> Replication | None:
    """Return the replication plan of a study; None where it is not known."""
    known = {field.name for field in dataclasses.fields(Replication)}
    given = {name: value for name, value in case.spec.get("replication", {}).items() if name in known}
    return Replication(**given) if given else None


def _pool(case: Case) -> float:
    """Return how many examples training sets are drawn from; inf where that is not known, or a generator has any."""
    plan, pool = plan_of(case), case.data.get("n_pool")
    return math.inf if pool is None or plan is None or plan.scheme == "fresh" else float(pool)


def more_replicas(case: Case) -> Change | None:
    """Return twice as many training sets, or seeds where there is one training set; None without a plan.

    For a plan that grows, twice its limits; of disjoint training sets there are as many as the pool was cut into.
    """
    plan, n_train = plan_of(case), number(case.row, "n_train")
    if plan is None:
        return None
    if plan.grows:
        settings = {name: 2 * getattr(plan, name) for name in ("max_inits", "max_replicas")}
        if plan.scheme != "disjoint":
            settings |= {"max_resamples": 2 * plan.most[0]} if plan.scheme != "seeds" else {}
        return Change(f"up to {settings['max_replicas']} replicas a trial instead of {plan.max_replicas}", settings)
    if plan.scheme == "seeds":
        return Change(f"{2 * plan.n_inits} seeds instead of {plan.n_inits}", {"n_inits": 2 * plan.n_inits})
    n_sets = 2 * plan.n_resamples
    pool = _pool(case)
    bounded = plan.scheme == "disjoint" and math.isfinite(pool)
    fits = pool // n_train * plan.n_partitions if bounded else math.inf
    if 1.5 * plan.n_resamples <= fits < n_sets:  # not twice as many, but still disjoint ones
        n_sets = int(fits)
    words, settings = f"{n_sets} training sets instead of {plan.n_resamples}", {"n_resamples": n_sets}
    if n_sets <= fits:
        return Change(words, settings)
    words += f", {_overlap_costs(n_train / pool)}"
    return Change(words, settings | _overlapping(plan))


def more_examples(case: Case) -> Change | None:
    """Return up to twice as many training examples a replica; None where the pool has no tenth more of them."""
    plan, pool, now = plan_of(case), _pool(case), number(case.row, "n_train")
    wanted = int(min(2 * now, pool))
    if wanted < 1.1 * now:
        return None
    words = f"train on {wanted} examples instead of {now:g}"
    if plan is None or plan.scheme != "disjoint":
        return Change(words, {"n_train": wanted})
    fits = pool // plan.n_blocks if math.isfinite(pool) else math.inf
    if fits >= 1.1 * now:
        wanted = int(min(wanted, fits))
        return Change(f"train on {wanted} examples instead of {now:g}", {"n_train": wanted})
    for n_partitions in range(plan.n_partitions + 1, plan.n_resamples // 2 + 1):
        if plan.n_resamples % n_partitions == 0 and wanted * (plan.n_resamples // n_partitions) <= pool:
            words += f", from {n_partitions} partitions of the pool"
            return Change(words, {"n_train": wanted, "n_partitions": n_partitions})
    words += f", {_overlap_costs(wanted / pool)}"
    return Change(words, {"n_train": wanted} | _overlapping(plan))


def _overlap_costs(share: float) -> str:
    """Return what training sets cost that are no longer disjoint, as the pool has no more of those."""
    return (
        f"drawn with overlap, as the pool has no more disjoint ones (two share {percent(share)} of their examples, and "
        "about so much of the variance from the training set then counts as bias²)"
    )


def _overlapping(plan: Replication) -> dict[str, Any]:
    return {"scheme": "subsample"} | ({"n_partitions": 1} if plan.n_partitions > 1 else {})


def more_test_images(case: Case, n_test: int) -> Change | None:
    """Return a test set of `n_test` images; None if that may leave too few for the training sets.

    Data sets without a test set of their own take it from the pool, so it is only proposed where it could.
    """
    plan, n_train, left = plan_of(case), number(case.row, "n_train"), _pool(case)
    left -= n_test - float(case.data.get("n_test", math.nan))
    needed = n_train * (plan.n_blocks if plan is not None and plan.scheme == "disjoint" else 1)
    if not left >= needed:
        return None
    words = f"{n_test} test images"
    if plan is not None and plan.scheme == "subsample" and math.isfinite(left):
        words += f", taken from the pool (two training sets then share {percent(n_train / left)} of their examples)"
    return Change(words, {"n_test": n_test})


def beyond(knob: str, value: float, domain: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a value beyond the end of a knob's range: twice as far on a log scale, else half the range further.

    None where the knob takes no such value.
    """
    low, high = float(domain["low"]), float(domain["high"])
    upper = abs(value - high) < abs(value - low)
    if domain.get("log"):
        further = 2 * high if upper else low / 2
    else:
        further = high + (high - low) / 2 if upper else low - (high - low) / 2
    setting = round(further) if domain.get("kind") == "int" else float(f"{further:.3g}")
    try:
        check_knob(knob, setting, where="beyond its range")
    except SpecError:
        return None
    return {knob: setting}
