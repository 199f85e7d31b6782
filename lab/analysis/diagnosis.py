"""Diagnosis: does the model underfit or overfit, how sure is that, and what would help next.

The verdict rests on the share s = bias²/(bias² + variance) of the confirmed run (the best explore trial if there is
none; its numbers then carry the winner's curse). Where the noise is not known, bias² contains it, and every text says
"bias² + noise": a large share can then mean label noise as well as underfitting, while a small one means overfitting
all the more.

The interval of the share combines the intervals of its two parts at their worst: s_lo = b_lo/(b_lo + v_hi) and
s_hi = b_hi/(b_hi + v_lo), negative ends taken as 0. It holds whenever both 95 % intervals hold, that is in at least
90 % of studies (Bonferroni), whatever the correlation of the two estimates; in tests it covers more. A delta method
would be narrower, but needs a covariance that the run history does not keep.

Advice is drawn from effects measured in this very study, and only from those whose interval excludes 0. They are
associations among trials: "goes with", not "causes".
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.capacity_curve import (
    Estimate,
    Peak,
    capacity_curve,
    estimate,
    find_peak,
    level_of,
    number,
    number_column,
    of_phase,
    selection_risk,
    step,
)
from lab.analysis.learning_curve import doubling, learning_curve
from lab.analysis.training_curve import GL_LIMIT, convergence

UNDERFITTING, OVERFITTING = 0.6, 0.4
MIN_REPLICAS = 10
MAX_WIDTH = 0.5  # half-width of bias² + variance, over its value
NOISE_FLOOR = 0.1
ENSEMBLE = 5
WORTH_IT = 0.03  # of the risk: a smaller gain is not worth a line
CHECKS = ["name", "threshold", "measured", "status", "note"]


@dataclass(frozen=True)
class Action:
    """Something that would help, and the command that tries it (None: no command does)."""

    text: str
    command: str | None


@dataclass(frozen=True)
class Check:
    """One rule as applied. `status`: "ok", "attention", "info" (no threshold), "not measured"."""

    name: str
    threshold: str
    measured: str
    status: str
    note: str = ""


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


def share_of_bias(bias_sq: Estimate, variance: Estimate) -> Estimate:
    """Return bias²/(bias² + variance) in [0, 1] with the interval that the module's docstring explains."""

    def share(b: float, v: float) -> float:
        b, v = (math.nan if math.isnan(x) else max(x, 0.0) for x in (b, v))
        return b / (b + v) if b + v > 0 else math.nan

    point = share(bias_sq.value, variance.value)
    lo, hi = share(bias_sq.lo, variance.hi), share(bias_sq.hi, variance.lo)
    return Estimate(point, lo, hi)


def chosen(trials: pd.DataFrame) -> pd.Series | None:
    """Return the run to judge: the newest measured confirm run, else the explore trial with the lowest risk."""
    for phase in ("confirm", "explore"):
        rows = of_phase(trials, phase)
        measured = np.isfinite(number_column(rows, "bias_sq")) & np.isfinite(number_column(rows, "variance"))
        rows = rows[measured]
        if rows.empty:
            continue
        if phase == "confirm":
            order = np.lexsort((number_column(rows, "number"), number_column(rows, "started").fillna(-math.inf)))
            return rows.iloc[int(order[-1])]
        return rows.iloc[int(np.argmin(selection_risk(rows).fillna(math.inf).to_numpy()))]
    return None


@dataclass(frozen=True)
class _Case:
    """The run that is judged and everything that bears on it."""

    row: pd.Series
    capacity: pd.DataFrame
    learning: pd.DataFrame
    training: Mapping[str, Any]  # row of `convergence`; empty if not measured
    peak: Peak
    study: str
    limit: float  # most training examples the scheme can give a replica; inf where not known

    @property
    def bias_name(self) -> str:
        return "bias²" if math.isfinite(estimate(self.row, "noise").value) else "bias² + noise"

    @property
    def n_replicas(self) -> int:
        planned = number(self.row, "n_resamples") * number(self.row, "n_inits")
        gone = np.nan_to_num(number(self.row, "n_diverged"))
        counts = [x for x in (planned - gone, number(self.row, "n_replicas")) if math.isfinite(x)]
        return int(min(counts)) if counts else 0

    def command(self, **knobs: Any) -> str | None:
        return command(self.study, **knobs)


