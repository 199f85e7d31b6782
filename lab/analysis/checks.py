"""Can a study be trusted? Each rule as applied: what was wanted, what was measured, and how that is to be taken.

Thresholds are conventions, stated beside what was measured, so that a reader can hold another view.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lab.analysis.attribution import RELIABLE, ROUGH
from lab.analysis.capacity_curve import estimate, number, number_column, of_phase, selection_risk
from lab.analysis.case import NOISE_FLOOR, Case
from lab.analysis.training_curve import GL_LIMIT

CHECKS = ["name", "threshold", "measured", "status", "note", "where"]
UNDERFITTING, OVERFITTING = 0.6, 0.4
MIN_REPLICAS = 10
MAX_WIDTH = 0.5  # half-width of bias² + variance, over its value
MAX_LOST, MOST_LOST = 0.1, 0.3  # share of trials without a result: beyond the first look, beyond the second fail
MAX_ERROR_OF_ERROR = 0.02  # standard error of the error rate from the finite test set
MAX_OVERLAP = 0.1
EDGE = 0.02  # of the range of a knob: with eight knobs one of them lies that near by chance in a quarter of studies


@dataclass(frozen=True)
class Check:
    """One rule as applied. `status`: "fail", "attention", "not measured", "ok", "info" (no threshold).

    `where` names the part of the report that shows the evidence.
    """

    name: str
    threshold: str
    measured: str
    status: str
    note: str = ""
    where: str = ""


def checks(case: Case, kind: str, share: object, *, decided: bool) -> tuple[Check, ...]:
    """Return all rules as applied to a study.

    Args:
        case: What is judged.
        kind: Of the verdict.
        share: The share of bias² with its interval, as text.
        decided: The interval of the share is known.
    """
    return (*_precision(case, kind, share, decided), *_design(case), *_search(case), *_training(case))


def _status(bad: bool, measured: bool = True, *, worst: str = "attention") -> str:
    return "not measured" if not measured else worst if bad else "ok"


def _precision(case: Case, kind: str, share: object, decided: bool) -> Iterator[Check]:
    width, noise, total = case.relative_width, estimate(case.row, "noise").value, case.reducible
    floor = f"{total.hi / noise:.2g} × noise" if noise > 0 else "noise not known"
    train, val = number(case.row, "train_error"), number(case.row, "val_error")
    yield Check("replicas", f"at least {MIN_REPLICAS}", str(case.n_replicas),
                _status(case.n_replicas < MIN_REPLICAS, worst="fail"), where="method")  # fmt: skip
    yield Check(f"interval of {case.bias_name} and variance together", f"within ± {MAX_WIDTH:.0%}", f"± {width:.0%}",
                _status(not width <= MAX_WIDTH, math.isfinite(width), worst="fail"), where="verdict")  # fmt: skip
    yield Check("above the noise floor", f"upper end of bias² + variance over {NOISE_FLOOR:g} × noise", floor,
                _status(case.at_floor, noise > 0), where="verdict")  # fmt: skip
    yield Check(f"share of {case.bias_name}",
                f"whole interval above {UNDERFITTING:g}: underfitting; below {OVERFITTING:g}: overfitting", str(share),
                _status(kind in ("underfitting", "overfitting"), decided), where="verdict")  # fmt: skip
    gap = f"{train:.1%} to {val:.1%}, gap {val - train:.1%}"
    yield Check("gap from training to validation error (Ng)", "none", gap,
                "info" if math.isfinite(val - train) else "not measured",
                "an interpolating network has training error 0: this \"bias\" is not bias²", "training")  # fmt: skip
    yield _against_guessing(case)


def _against_guessing(case: Case) -> Check:
    n_classes, risk = len(case.data.get("class_names", ())), estimate(case.row, "risk")
    guessing = 1 - 1 / n_classes if n_classes else math.nan
    worst = risk.hi if math.isfinite(risk.hi) else risk.value
    return Check("better than guessing", f"risk below {guessing:.3g}, that of equal probabilities for all classes",
                 str(risk), _status(not worst < guessing, math.isfinite(guessing + worst), worst="fail"),
                 where="verdict")  # fmt: skip


def _design(case: Case) -> Iterator[Check]:
    n_test, error = float(case.data.get("n_test", math.nan)), number(case.row, "error")
    error = error if math.isfinite(error) else number(case.row, "test_error")
    spread = math.sqrt(max(error * (1 - error), 0.0) / n_test) if math.isfinite(error * n_test) else math.nan
    yield Check("size of the test set", f"standard error of the error rate at most {MAX_ERROR_OF_ERROR:.0%}",
                f"{spread:.1%} from {n_test:g} images",
                _status(not spread <= MAX_ERROR_OF_ERROR, math.isfinite(spread)), where="method")  # fmt: skip
    scheme = case.spec.get("replication", {}).get("scheme")
    n_train, n_pool = number(case.row, "n_train"), float(case.data.get("n_pool") or math.nan)
    shared = {"fresh": 0.0, "disjoint": 0.0, "seeds": 1.0}.get(str(scheme), n_train / n_pool)
    note = {
        "bootstrap": "about 37 % of each training set are repeats, and any two sets share examples: variance from the "
        "training set is not that of fresh samples",
        "seeds": "one training set for all replicas: what the data do is booked as bias²",
        "subsample": "what training sets share cannot vary: that part of the variance is booked as bias²",
    }.get(str(scheme), "")
    yield Check("overlap of training sets", f"any two share at most {MAX_OVERLAP:.0%}",
                f"{shared:.0%} expected ({scheme})",
                _status(shared > MAX_OVERLAP or scheme == "bootstrap", scheme is not None and math.isfinite(shared)),
                note if shared > 0 else "", "method")  # fmt: skip
    gone = number(case.row, "n_diverged")
    yield Check("diverged replicas", "0", f"{gone:g}", _status(gone > 0, math.isfinite(gone)), where="method")
    explore = of_phase(case.trials, "explore")
    if len(explore):
        lost = int((~np.isfinite(number_column(explore, "bias_sq"))).sum())
        part = lost / len(explore)
        status = _status(part > MAX_LOST, worst="fail" if part > MOST_LOST else "attention")
        yield Check("trials without a result", f"at most {MAX_LOST:.0%}", f"{lost} of {len(explore)}", status,
                    "diverged throughout, infeasible or failed: what is said of the space rests on the others"
                    if lost else "", "trials")  # fmt: skip


def _search(case: Case) -> Iterator[Check]:
    space = {k: d for k, d in case.spec.get("space", {}).items() if d.get("kind") != "choice" and k in case.row}
    at_edge = [text for knob, domain in space.items() if (text := _edge(knob, number(case.row, knob), domain))]
    if space:
        yield Check("best values inside the searched ranges", f"further than {EDGE:.0%} of the range from its ends",
                    "; ".join(at_edge) or "all inside", _status(bool(at_edge)),
                    "better values may lie beyond" if at_edge else "", "drivers")  # fmt: skip
    explore, confirm = of_phase(case.trials, "explore"), of_phase(case.trials, "confirm")
    picked = selection_risk(explore).dropna() if len(explore) else selection_risk(confirm).iloc[:0]
    if str(case.row.get("phase")) == "confirm" and len(picked):
        best = explore.iloc[int(selection_risk(explore).fillna(math.inf).to_numpy().argmin())]
        then, now = estimate(best, "risk"), estimate(case.row, "risk")
        change = now - then
        yield Check("confirmed as found in the search", "change of the risk within its interval",
                    f"{then.value:.3g} in the search, {now} confirmed",
                    _status(change.lo > 0, math.isfinite(change.lo)),
                    "the search had some luck: believe the confirmed numbers" if change.lo > 0 else "",
                    "verdict")  # fmt: skip
    elif len(picked):
        yield Check("confirmed as found in the search", "change of the risk within its interval", "–", "not measured",
                    "the numbers are those of the search, which picked the luckiest", "verdict")  # fmt: skip
    table = case.importance
    if table is not None and len(table):
        r2 = {str(target): float(rows["r2"].iloc[0]) for target, rows in table.groupby("target", sort=True)}
        known = [value for value in r2.values() if math.isfinite(value)]
        names = {"bias_sq": case.bias_name}
        yield Check("what the knobs explain", f"R² out of fold at least {RELIABLE:g}; below {ROUGH:g} no ranking",
                    ", ".join(f"{names.get(t, t)} {v:.2f}" for t, v in r2.items() if math.isfinite(v)) or "–",
                    _status(bool(known) and min(known) < RELIABLE, bool(known)), where="drivers")  # fmt: skip
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
    return "" if inside or few else f"{knob} {value:.3g} of {low:.3g} to {high:.3g}"


def _training(case: Case) -> Iterator[Check]:
    found = case.training
    unmeasured = not found or found["status"] in ("not measured", "diverged")

    def check(name: str, threshold: str, measured: str, flag: bool) -> Check:
        return Check(name, threshold, "–" if unmeasured else measured, _status(flag, not unmeasured), where="training")

    gl, best = number(found, "gl"), number(found, "best_fraction")
    yield check("overtrained (generalisation loss)", f"above {GL_LIMIT:g} % and two standard errors", f"{gl:.1f} %",
                bool(found.get("overtrained")))  # fmt: skip
    yield check("best epoch", "neither in the last quarter nor in the first tenth", f"at {best:.0%} of training",
                bool(found.get("best_in_last_quarter") or found.get("best_in_first_tenth")))  # fmt: skip
    yield check("training loss", "does not rise", "rises" if found.get("training_loss_rising") else "does not rise",
                bool(found.get("training_loss_rising")))  # fmt: skip
    vanished, exploded = number(case.row, "n_vanishing"), number(case.row, "n_exploding")
    known = math.isfinite(vanished + exploded)
    yield Check("gradients of the first layer", "neither vanish nor explode at the start, in any replica",
                f"vanish in {vanished:g}, explode in {exploded:g}" if known else "–",
                _status(vanished + exploded > 0, known), where="training")  # fmt: skip
