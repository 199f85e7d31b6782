"""Diagnosis: does the model underfit or overfit, how sure is that, and what would help next.

The verdict rests on the share s = bias²/(bias² + variance) of the confirmed run (the best explore trial if there is
none; its numbers then carry the winner's curse). Where the noise is not known, bias² contains it, and every text says
"bias² + noise": a large share can then mean label noise as well as underfitting, while a small one means overfitting
all the more.

The interval of the share combines the intervals of its two parts at their worst: s_lo = b_lo/(b_lo + v_hi) and
s_hi = b_hi/(b_hi + v_lo), negative ends taken as 0. It holds whenever both 95 % intervals hold, that is in at least
90 % of studies (Bonferroni), whatever the correlation of the two estimates; in tests it covers more. A delta method
would be narrower, but needs a covariance that the run history does not keep.

See lab.analysis.case for what is judged, lab.analysis.checks for the rules as applied, lab.analysis.advice for what
would help next.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lab.analysis.advice import Action, actions
from lab.analysis.attribution import Effect
from lab.analysis.capacity_curve import (
    Estimate,
    capacity_curve,
    estimate,
    find_peak,
    level_of,
    number,
    number_column,
    step,
)
from lab.analysis.case import Case, chosen, share_of_bias
from lab.analysis.checks import CHECKS, MAX_WIDTH, MIN_REPLICAS, OVERFITTING, UNDERFITTING, Check, checks
from lab.analysis.learning_curve import doubling, learning_curve
from lab.analysis.training_curve import convergence
from lab.numerals import num


@dataclass(frozen=True)
class Diagnosis:
    """The verdict and what it rests on.

    `kind` is one of underfitting, overfitting, balanced, noise floor, not enough replicas, unclear; `key` is the run
    that was judged, `numbers` its parts in one line.
    """

    verdict: str
    kind: str
    share: float
    share_lo: float
    share_hi: float
    evidence: tuple[str, ...]
    actions: tuple[Action, ...]
    checks: tuple[Check, ...]
    key: str | None
    numbers: str


def diagnose(
    trials: pd.DataFrame,
    epochs: pd.DataFrame | None = None,
    replicas: pd.DataFrame | None = None,
    *,
    capacity: pd.DataFrame | None = None,
    learning: pd.DataFrame | None = None,
    study: str = "",
    spec: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    asked: Mapping[str, str] | None = None,
    importance: pd.DataFrame | None = None,
    interventions: pd.DataFrame | None = None,
    ensembles: pd.DataFrame | None = None,
    effects: Sequence[Effect] = (),
    test_share: float = math.nan,
) -> Diagnosis:
    """Return the verdict on a study, its evidence, the rules as applied, and what would help next.

    Args:
        trials: Table `trials` of the run history.
        epochs: Table `epochs`; serves where the replicas' own curves are missing. Mean curves alone show where the best
            epoch lies, but not whether a rise is more than chance, so nothing is advised from them.
        replicas: Table `replicas`.
        capacity: Table of `capacity_curve`; made from `trials` if None. `learning`: the same for `learning_curve`.
        learning: See `capacity`.
        study: Stored name of the study, for the commands; without it there are none.
        spec: `History.spec`, and `data`: `History.data`; they say how many training examples there are to be had.
        data: See `spec`.
        asked: `History.asked`, for the commands.
        importance: Table of `lab.analysis.attribution.importance`, for the check on what the knobs explain.
        interventions: Table of `lab.analysis.interventions.interventions`, in a study of variants.
        ensembles: Table of `lab.analysis.ensemble.ensembles`, of the run that is judged.
        effects: Of `lab.analysis.attribution.moves`, on the risk, from that run on.
        test_share: Of the variance of the risk's estimate, what having few test images makes; NaN: not known.
    """
    row = chosen(trials)
    if row is None:
        n_gone = int((number_column(trials, "n_diverged") > 0).sum())
        seen = f"{len(trials)} runs, {n_gone} of them with diverged replicas" if len(trials) else "no runs"
        why = f"{seen}; none has a measured bias² and variance"
        advice = (Action("every replica diverged: smaller learning rates or initial weights", None),) if n_gone else ()
        nothing = "Not enough replicas: nothing was measured"
        return Diagnosis(nothing, "not enough replicas", math.nan, math.nan, math.nan, (why,), advice, (), None, seen)
    curves = pd.DataFrame()
    for frame in (replicas, epochs):
        if frame is not None and "key" in frame and curves.empty:
            curves = convergence(frame[frame["key"] == row.get("key")])
    capacity = capacity_curve(trials) if capacity is None else capacity
    case = Case(
        row=row,
        capacity=capacity,
        learning=learning_curve(trials) if learning is None else learning,
        training=dict(curves.iloc[0]) if len(curves) else {},
        peak=find_peak(capacity, replicas),
        study=study,
        trials=trials,
        spec=spec or {},
        data=data or {},
        asked=asked or {},
        importance=importance,
        interventions=interventions,
        ensembles=ensembles,
        effects=tuple(effects),
        test_share=test_share,
    )
    share = share_of_bias(estimate(row, "bias_sq"), estimate(row, "variance"))
    kind, verdict = _judge(case, share)
    applied = checks(case, kind, share, decided=math.isfinite(share.lo + share.hi))
    evidence, helpful = _evidence(case), actions(case, kind)
    return Diagnosis(verdict, kind, share.value, share.lo, share.hi, evidence, helpful, applied,
                     str(row["key"]) if "key" in row else None, _numbers(case, share))  # fmt: skip


def _judge(case: Case, share: Estimate) -> tuple[str, str]:
    bias, known = case.bias_name, case.bias_name == "bias²"
    if case.n_replicas < MIN_REPLICAS:
        return "not enough replicas", f"Not enough replicas for a verdict: {case.n_replicas}, {MIN_REPLICAS} are needed"
    if case.at_floor:
        return "noise floor", "At the noise floor: what is left is label noise"
    if not case.relative_width <= MAX_WIDTH or not math.isfinite(share.lo + share.hi):
        few = "test images" if case.lacks_test_images else "replicas"
        return "not enough replicas", f"Not enough {few} for a verdict: the intervals are too wide"
    if share.lo > UNDERFITTING:
        return "underfitting", f"Underfitting{'' if known else ' or label noise'}: {bias} outweighs variance"
    if share.hi < OVERFITTING:
        return "overfitting", f"Overfitting: variance outweighs {bias}"
    if share.lo >= OVERFITTING and share.hi <= UNDERFITTING:
        return "balanced", f"Balanced: {bias} and variance weigh about the same"
    if share.hi <= UNDERFITTING:
        return "unclear", "Unclear: overfitting or balanced, but not underfitting"
    if share.lo >= OVERFITTING:
        return "unclear", f"Unclear: balanced or underfitting{'' if known else ' (or noise)'}, but not overfitting"
    return "unclear", f"Unclear: {bias} and variance cannot be told apart"


def _numbers(case: Case, share: Estimate) -> str:
    parts = [f"{case.bias_name} {estimate(case.row, 'bias_sq')}", f"variance {estimate(case.row, 'variance')}"]
    if case.bias_name == "bias²":
        parts.insert(0, f"noise {num(estimate(case.row, 'noise').value)}")
    d, i = number(case.row, "n_resamples"), number(case.row, "n_inits")
    plan = f" of {d:g} training sets × {i:g} seeds" if math.isfinite(d * i) else ""
    draws = number(case.row, "n_noise_draws")
    plan += f" × {draws:g} draws of the label noise" if plan and draws > 1 else ""
    return (
        f"risk {estimate(case.row, 'risk')} = {' + '.join(parts)}; share of {case.bias_name} {share}; "
        f"{case.n_replicas} replicas{plan}"
    )


_CAUSES = {
    "variance_resample": "training set", "variance_init": "seed", "variance_interaction": "training set with seed",
}  # fmt: skip


def _evidence(case: Case) -> tuple[str, ...]:
    found = []
    for name, cause in _CAUSES.items():
        part = estimate(case.row, name)
        if part.lo > 0:
            found.append(f"variance by {cause}: {part}")
    change = doubling(case.learning, "risk")
    if change is not None and change[2].excludes_zero:
        found.append(f"n_train from {change[0]} to {change[1]} goes with a change of risk by {change[2]}")
    level = level_of(case.capacity, case.row)
    for column in ("bias_sq", "variance", "risk"):
        name = case.bias_name if column == "bias_sq" else column
        for way in (-1, 1):
            start = None if level is None else min(level, level + way)
            moved = step(case.capacity, start, (start or 0) + 1, column)
            if moved is not None and moved[1].excludes_zero:
                found.append(f"{moved[0]} goes with a change of {name} by {moved[1]}")
    if case.peak.claimed:
        found.append(f"double descent: {case.peak.reason}")
    return tuple(found)


def checks_table(diagnosis: Diagnosis) -> pd.DataFrame:
    """Return the rules as applied, one row a check: columns `CHECKS`."""
    return pd.DataFrame([asdict(check) for check in diagnosis.checks], columns=CHECKS)


def lines(diagnosis: Diagnosis) -> list[str]:
    """Return three lines for the terminal: the verdict, the numbers, and what would help next with its command."""
    if diagnosis.actions:
        first = diagnosis.actions[0]
        next_step = first.text + (f": {first.command}" if first.command else "")
    elif diagnosis.kind == "noise floor":
        next_step = "nothing in this study; only better labels or other inputs would lower the noise"
    else:
        next_step = "no effect measured here is clear enough to advise anything"
    return [f"{diagnosis.verdict}.", f"{diagnosis.numbers}.", f"Next: {next_step}"]