def command(study: str, *, smoke: bool = True, **knobs: Any) -> str | None:
    """Return the command that runs a stored study with knobs changed; None if the study has no name.

    A stored name lists the flags that made it: "capacity_sweep,data=fashion_mnist,family=cnn". With `smoke` False the
    flag --smoke is dropped.
    """
    if not study:
        return None
    base, *flags = study.split(",")
    words, settings = ["python -m lab.study run", base], {}
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "data":
            words.append(f"--data {value}")
        elif name == "smoke":
            words += ["--smoke"] if smoke else []
        else:
            settings[name] = value
    settings |= {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in knobs.items()}
    return " ".join(words + [f"--set {name}={value}" for name, value in settings.items()])


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
    case = _Case(
        row=row,
        capacity=capacity,
        learning=learning_curve(trials) if learning is None else learning,
        training=dict(curves.iloc[0]) if len(curves) else {},
        peak=find_peak(capacity, replicas),
        study=study,
        limit=_limit(spec, data),
    )
    share = share_of_bias(estimate(row, "bias_sq"), estimate(row, "variance"))
    kind, verdict = _judge(case, share)
    evidence, actions = _evidence(case), _actions(case, kind)
    return Diagnosis(verdict, kind, share.value, share.lo, share.hi, evidence, actions, _checks(case, kind, share),
                     str(row["key"]) if "key" in row else None, _numbers(case, share))  # fmt: skip


def _limit(spec: Mapping[str, Any] | None, data: Mapping[str, Any] | None) -> float:
    plan, pool = (spec or {}).get("replication", {}), (data or {}).get("n_pool")
    if pool is None or not plan or plan["scheme"] == "fresh":
        return math.inf
    return pool // plan["n_resamples"] if plan["scheme"] == "disjoint" else pool


def _sum(case: _Case) -> Estimate:
    """Return bias² + variance: the risk less the noise, with the interval of the risk (of the parts if missing)."""
    b, v, risk = (estimate(case.row, name) for name in ("bias_sq", "variance", "risk"))
    total = b.value + v.value
    if math.isfinite(risk.half):
        return Estimate(total, total - (risk.value - risk.lo), total + (risk.hi - risk.value))
    return Estimate(total, b.lo + v.lo, b.hi + v.hi)


def _relative_width(total: Estimate) -> float:
    return total.half / total.value if total.value > 0 else math.inf


def _at_floor(case: _Case) -> bool:
    noise = estimate(case.row, "noise").value
    return bool(noise > 0 and _sum(case).hi <= NOISE_FLOOR * noise)


def _judge(case: _Case, share: Estimate) -> tuple[str, str]:
    bias, known = case.bias_name, case.bias_name == "bias²"
    if case.n_replicas < MIN_REPLICAS:
        return "not enough replicas", f"Not enough replicas for a verdict: {case.n_replicas}, {MIN_REPLICAS} are needed"
    if _at_floor(case):
        return "noise floor", "At the noise floor: what is left is label noise"
    if not _relative_width(_sum(case)) <= MAX_WIDTH or not math.isfinite(share.lo + share.hi):
        return "not enough replicas", "Not enough replicas for a verdict: the intervals are too wide"
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


def _numbers(case: _Case, share: Estimate) -> str:
    parts = [f"{case.bias_name} {estimate(case.row, 'bias_sq')}", f"variance {estimate(case.row, 'variance')}"]
    if case.bias_name == "bias²":
        parts.insert(0, f"noise {estimate(case.row, 'noise').value:.3g}")
    d, i = number(case.row, "n_resamples"), number(case.row, "n_inits")
    plan = f" of {d:g} training sets × {i:g} seeds" if math.isfinite(d * i) else ""
    return (
        f"risk {estimate(case.row, 'risk')} = {' + '.join(parts)}; share of {case.bias_name} {share}; "
        f"{case.n_replicas} replicas{plan}"
    )


