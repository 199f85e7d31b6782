"""Can a study be trusted? Each rule as applied: what was wanted, what was measured, and how that is to be taken.

Thresholds are conventions, stated beside what was measured, so that a reader can hold another view.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lab.analysis import coverage
from lab.analysis.advice import narrow, replicate
from lab.analysis.attribution import RELIABLE, ROUGH
from lab.analysis.capacity_curve import estimate, number, number_column, of_phase, selection_risk
from lab.analysis.case import MIN_REPLICAS, NOISE_FLOOR, Case
from lab.analysis.remedies import beyond, more_test_images, plan_of
from lab.analysis.signals import LIMITS
from lab.analysis.training_curve import GL_LIMIT
from lab.commands import command
from lab.growth import WHY
from lab.numerals import NARROW, num, percent
from lab.spec import CAPACITY_KNOBS

CHECKS = ["name", "threshold", "measured", "status", "note", "where", "command"]
UNDERFITTING, OVERFITTING = 0.6, 0.4
MAX_WIDTH = 0.5  # half-width of bias² + variance, over its value
MAX_LOST, MOST_LOST = 0.1, 0.3  # share of trials without a result: beyond the first look, beyond the second fail
MAX_ERROR_OF_ERROR = 0.02  # standard error of the error rate from the finite test set
MAX_OVERLAP = 0.1
EDGE = 0.02  # of the range of a knob: with eight knobs one of them lies that near by chance in a quarter of studies


@dataclass(frozen=True)
class Check:
    """One rule as applied. `status`: "fail", "attention", "not measured", "ok", "info" (no threshold).

    `where` names the part of the report that shows the evidence, `command` is one that may put it right.
    """

    name: str
    threshold: str
    measured: str
    status: str
    note: str = ""
    where: str = ""
    command: str = ""


def checks(case: Case, kind: str, share: object, *, decided: bool) -> tuple[Check, ...]:
    """Return all rules as applied to a study.

    Args:
        case: What is judged.
        kind: Of the verdict.
        share: The share of bias² with its interval, as text.
        decided: The interval of the share is known.
    """
    return (*_precision(case, kind, share, decided), *_design(case), *_search(case), *_training(case))


def _when(bad: bool, line: str | None) -> str:
    return line or "" if bad else ""


def _status(bad: bool, measured: bool = True, *, worst: str = "attention") -> str:
    return "not measured" if not measured else worst if bad else "ok"


def _precision(case: Case, kind: str, share: object, decided: bool) -> Iterator[Check]:
    width, noise, total = case.relative_width, estimate(case.row, "noise").value, case.reducible
    floor = f"{total.hi / noise:.2g} × noise" if noise > 0 else "noise not known"
    train, val = number(case.row, "train_error"), number(case.row, "val_error")
    more = replicate(case).command
    few, wide = case.n_replicas < MIN_REPLICAS, not width <= MAX_WIDTH
    yield Check("replicas", f"at least {MIN_REPLICAS}", str(case.n_replicas), _status(few, worst="fail"),
                where="method", command=_when(few, more))  # fmt: skip
    yield Check(f"interval of {case.bias_name} and variance together", f"within ± {percent(MAX_WIDTH)}",
                f"± {percent(width)}", _status(wide, math.isfinite(width), worst="fail"), where="verdict",
                command=_when(wide, narrow(case).command))  # fmt: skip
    yield from _targets(case)
    yield Check("above the noise floor", f"upper end of bias² + variance over {NOISE_FLOOR:g} × noise", floor,
                _status(case.at_floor, noise > 0), where="verdict")  # fmt: skip
    open_ = kind in ("unclear", "not enough replicas")
    yield Check("sure enough for a verdict",
                f"interval of the share of {case.bias_name} above {UNDERFITTING:g}, below {OVERFITTING:g} or between",
                str(share), _status(open_, decided), where="verdict",
                command=_when(open_ and decided, more))  # fmt: skip
    gap = f"{percent(train, 1)} to {percent(val, 1)}, gap {percent(val - train, 1)}"
    yield Check("gap from training to validation error (Ng)", "", gap,
                "info" if math.isfinite(val - train) else "not measured",
                "an interpolating network has training error 0: this “bias” is not bias²", "training")  # fmt: skip
    yield _against_guessing(case)
    yield _covered(case)


def _targets(case: Case) -> Iterator[Check]:
    """Say how many trials that grew are as sure as was asked, and why the others stopped."""
    explore, plan = of_phase(case.trials, "explore"), case.spec.get("replication", {})
    reached = number_column(explore, "target_reached").dropna()
    if reached.empty:
        return
    n, others = int(reached.sum()), explore.loc[reached.index[reached == 0], "stopped"].value_counts()
    term = {"bias_sq": case.bias_name}.get(plan["target_term"], plan["target_term"])
    note = "; ".join(f"{count} stopped as {WHY[reason]}" for reason, count in others.items())
    yield Check("trials as sure as asked",
                f"half the interval of {term} at most {plan['target_half_width']:g}",
                f"{n} of {len(reached)}", _status(n < len(reached)), note, "trials",
                _when((others.index == "cap").any(), replicate(case).command))  # fmt: skip


def _against_guessing(case: Case) -> Check:
    n_classes, risk = len(case.data.get("class_names", ())), estimate(case.row, "risk")
    guessing = 1 - 1 / n_classes if n_classes else math.nan
    worst = risk.hi if math.isfinite(risk.hi) else risk.value
    return Check("better than guessing", f"risk below {guessing:.3g}, that of equal probabilities for all classes",
                 str(risk), _status(not worst < guessing, math.isfinite(guessing + worst), worst="fail"),
                 where="verdict")  # fmt: skip


def _covered(case: Case) -> Check:
    """Return how often intervals like these were measured to cover the truth."""
    names = {"risk": "risk", "bias_sq": case.bias_name, "variance": "variance"}
    counts = [number(case.row, name) for name in ("n_resamples", "n_inits")]
    found = {}
    if math.isfinite(sum(counts)) and not number(case.row, "n_noise_draws") > 1:
        found = {name: cover for name in names if (cover := coverage.measured(name, int(counts[0]), int(counts[1])))}
    short = [name for name, cover in found.items() if coverage.falls_short(name, cover)]
    told = ", ".join(f"{names[name]} {cover}" for name, cover in found.items())
    note = (
        "measured on learners whose truth is known (benchmarks/coverage.md), with {0.n_resamples} training sets × "
        "{0.n_inits} seeds, {0.n_repetitions} times each"
    ).format(next(iter(found.values()))) if found else (
        "for fewer training sets or seeds than 4 × 4, or with redrawn label noise, it was not measured"
    )  # fmt: skip
    if math.isfinite(number(case.row, "half_width")):
        note += "; for trials that grow until an interval is narrow it is lower (benchmarks/adaptive.md)"
    return Check("coverage of 95 % intervals", f"risk and bias² {coverage.WANTED[0]:g} to {coverage.WANTED[1]:g} %, "
                 f"variance at least {coverage.WANTED_VARIANCE:g} %", told or "–",
                 _status(bool(short), bool(found)), note, "method")  # fmt: skip


def _design(case: Case) -> Iterator[Check]:
    n_test, error = float(case.data.get("n_test", math.nan)), number(case.row, "error")
    error = error if math.isfinite(error) else number(case.row, "test_error")
    spread = math.sqrt(max(error * (1 - error), 0.0) / n_test) if math.isfinite(error * n_test) else math.nan
    loose = math.isfinite(spread) and spread > MAX_ERROR_OF_ERROR
    yield Check("size of the test set", f"standard error of the error rate at most {percent(MAX_ERROR_OF_ERROR)}",
                f"{percent(spread, 2 if loose else 1)} from {num(n_test)} images",
                _status(loose, math.isfinite(spread)), where="method",
                command=_when(loose, _larger_test_set(case, n_test, spread)))  # fmt: skip
    yield _overlap(case)
    yield from _starts(case)
    yield from _data(case)
    gone = number(case.row, "n_diverged")
    rate = number(case.row, "learning_rate")
    slower = case.command(learning_rate=rate / 3) if math.isfinite(rate) else None
    yield Check("diverged replicas", "0", f"{gone:g}", _status(gone > 0, math.isfinite(gone)), where="method",
                command=_when(gone > 0, slower))  # fmt: skip
    explore = of_phase(case.trials, "explore")
    explore = explore[explore["outcome"] != "pruned"] if "outcome" in explore else explore
    if len(explore):
        lost = int((~np.isfinite(number_column(explore, "bias_sq"))).sum())
        part = lost / len(explore)
        status = _status(part > MAX_LOST, worst="fail" if part > MOST_LOST else "attention")
        yield Check("trials without a result", f"at most {percent(MAX_LOST)}", f"{lost} of {len(explore)}", status,
                    "diverged throughout, infeasible or failed: what is said of the space rests on the others; the "
                    "reasons:" if lost else "", "trials",
                    _when(lost > 0 and bool(case.study), command("status", case.study, asked=case.asked)))  # fmt: skip


def _starts(case: Case) -> Iterator[Check]:
    n_starts, n_inits = number(case.row, "n_starts"), number(case.row, "n_inits")
    if math.isfinite(n_starts):
        few = n_starts < n_inits
        yield Check("networks to start from", "one a seed", f"{n_starts:g} for {n_inits:g} seeds", _status(few),
                    "seeds that share one differ by what is drawn afterwards alone: the variance by seed leaves out "
                    "what another pre-training would change" if few else "", "method")  # fmt: skip


def _larger_test_set(case: Case, n_test: float, spread: float) -> str | None:
    if case.is_smoke:
        return case.command_in_full()
    needed = math.ceil(n_test * (spread / MAX_ERROR_OF_ERROR) ** 2 / 100) * 100 if math.isfinite(spread) else 0
    change = more_test_images(case, needed)
    return None if change is None else case.command(**change.settings)


def _data(case: Case) -> Iterator[Check]:
    found = case.data.get("findings")
    if found is not None:  # studies of earlier editions did not look
        yield Check("data set", "nothing looks odd", f"{len(found)} findings" if len(found) != 1 else "1 finding",
                    _status(bool(found)), "; ".join(map(str, found)), "method")  # fmt: skip


OVERLAPS = {
    "bootstrap": "about 37 % of each training set are repeats, and any two sets share examples: variance from the "
    "training set is not that of fresh samples",
    "seeds": "one training set for all replicas: what the data do is booked as bias²",
    "subsample": "what training sets share cannot vary: that part of the variance is booked as bias²",
    "partitions": "only training sets of one partition are compared, so the estimates stay unbiased; but more "
    "partitions narrow no interval",
}


def _overlap(case: Case) -> Check:
    """Return how much of two training sets that are compared is the same, as expected of the scheme."""
    name, wanted = "overlap of training sets", f"any two that are compared share at most {percent(MAX_OVERLAP)}"
    plan, n_train, n_pool = plan_of(case), number(case.row, "n_train"), float(case.data.get("n_pool") or math.nan)
    if plan is None:
        return Check(name, wanted, "–", "not measured", where="method")
    shared = {"fresh": 0.0, "disjoint": 0.0, "seeds": 1.0}.get(plan.scheme, n_train / n_pool)
    measured, note = f"{percent(shared)} expected ({plan.scheme})", OVERLAPS.get(plan.scheme, "")
    if plan.n_partitions > 1:
        across = percent(n_train / n_pool)
        measured = f"0{NARROW}% within a partition, {across} expected across the {plan.n_partitions} (not compared)"
        note = OVERLAPS["partitions"]
    bad = shared > MAX_OVERLAP or plan.scheme == "bootstrap"
    apart = plan.scheme in ("subsample", "bootstrap") and plan.n_resamples * n_train <= n_pool
    return Check(name, wanted, measured, _status(bad, math.isfinite(shared)), note, "method",
                 _when(bad and apart, case.command(scheme="disjoint")))  # fmt: skip


def _search(case: Case) -> Iterator[Check]:
    space = {k: d for k, d in case.spec.get("space", {}).items() if d.get("kind") != "choice" and k in case.row}
    at_edge = {k: text for k, domain in space.items() if (text := _edge(k, number(case.row, k), domain))}
    further = next((found for k in at_edge if (found := beyond(k, number(case.row, k), space[k]))), None)
    if space:
        yield Check("best values inside the searched ranges", f"not within {percent(EDGE)} of the ends of the range",
                    "; ".join(at_edge.values()) or "all inside", _status(bool(at_edge)),
                    "better values may lie beyond" if at_edge else "", "drivers",
                    _when(further is not None, case.command(**(further or {}))))  # fmt: skip
    explore, confirm = of_phase(case.trials, "explore"), of_phase(case.trials, "confirm")
    picked = selection_risk(explore).dropna() if len(explore) else selection_risk(confirm).iloc[:0]
    if str(case.row.get("phase")) == "confirm" and len(picked):
        best = explore.iloc[int(selection_risk(explore).fillna(math.inf).to_numpy().argmin())]
        if (same := number_column(explore, "number") == number(case.row, "number")).any():
            best = explore[same].iloc[0]  # of several that were confirmed, not always the best of the search
        then, now = estimate(best, "risk"), estimate(case.row, "risk")
        change = now - then
        yield Check("confirmed as found in the search", "change of the risk within its interval",
                    f"{num(then.value)} in the search, {now} confirmed",
                    _status(change.lo > 0, math.isfinite(change.lo)),
                    "the search had some luck: believe the confirmed numbers" if change.lo > 0 else "",
                    "verdict")  # fmt: skip
    elif len(picked):
        yield Check("confirmed as found in the search", "change of the risk within its interval", "–", "not measured",
                    "the numbers are those of the search, which picked the luckiest", "verdict",
                    _when(True, case.command()))  # fmt: skip
    table = case.importance
    if table is not None and len(table) and not case.spec.get("variants"):  # of which there are too few
        r2 = {str(target): float(rows["r2"].iloc[0]) for target, rows in table.groupby("target", sort=True)}
        known = [value for value in r2.values() if math.isfinite(value)]
        names, little = {"bias_sq": case.bias_name}, bool(known) and min(known) < RELIABLE
        yield Check("what the knobs explain", f"R² out of fold at least {RELIABLE:g}; below {ROUGH:g} no ranking",
                    ", ".join(f"{names.get(t, t)} {v:.2f}" for t, v in r2.items() if math.isfinite(v)) or "–",
                    _status(little, bool(known)), where="drivers",
                    command=_when((little or not known) and case.spec.get("sampler") != "grid",  # it has no more points
                                  case.command(trials=max(2 * len(explore), 40))))  # fmt: skip
    if case.peak.n_pairs or not set(CAPACITY_KNOBS).isdisjoint(case.spec.get("space", CAPACITY_KNOBS)):
        yield Check("double descent", "significant peak near the interpolation threshold", case.peak.reason,
                    "info" if case.peak.n_pairs else "not measured", where="capacity")  # fmt: skip


def _edge(knob: str, value: float, domain: dict[str, object]) -> str:
    """Return "width 250 of 4 to 256" where a value lies at an end of its range; empty else."""
    low, high = (float(str(domain.get(end, math.nan))) for end in ("low", "high"))
    if not math.isfinite(value + low + high) or high <= low or (low == 0 and value < high / 2):
        return ""  # nothing lies below 0
    a, b, x = (math.log(v) for v in (low, high, value)) if domain.get("log") and low > 0 < value else (low, high, value)
    inside = EDGE <= (x - a) / (b - a) <= 1 - EDGE
    few = domain.get("kind") == "int" and high - low <= 3  # with four values, half of them are ends
    return "" if inside or few else f"{knob} {num(value)} of {num(low)} to {num(high)}"


def _training(case: Case) -> Iterator[Check]:
    found = case.training
    unmeasured = not found or found["status"] in ("not measured", "diverged")

    def check(name: str, threshold: str, measured: str, flag: bool, remedy: str | None) -> Check:
        measured, flag = ("–", False) if unmeasured else (measured, flag)
        return Check(name, threshold, measured, _status(flag, not unmeasured), "", "training", _when(flag, remedy))

    gl, best = number(found, "gl"), number(found, "best_fraction")
    epochs, best_epoch, rate = (
        number(found, "n_epochs"),
        number(found, "best_epoch"),
        number(case.row, "learning_rate"),
    )
    late = bool(found.get("best_in_last_quarter"))
    flat = late and math.isfinite(number(found, "fall_se")) and not found["improving"]
    length = (2 * epochs if late else epochs / 2) if math.isfinite(epochs) else math.nan
    yield check("overtrained (generalisation loss)", f"at most {GL_LIMIT:g} %, or a rise within two standard errors",
                f"{num(gl, 2)} %", bool(found.get("overtrained")),
                case.command(epochs=max(int(best_epoch), 1)) if math.isfinite(best_epoch) else None)  # fmt: skip
    yield check("best epoch", "not in the first tenth nor, still falling, in the last quarter",
                f"at {percent(best)} of training{', its fall within two standard errors' if flat else ''}",
                (late and not flat) or bool(found.get("best_in_first_tenth")),
                case.command(epochs=max(int(length), 1)) if math.isfinite(length) else None)  # fmt: skip
    rises = bool(found.get("training_loss_rising"))
    yield check("training loss", "does not rise", "rises" if rises else "does not rise", rises,
                case.command(learning_rate=rate / 3) if math.isfinite(rate) else None)  # fmt: skip
    vanished, exploded = number(case.row, "n_vanishing"), number(case.row, "n_exploding")
    known = math.isfinite(vanished + exploded)
    yield Check("gradients of the first layer", "neither vanish nor explode at the start, in any replica",
                f"vanish in {vanished:g}, explode in {exploded:g}" if known else "–",
                _status(vanished + exploded > 0, known), where="training")  # fmt: skip
    signals = {name: number(case.row, f"signal_{name}") for name in LIMITS}
    seen = {name: value for name, value in signals.items() if math.isfinite(value)}
    words = {"dead": "{} of units dead", "saturated": "{} of values saturated", "update": "steps {} of the weights"}
    share, step = percent(LIMITS["dead"]), percent(LIMITS["update"])
    yield Check("activations and steps at the end",
                f"at most {share} dead or saturated, steps at most {step} of the weights",
                ", ".join(words[name].format(percent(value)) for name, value in seen.items()) or "–",
                _status(any(value > LIMITS[name] for name, value in seen.items()), bool(seen)),
                where="training")  # fmt: skip
