"""Noise, bias and variance (by cause) of the risk, from the predictions of replicas: the front of `lab.analysis`.

`decompose` takes predictions of any crossed, nested or independent replicas and one of three losses; each loss is a
file of its own that gives the terms of every test point (`LOSSES`), and their means over test points are the
estimates. Per-point terms first, means last: `Decomposition.per_example` has the former.

Without the posterior only the sum of noise and bias can be seen: `noise` is then None and the bias holds both.

Shape suffixes: D resamples, I inits, K label-noise draws, R replicas, N test points, C classes, T terms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lab.analysis import brier, cross_entropy, partitions, zero_one
from lab.analysis.inputs import as_array, checked, one_hot
from lab.analysis.intervals import Spread, mean_interval
from lab.analysis.layout import Array, Design, chunks

Loss = Literal["brier", "cross_entropy", "zero_one"]

# each gives names(layout), terms(points, layout), noise(posterior_NC), identities(layout): a whole, and its parts; and
# NO_INTERVAL: terms that never have one, and why
LOSSES: dict[str, ModuleType] = {"brier": brier, "cross_entropy": cross_entropy, "zero_one": zero_one}


FEW = "too few replicas are left to leave some out"


class Term(NamedTuple):
    """An estimate and the ends of its interval; NaN where it cannot be told, None where it is not there at all."""

    value: float | None
    lo: float | None
    hi: float | None


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Estimates of the risk and its parts, with intervals.

    Every term is an attribute, with its ends: `variance`, `variance_lo`, `variance_hi`. The terms:

    * all losses: `risk`; `noise`, None when the posterior is unknown (the bias then contains it);
    * brier (0 to 2): `bias_sq`, `variance` and its parts `variance_resample`, `variance_init`, `variance_interaction`;
      with redrawn label noise also `variance_label_noise`, `variance_resample_label_noise`,
      `variance_init_label_noise` and `variance_three_way`; `error`, the mean zero-one loss;
    * cross_entropy (nats): `bias`, `variance` and its parts by the same causes, bias-corrected and approximate, and
      `variance_plugin`;
    * zero_one: `bias`, `variance` (net), `variance_unbiased`, `variance_biased`, `systematic_effect`,
      `variance_effect`, `kw_noise`, `kw_bias_sq`, `kw_variance` and its parts `kw_variance_…`.

    Parts that a design cannot tell apart are NaN: all of them for independent replicas; in a nested design
    `variance_init` is the sum of init and interaction. With a single resample (or a single seed) everything is
    conditional on it: what it would add to the variance is booked as bias.

    Attributes:
        terms: name → (value, lo, hi).
        per_example: name → (N,), whose mean is the value.
        interval_parts: name → variance of the estimate by what was sampled ("resample", "init", "interaction", "test",
            "resample_test" …), each by itself: what has to be sampled more to narrow an interval.
        n_resamples, n_inits, n_noise_draws: Values of each factor among the replicas used.
        n_replicas: Replicas used; those that diverged are left out.
    """

    loss: str
    design: Design
    level: float | None
    n_resamples: int
    n_inits: int
    n_noise_draws: int
    n_replicas: int
    n_test: int
    terms: Mapping[str, Term]
    per_example: Mapping[str, Array]
    interval_parts: Mapping[str, Mapping[str, float]]

    def __getattr__(self, name: str) -> float | None:
        """Return a term, or an end of its interval."""
        terms = self.__dict__.get("terms", {})
        for end, field in (("", "value"), ("_lo", "lo"), ("_hi", "hi")):
            if name.endswith(end) and name.removesuffix(end) in terms:
                return getattr(terms[name.removesuffix(end)], field)
        raise AttributeError(f"a {self.__dict__.get('loss')} decomposition has no term {name!r}: {', '.join(terms)}")

    def unsure(self) -> dict[str, str]:
        """Return why a term that has a value has no interval, by name; empty if intervals were not asked for."""
        if self.level is None:
            return {}
        counts = {
            "training sets": self.n_resamples,
            "seeds": self.n_inits,
            "draws of the label noise": self.n_noise_draws,
        }
        few = [f"2 {what}" for what, n in counts.items() if n == 2] if self.design == "crossed" else []
        without = {
            name for name, term in self.terms.items()
            if term.value is not None and not math.isnan(term.value) and (term.lo is None or math.isnan(term.lo))
        }  # fmt: skip
        by_loss = {name: reason for name, reason in LOSSES[self.loss].NO_INTERVAL.items() if name in without}
        why = f"three or more are needed to leave one out: there are {' and '.join(few)}" if few else FEW
        return dict.fromkeys(sorted(without), why) | by_loss

    def to_dict(self) -> dict[str, Any]:
        """Return terms, ends and counts as a flat dictionary of plain Python values."""
        flat: dict[str, Any] = {}
        for name, term in self.terms.items():
            flat |= {name: term.value, f"{name}_lo": term.lo, f"{name}_hi": term.hi}
        counts = ("n_resamples", "n_inits", "n_noise_draws", "n_replicas", "n_test", "level", "design", "loss")
        return flat | {name: getattr(self, name) for name in counts}