_CAUSES = {
    "variance_resample": "training set", "variance_init": "seed", "variance_interaction": "training set with seed",
}  # fmt: skip


def _evidence(case: _Case) -> tuple[str, ...]:
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


def _actions(case: _Case, kind: str) -> tuple[Action, ...]:
    replicate = _replicate(case)
    if kind == "not enough replicas":
        return (replicate,)
    if kind == "noise floor":
        return ()
    training, data, ensemble = _train_otherwise(case), _add_data(case), _average_seeds(case)
    larger, smaller = _change_capacity(case, 1), _change_capacity(case, -1)
    ranked: dict[str, list[_Found]] = {
        "underfitting": [training, larger, data],
        "overfitting": [training, *_by_gain(data, ensemble), smaller],
        "balanced": [training, *_by_gain(data, ensemble, larger, smaller)],
        "unclear": [training, *_by_gain(data, ensemble, larger, smaller)],
    }
    actions = [advice[1] for advice in ranked[kind] if advice is not None]
    return (*actions, replicate) if kind == "unclear" else tuple(actions)


_Found = tuple[float, Action] | None  # the gain in risk that was measured, and the advice


def _by_gain(*found: _Found) -> list[_Found]:
    return sorted(found, key=lambda advice: -advice[0] if advice is not None else math.inf)


def _replicate(case: _Case) -> Action:
    if "smoke" in case.study.split(",")[1:]:
        return Action("run the study in full: a smoke run has few replicas", command(case.study, smoke=False))
    plan = "Replication(n_resamples=…, n_inits=…)"
    return Action(f"more replicas: a larger {plan} in a copy of the study file", None)


def _train_otherwise(case: _Case) -> _Found:
    found, epochs = case.training, number(case.row, "epochs")
    rate, rise, fall = number(case.row, "learning_rate"), number(found, "rise"), number(found, "fall")
    if not found:
        return None
    if found["training_loss_rising"]:
        cmd = case.command(learning_rate=rate / 3) if math.isfinite(rate) else None
        return math.inf, Action("the training loss rises again: a bug, or too large a step size; try a smaller", cmd)
    if found["overtrained"]:
        best = max(int(found["best_epoch"]), 1)
        text = f"stop near epoch {best}: validation risk has risen by {rise:.3g} since (GL {found['gl']:.0f} %)"
        return rise, Action(text, case.command(epochs=best))
    if found["improving"] and fall > WORTH_IT * number(found, "val_last"):
        cmd = case.command(epochs=int(2 * epochs)) if math.isfinite(epochs) else None
        return fall, Action(f"train longer: validation risk fell by {fall:.3g} over the last quarter", cmd)
    return None


def _worth_it(case: _Case, gain: float) -> bool:
    return gain > WORTH_IT * number(case.row, "risk")


def _add_data(case: _Case) -> _Found:
    change = doubling(case.learning, "risk")
    if change is None or not change[2].hi < 0 or not _worth_it(case, -change[2].value):
        return None
    before, n, gain = change[0], change[1], -change[2].value
    more = int(min(2 * n, case.limit))
    text = f"more training examples: {before} to {n} went with risk changing by {change[2]}"
    if more < 1.1 * n:
        return gain, Action(f"{text} (the pool has no more for this scheme)", None)
    return gain, Action(text, case.command(n_train=more))


def _average_seeds(case: _Case) -> _Found:
    parts = [estimate(case.row, name) for name in ("variance_init", "variance_interaction")]
    gain = (1 - 1 / ENSEMBLE) * sum(part.value for part in parts if part.lo > 0)
    if not _worth_it(case, gain):
        return None
    text = f"average the predictions of {ENSEMBLE} seeds: takes about {gain:.3g} off the risk (variance by seed)"
    return gain, Action(text, None)


