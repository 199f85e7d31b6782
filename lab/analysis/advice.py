"""What would help next: drawn from effects measured in this very study, and only from those whose interval excludes 0.

They are associations among trials: "goes with", not "causes", but for the variants of a study, which differ from their
baseline in one thing alone, and for ensembles. The advice with the largest measured gain comes first.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lab.analysis.capacity_curve import Estimate, estimate, level_of, number, step
from lab.analysis.case import Case
from lab.analysis.learning_curve import doubling
from lab.analysis.remedies import more_examples, more_replicas, more_test_images
from lab.numerals import num, percent, signed

MOST_VARIANTS, MOST_KNOBS = 3, 2
WORTH_IT = 0.03  # of the risk: a smaller gain is not worth a line


@dataclass(frozen=True)
class Action:
    """Something that would help, and the command that tries it (None: no command does).

    `gain` is by how much its measurement says the risk falls; None if it makes the numbers surer, not the model better,
    or if that was not measured.
    """

    text: str
    command: str | None
    gain: Estimate | None = None


def actions(case: Case, kind: str) -> tuple[Action, ...]:
    """Return what would help, the largest measured gain in risk first; nothing that was not measured to help.

    With too few replicas or test images for a verdict, only more of them are advised; where the verdict is unclear,
    more replicas are, third.
    """
    if kind == "not enough replicas":
        return (narrow(case),)
    if kind == "noise floor":
        return ()
    helpful = (*_repair(case), *sorted(_measured(case), key=lambda action: -_size(action)))
    return (*helpful[:2], replicate(case)) if kind == "unclear" else helpful


def _size(action: Action) -> float:
    return action.gain.value if action.gain is not None else 0.0


def _measured(case: Case) -> Iterator[Action]:
    yield from _train_otherwise(case)
    yield from _add_data(case)
    # what was changed alone, and measured in pairs, is better evidence than what differed among other things
    if case.interventions is not None and not case.interventions.empty:
        yield from _switch_on(case)
        return
    yield from _average_seeds(case)
    capacity = [*_change_capacity(case, 1), *_change_capacity(case, -1)]
    yield from capacity
    yield from _turn_knobs(case, without=("width", "depth") if capacity else ())


def replicate(case: Case) -> Action:
    """Return the advice to measure with more replicas."""
    if case.is_smoke:
        return Action("run the study in full: a smoke run has few replicas", case.command_in_full())
    change = more_replicas(case)
    if change is None:
        return Action("more replicas: the plan of this study is not known", None)
    return Action(f"more replicas, for narrower intervals: {change.words}", case.command(**change.settings))


def narrow(case: Case) -> Action:
    """Return the advice that narrows the interval of the risk: more replicas, or more test images."""
    if case.is_smoke or not case.lacks_test_images:
        return replicate(case)
    now = int(case.data["n_test"])
    text = f"more test images than {now}: {percent(case.test_share)} of the squared width of the interval is from those"
    change = more_test_images(case, 2 * now)
    if change is None:
        return Action(f"{text}, and there are no more to be had in the pool", None)
    return Action(f"{text}; this measures on {change.words}", case.command(**change.settings))


def _worth_it(case: Case, gain: float) -> bool:
    return gain > WORTH_IT * number(case.row, "risk")


def _fallen(change: Estimate) -> Estimate:
    """Return a change of the risk as a gain."""
    return Estimate(-change.value, -change.hi, -change.lo)


def _repair(case: Case) -> Iterator[Action]:
    if case.training and case.training["training_loss_rising"]:
        rate = number(case.row, "learning_rate")
        yield Action("the training loss rises again: a bug, or too large a step size; try a smaller",
                     case.command(learning_rate=rate / 3) if math.isfinite(rate) else None)  # fmt: skip


def _train_otherwise(case: Case) -> Iterator[Action]:
    found, epochs = case.training, number(case.row, "epochs")
    if not found or found["training_loss_rising"]:
        return
    rise, fall = (_two_errors(found, name) for name in ("rise", "fall"))
    if found["overtrained"]:
        best = max(int(found["best_epoch"]), 1)
        text = f"stop near epoch {best}: validation risk has risen by {rise} since (GL {num(number(found, 'gl'), 2)} %)"
        yield Action(text, case.command(epochs=best), rise)
    elif found["improving"] and fall.value > WORTH_IT * number(found, "val_last"):
        span = (number(found, "fall_from"), number(found, "best_epoch"))  # evaluated epochs, not each is
        text = f"train longer: validation risk still fell by {fall} from epoch {span[0]:g} to {span[1]:g}"
        yield Action(text, case.command(epochs=int(2 * epochs)) if math.isfinite(epochs) else None, fall)


def _two_errors(found: object, name: str) -> Estimate:
    value, half = number(found, name), 2 * number(found, f"{name}_se")  # type: ignore[arg-type]
    return Estimate(value, value - half, value + half)


def _add_data(case: Case) -> Iterator[Action]:
    change = doubling(case.learning, "risk")
    if change is None or not change[2].hi < 0 or not _worth_it(case, -change[2].value):
        return
    evidence = f"going from {change[0]} to {change[1]} lowered the risk by {_fallen(change[2])}"
    more = more_examples(case)
    if more is None:
        text = f"train on more examples, of a larger data set (--data): {evidence}; the pool has no more"
        yield Action(text, None, _fallen(change[2]))
    else:
        yield Action(f"{more.words}: {evidence}", case.command(**more.settings), _fallen(change[2]))


def _average_seeds(case: Case) -> Iterator[Action]:
    """Return the advice to average several seeds: by what that brought in this study, else by the parts it divides."""
    n_members, gain, how = 0, Estimate(0.0, math.nan, math.nan), ""
    if case.ensembles is not None and len(case.ensembles):
        rows = case.ensembles[(case.ensembles["ensemble"] == "same_data") & (case.ensembles["n_members"] > 1)]
        if len(rows) and math.isfinite(rows.iloc[-1]["gain_lo"]):
            n_members, gain = int(rows.iloc[-1]["n_members"]), estimate(rows.iloc[-1], "gain")
            how = "measured by averaging them"
    if not n_members:
        parts = [estimate(case.row, name) for name in ("variance_init", "variance_interaction")]
        parts = [part for part in parts if part.lo > 0]
        n_members = max(int(number(case.row, "n_inits")), 2) if math.isfinite(number(case.row, "n_inits")) else 4
        share, halves = 1 - 1 / n_members, [part.half for part in parts]
        value = share * sum(part.value for part in parts)
        gain = Estimate(value, value - share * math.hypot(*halves), value + share * math.hypot(*halves))
        how = "that much of the variance comes from the seed"
    if not gain.lo > 0 or not _worth_it(case, gain.value):
        return
    more = 2 * n_members
    text = (
        f"average the predictions of {n_members} seeds: takes {gain} off the risk ({how}); this measures up to {more}"
    )
    yield Action(text, case.command(n_inits=more), gain)


def _change_capacity(case: Case, way: int) -> Iterator[Action]:
    """Yield the advice to go one level up for bias², or down for variance, if that part and the risk fell with it.

    At the top of the curve, to go beyond it, if the last step up still lowered bias² and risk.
    """
    level, column = level_of(case.capacity, case.row), "bias_sq" if way > 0 else "variance"
    if level is None:
        return
    beyond = way > 0 and level == len(case.capacity) - 1
    ends = (level - 1, level) if beyond else (level, level + way)
    part, risk = step(case.capacity, *ends, column), step(case.capacity, *ends, "risk")
    if part is None or risk is None or not part[1].hi < 0 or not risk[1].hi < 0 or not _worth_it(case, -risk[1].value):
        return
    there = case.capacity.iloc[ends[1]]
    knobs: dict[str, int] = {}
    if math.isfinite(number(there, "width")):
        knobs["width"] = int(2 * there["width"] if beyond else there["width"])
    if math.isfinite(number(there, "depth")) and case.capacity["depth"].nunique() > 1:
        knobs["depth"] = int(there["depth"])
    name = case.bias_name if way > 0 else "variance"
    how = f"a {'larger' if way > 0 else 'smaller'} network{', beyond the range tried' if beyond else ''}"
    text = f"{how}: {part[0]} went with {name} lower by {_fallen(part[1])}, risk lower by {_fallen(risk[1])}"
    yield Action(text, case.command(**knobs) if knobs else None, _fallen(risk[1]))


def _turn_knobs(case: Case, *, without: tuple[str, ...]) -> Iterator[Action]:
    """Yield the knobs whose better values went with a lower risk among trials, as far as a reliable forest shows it."""
    n = 0
    for effect in case.effects:
        gain = Estimate(*(number(case.row, "risk") * (1 - x) for x in (effect.ratio, effect.ratio_hi, effect.ratio_lo)))
        if effect.knob in without or n == MOST_KNOBS or not gain.lo > 0 or not _worth_it(case, gain.value):
            continue
        n += 1
        ratio = Estimate(effect.ratio, effect.ratio_lo, effect.ratio_hi)
        text = (
            f"{effect.knob} {_value(effect.high)} instead of {_value(effect.low)}: among the trials, the other knobs "
            f"as they were, that goes with {ratio} times the risk"
        )
        yield Action(text, case.command(**{effect.knob: _setting(effect.high)}), gain)


def _value(value: float | str | bool) -> str:
    return num(value) if isinstance(value, float) else str(value)


def _setting(value: float | str | bool) -> float | int | str | bool:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _switch_on(case: Case) -> Iterator[Action]:
    """Yield the variants that lowered the risk most against the baseline.

    Where the run that is judged is a variant itself, the others are advised on top of it, as far as they change other
    knobs: what both bring together has not been measured, and their command measures it.
    """
    assert case.interventions is not None
    table, variants = case.interventions, case.spec.get("variants", {})
    has = case.row.get("variant")
    switched = dict(variants.get(has, {})) if has != next(iter(variants), None) else {}
    risk = table[(table["term"] == "risk") & (table["hi"] < 0)].sort_values("difference", kind="stable")
    n = 0
    for row in risk.to_dict("records"):
        knobs = variants.get(row["variant"])
        if n == MOST_VARIANTS or -row["difference"] <= WORTH_IT * row["baseline"] or set(knobs or ()) & set(switched):
            continue
        n += 1
        own = table[table["variant"] == row["variant"]].set_index("term")["difference"]
        parts = f"{case.bias_name} {signed(own['bias_sq'])}, variance {signed(own['variance'])}"
        if "epoch_time" in own and "epochs" not in (knobs or {}):
            parts += f"; an epoch takes {num(1 + own['epoch_time'])} times as long"
        change = Estimate(row["difference"], row["lo"], row["hi"])
        name = str(row["variant"]).replace("_", " ")
        text = f"{name}: lowered the risk by {_fallen(change)} ({parts})"
        if switched:
            text = (
                f"{name} on top of {str(has).replace('_', ' ')}: alone it lowered the risk of the baseline by "
                f"{_fallen(change)} ({parts})"
            )
        if knobs is None:  # an ensemble of the baseline's seeds: more of them say it more surely
            more = 2 * int(number(case.row, "n_inits"))
            knobs, text = {"n_inits": more}, f"{text}; this measures up to {more} seeds"
        yield Action(text, case.command(**knobs) if knobs else None, _fallen(change))
