"""What would help next: drawn from effects measured in this very study, and only from those whose interval excludes 0.

They are associations among trials: "goes with", not "causes", but for the variants of a study, which differ from their
baseline in one thing alone. The advice with the largest measured gain comes first.
"""

import math
from dataclasses import dataclass

from lab.analysis.capacity_curve import Estimate, estimate, level_of, number, step
from lab.analysis.case import Case
from lab.analysis.learning_curve import doubling

ENSEMBLE = 5
MOST_VARIANTS = 3
WORTH_IT = 0.03  # of the risk: a smaller gain is not worth a line


@dataclass(frozen=True)
class Action:
    """Something that would help, and the command that tries it (None: no command does)."""

    text: str
    command: str | None


def actions(case: Case, kind: str) -> tuple[Action, ...]:
    """Return what would help, the largest measured gain in risk first; nothing that was not measured to help.

    With too few replicas for a verdict, only more of them are advised; where the verdict is unclear they are, third.
    """
    replicate = _replicate(case)
    if kind == "not enough replicas":
        return (replicate,)
    if kind == "noise floor":
        return ()
    # what was changed alone, and measured in pairs, is better evidence than what differed among other things
    among_trials = (_average_seeds(case), _change_capacity(case, 1), _change_capacity(case, -1))
    switched = _switch_on(case)
    measured = (_train_otherwise(case), _add_data(case), *(among_trials if switched is None else switched))
    found = sorted((advice for advice in measured if advice is not None), key=lambda advice: -advice[0])
    helpful = tuple(action for _, action in found)
    return (*helpful[:2], replicate) if kind == "unclear" else helpful


_Found = tuple[float, Action] | None  # the gain in risk that was measured, and the advice


def _replicate(case: Case) -> Action:
    if "smoke" in case.study.split(",")[1:]:
        return Action("run the study in full: a smoke run has few replicas", case.command_in_full())
    plan = "Replication(n_resamples=…, n_inits=…)"
    return Action(f"more replicas: a larger {plan} in a copy of the study file", None)


def _train_otherwise(case: Case) -> _Found:
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


def _worth_it(case: Case, gain: float) -> bool:
    return gain > WORTH_IT * number(case.row, "risk")


def _add_data(case: Case) -> _Found:
    change = doubling(case.learning, "risk")
    if change is None or not change[2].hi < 0 or not _worth_it(case, -change[2].value):
        return None
    before, n, gain = change[0], change[1], -change[2].value
    more = int(min(2 * n, case.limit))
    text = f"more training examples: {before} to {n} went with risk changing by {change[2]}"
    if more < 1.1 * n:
        return gain, Action(f"{text} (the pool has no more for this scheme)", None)
    return gain, Action(text, case.command(n_train=more))


def _average_seeds(case: Case) -> _Found:
    parts = [estimate(case.row, name) for name in ("variance_init", "variance_interaction")]
    gain = (1 - 1 / ENSEMBLE) * sum(part.value for part in parts if part.lo > 0)
    if not _worth_it(case, gain):
        return None
    text = f"average the predictions of {ENSEMBLE} seeds: takes about {gain:.3g} off the risk (variance by seed)"
    return gain, Action(text, None)


def _change_capacity(case: Case, way: int) -> _Found:
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


def _switch_on(case: Case) -> list[_Found] | None:
    """Return the variants that lowered the risk most against the baseline; None in a study without variants."""
    if case.interventions is None or case.interventions.empty:
        return None
    table = case.interventions
    risk = table[(table["term"] == "risk") & (table["hi"] < 0)].sort_values("difference", kind="stable")
    found: list[_Found] = []
    for row in risk.head(MOST_VARIANTS).to_dict("records"):
        if -row["difference"] <= WORTH_IT * row["baseline"]:
            continue
        own = table[table["variant"] == row["variant"]].set_index("term")["difference"]
        parts = f"{case.bias_name} by {own['bias_sq']:+.3g}, variance by {own['variance']:+.3g}"
        knobs = case.spec.get("variants", {}).get(row["variant"])
        change = Estimate(row["difference"], row["lo"], row["hi"])
        text = f"{row['variant'].replace('_', ' ')}: changed the risk by {change} ({parts})"
        found.append((-row["difference"], Action(text, case.command(**knobs) if knobs else None)))
    return found