def _change_capacity(case: _Case, way: int) -> _Found:
    """Return the advice to go one level up for bias², or down for variance, if that part and the risk fell with it.

    At the top of the curve, to go beyond it, if the last step up still lowered bias² and risk.
    """
    level, column = level_of(case.capacity, case.row), "bias_sq" if way > 0 else "variance"
    if level is None:
        return None
    beyond = way > 0 and level == len(case.capacity) - 1
    ends = (level - 1, level) if beyond else (level, level + way)
    part, risk = step(case.capacity, *ends, column), step(case.capacity, *ends, "risk")
    if part is None or risk is None or not part[1].hi < 0 or not risk[1].hi < 0 or not _worth_it(case, -risk[1].value):
        return None
    there = case.capacity.iloc[ends[1]]
    knobs: dict[str, int] = {}
    if math.isfinite(number(there, "width")):
        knobs["width"] = int(2 * there["width"] if beyond else there["width"])
    if math.isfinite(number(there, "depth")) and case.capacity["depth"].nunique() > 1:
        knobs["depth"] = int(there["depth"])
    name = case.bias_name if way > 0 else "variance"
    how = f"a {'larger' if way > 0 else 'smaller'} network{', beyond the range tried' if beyond else ''}"
    text = f"{how}: {part[0]} went with {name} changing by {part[1]}, risk by {risk[1]}"
    return -risk[1].value, Action(text, case.command(**knobs) if knobs else None)


def _checks(case: _Case, kind: str, share: Estimate) -> tuple[Check, ...]:
    total, noise, found = _sum(case), estimate(case.row, "noise").value, case.training
    width = _relative_width(total)
    train, val = number(case.row, "train_error"), number(case.row, "val_error")
    gone = number(case.row, "n_diverged")
    floor = f"{total.hi / noise:.2g} × noise" if noise > 0 else "noise not known"
    unmeasured = not found or found["status"] in ("not measured", "diverged")

    def status(bad: bool, measured: bool = True) -> str:
        return "not measured" if not measured else "attention" if bad else "ok"

    def training(name: str, threshold: str, measured: str, flag: bool) -> Check:
        return Check(name, threshold, "–" if unmeasured else measured, status(flag, not unmeasured))

    gl, best = number(found, "gl"), number(found, "best_fraction")
    return (
        Check("replicas", f"at least {MIN_REPLICAS}", str(case.n_replicas), status(case.n_replicas < MIN_REPLICAS)),
        Check(f"interval of {case.bias_name} and variance together", f"within ± {MAX_WIDTH:.0%}", f"± {width:.0%}",
              status(not width <= MAX_WIDTH, math.isfinite(width))),
        Check("above the noise floor", f"upper end of bias² + variance over {NOISE_FLOOR:g} × noise", floor,
              status(_at_floor(case), noise > 0)),
        Check(f"share of {case.bias_name}",
              f"whole interval above {UNDERFITTING:g}: underfitting; below {OVERFITTING:g}: overfitting", str(share),
              status(kind in ("underfitting", "overfitting"), math.isfinite(share.lo + share.hi))),
        Check("gap from training to validation error (Ng)", "none", f"{train:.1%} to {val:.1%}, gap {val - train:.1%}",
              "info" if math.isfinite(val - train) else "not measured",
              "an interpolating network has training error 0: this \"bias\" is not bias²"),
        Check("diverged replicas", "0", f"{gone:g}", status(gone > 0, math.isfinite(gone))),
        training("overtrained (generalisation loss)", f"above {GL_LIMIT:g} % and two standard errors", f"{gl:.1f} %",
                 bool(found.get("overtrained"))),
        training("best epoch", "neither in the last quarter nor in the first tenth", f"at {best:.0%} of training",
                 bool(found.get("best_in_last_quarter") or found.get("best_in_first_tenth"))),
        training("training loss", "does not rise", "rises" if found.get("training_loss_rising") else "does not rise",
                 bool(found.get("training_loss_rising"))),
        Check("double descent", "significant peak near the interpolation threshold", case.peak.reason,
              "info" if case.peak.n_pairs else "not measured"),
    )  # fmt: skip


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