def decompose(
    probabilities_DINC: ArrayLike | None,
    labels_N: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    loss: Loss = "brier",
    posterior_NC: ArrayLike | None = None,
    design: Design = "crossed",
    missing_DI: ArrayLike | None = None,
    partition_D: ArrayLike | None = None,
    level: float | None = 0.95,
) -> Decomposition:
    """Return noise, bias and variance of the replicas' predictions, with intervals.

    Args:
        probabilities_DINC: Predicted probabilities: (D, I, N, C) for a crossed design (seed i is the same for every
            resample), (D, I, K, N, C) if label noise was redrawn K times as well, (D, I, N, C) for a nested design
            (seeds are new in each resample), (R, N, C) for independent replicas. A replica that is NaN throughout is
            left out, as a diverged one. None if `logits` are given. For the zero-one loss also predicted classes,
            whole numbers without the axis C.
        labels_N: Class numbers 0 … C − 1.
        logits: Instead of probabilities: scores before the softmax, or log probabilities, of the same shapes.
        loss: Which loss is decomposed, a key of `LOSSES`.
        posterior_NC: P(y | x) of each test point, if known: then noise and bias are told apart. The risk is then the
            expectation over labels drawn from the posterior, rather than that at the given labels.
        design: How replicas share training sets and seeds.
        missing_DI: True where a replica is missing or to be left out, in the shape of the replica axes.
        partition_D: Which partition of the pool each resample belongs to, if several were made: replicas of different
            partitions are not compared, see `lab.analysis.partitions`.
        level: Of the intervals; None for none (they take most of the time).

    Raises:
        ValueError: Shapes, labels or values that cannot be right; says which and where.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r} is unknown: choose one of {', '.join(LOSSES)}")
    if level is not None and not 0 < level < 1:
        raise ValueError(f"level = {level!r} has to lie between 0 and 1")
    if loss == "zero_one" and probabilities_DINC is not None:
        given = as_array(probabilities_DINC, "predictions")
        if given.dtype.kind in "iu" and given.ndim == (2 if design == "independent" else 3):
            probabilities_DINC = one_hot(given, labels_N, posterior_NC)
    predictions = checked(
        probabilities_DINC, labels_N, logits=logits, posterior_NC=posterior_NC, design=design, missing=missing_DI
    )
    if level is None:
        predictions = replace(predictions, layout=replace(predictions.layout, clusters=()))
    layout, rules = predictions.layout, LOSSES[loss]
    names = rules.names(layout)
    blocks, rows_Q = [predictions], None
    if partition_D is not None:
        rows_Q = partitions.rows_of(partition_D, layout)
        blocks = [predictions.resamples(index) for index in rows_Q]
    spread, rows = Spread(layout, names, blocks[0].layout), []
    for part in chunks(len(predictions.labels_N), layout.used_DIK.size * max(predictions.n_classes, len(names))):
        found = [rules.terms(block.points(part), block.layout) for block in blocks]
        estimates = found[0] if rows_Q is None else partitions.averaged(layout, rows_Q, found)
        spread.add(estimates)
        rows.append(estimates.point_TN)
    point_TN = np.concatenate(rows, axis=1)
    per_example = dict(zip(names, point_TN, strict=True))
    noise = Term(None, None, None)
    noise_N = np.full(len(predictions.labels_N), np.nan)
    if predictions.posterior_NC is not None:
        noise_N = rules.noise(predictions.posterior_NC)
        noise = Term(float(noise_N.mean()), *mean_interval(noise_N, level=level or math.nan))
    per_example["noise"] = noise_N
    for whole, parts in rules.identities(layout):
        _assert_sum(whole, parts, per_example)
    lo_T, hi_T = spread.ends(level or math.nan)
    ends = zip(names, point_TN.mean(axis=1).tolist(), lo_T.tolist(), hi_T.tolist(), strict=True)
    terms = {name: Term(value, lo, hi) for name, value, lo, hi in ends}
    n_resamples, n_inits, n_noise_draws = map(len, layout.levels)
    return Decomposition(
        loss=loss, design=design, level=level,
        n_resamples=n_resamples, n_inits=n_inits, n_noise_draws=n_noise_draws,
        n_replicas=layout.n_replicas, n_test=len(predictions.labels_N),
        terms={"risk": terms.pop("risk"), "noise": noise} | terms,
        per_example=per_example, interval_parts=spread.parts(),
    )  # fmt: skip


def _assert_sum(whole: str, parts: Sequence[str], per_example: Mapping[str, Array]) -> None:
    """Hold a term to the sum of its parts, at every test point; noise that is not known counts as 0."""
    known = [part for part in parts if part not in ("noise", "kw_noise") or not np.isnan(per_example[part]).all()]
    total_N = sum(per_example[part] for part in known)
    difference = np.abs(per_example[whole] - total_N)
    assert np.isnan(difference).all() or np.nanmax(difference) < 1e-10 * max(1.0, float(per_example[whole].max())), (
        f"{whole} is not the sum of {', '.join(parts)}"
    )
