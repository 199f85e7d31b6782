"""What Optuna's database holds of a study: compared with the study file, and read for `status`."""

import contextlib
import json
import operator
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lab import spool, storage
from lab.commands import run_command
from lab.errors import SpecChanged, SpecError, StorageError
from lab.search.database import close, open_database, optuna_errors, study_lock
from lab.search.samplers import make_sampler
from lab.spec import Study
from lab.storage import Home

GROWING = ("n_trials", "n_confirm")  # what may differ between the study file and the stored study
BY_RESAMPLE = "by_resample"  # a trial's objective on each training set, in a study that prunes
INTERVAL = "_interval"  # ends the name of an attribute that holds both ends of an interval
BY_CAUSE = "variance_by_cause"
NOT_OURS = "study {name} in the search state was not made by this lab"
TRIED = ("finished", "diverged", "infeasible", "failed")


def spec_changes(stored: Any, given: Any, where: str = "") -> list[str]:
    """Return the differences of two specifications, e.g. "space.width.high: 256 → 128"."""
    if isinstance(stored, dict) and isinstance(given, dict):
        names = [*stored, *(name for name in given if name not in stored)]
        return [
            change
            for name in names
            for change in spec_changes(stored.get(name), given.get(name), f"{where}.{name}" if where else name)
        ]
    if stored == given and type(stored) is type(given):
        return []
    return [f"{where}: {_brief(stored)} → {_brief(given)}"]


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _completed(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a stored specification with the defaults of what an earlier edition of the lab did not have."""
    defaults = json.loads(json.dumps(Study(question="?", data="digits").to_dict()))
    return defaults | spec | {"replication": defaults["replication"] | spec["replication"]}


def open_study(
    database: optuna.storages.RDBStorage,
    study: Study,
    name: str,
    data_digest: str,
    training_sets: str,
    asked: Mapping[str, str] | None = None,
) -> optuna.Study:
    """Return the stored study, made if there is none. `training_sets` is what `status` says of the scheme.

    What the command said that the name does not, `asked`, is kept for `again`; None leaves it.

    Raises:
        SpecChanged: The stored one asks another question.
    """
    spec = json.loads(json.dumps(study.to_dict()))
    sampler = make_sampler(study)
    directions = [StudyDirection.MINIMIZE] * (1 if isinstance(study.objective, str) else len(study.objective))
    if name not in optuna.get_all_study_names(database):
        stored = optuna.create_study(storage=database, study_name=name, sampler=sampler, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # and the dashboard calls it "Objective 0" otherwise
            stored.set_metric_names([study.objective] if isinstance(study.objective, str) else list(study.objective))
    else:
        stored = optuna.load_study(storage=database, study_name=name, sampler=sampler)
    attrs = stored.user_attrs
    if "spec" in attrs:
        before = _completed(json.loads(attrs["spec"]))
        changes = spec_changes(
            {k: v for k, v in before.items() if k not in GROWING}, {k: v for k, v in spec.items() if k not in GROWING}
        )
        if attrs.get("data_digest", data_digest) != data_digest:
            changes.append(f"content of the data set: {attrs['data_digest'][:12]} → {data_digest[:12]}")
        if changes:
            raise SpecChanged(
                f"study {name} differs from the one stored under its name ({'; '.join(changes)}): "
                "undo the change, or save the study file under another name (only n_trials and n_confirm may change)"
            )
    elif is_foreign(stored) or len(stored.directions) != len(directions):
        raise StorageError(NOT_OURS.format(name=name) + ": use another name")
    # last of all the specification: what lacks it was cut short, and is filled in here
    wanted = {"question": study.question, "data_digest": data_digest, "training_sets": training_sets}
    wanted |= {} if asked is None else {"asked": json.dumps(dict(asked))}
    wanted["spec"] = json.dumps(spec)
    for key, value in wanted.items():
        if attrs.get(key) != value:
            stored.set_user_attr(key, value)
    return stored


def again(stored: optuna.Study) -> str:
    """Return the command that goes on with a stored study."""
    spec, asked = (json.loads(stored.user_attrs.get(name, "{}")) for name in ("spec", "asked"))
    return run_command(stored.study_name, spec=spec, asked=asked)


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the trial with the lowest objective; for a pair, the one on the frontier with the lowest sum."""
    # what has the lowest sum is always on the frontier: who beats it in one objective and ties in the other, sums lower
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return min(complete, key=lambda t: rank(t.values, t.number), default=None)


def rank(values: Sequence[float], number: int) -> tuple[float, int]:
    """Return what complete trials are compared by: the lowest is the best."""
    return sum(values), number


def best_trials(trials: Sequence[FrozenTrial], n: int) -> list[FrozenTrial]:
    """Return the n trials with the lowest objectives, as `best_trial` compares them, of different configurations."""
    complete = sorted((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: rank(t.values, t.number))
    different: list[FrozenTrial] = []
    for trial in complete:
        if all(trial.params != other.params for other in different):
            different.append(trial)
    return different[:n]


def describe(trial: FrozenTrial, objective: str | Sequence[str]) -> dict[str, Any]:
    """Return a trial that is done as plain values: number, run_id, params, what was measured, the objectives."""
    names = [objective] if isinstance(objective, str) else list(objective)
    measured: dict[str, Any] = {}
    for name, value in trial.user_attrs.items():
        if name.endswith(INTERVAL):
            base = name.removesuffix(INTERVAL)
            measured |= {f"{base}_lo": value[0], f"{base}_hi": value[1]}
        elif name == BY_CAUSE:
            measured |= {f"variance_{cause}": share for cause, share in value.items()}
        elif name not in ("run_id", "reason", BY_RESAMPLE):
            measured[name] = value
    if not isinstance(
        objective, str
    ):  # the pair is minimised on the validation set, these intervals are the test set's
        ends = {f"{name}{end}" for name in names for end in ("_lo", "_hi")}
        measured = {name: value for name, value in measured.items() if name not in ends}
    objectives = dict(zip(names, trial.values, strict=True))
    identity = {"number": trial.number, "run_id": trial.user_attrs.get("run_id"), "params": dict(trial.params)}
    return identity | measured | objectives


def targets(measured: Iterable[Mapping[str, Any]]) -> dict[str, int] | None:
    """Return how many trials that grew are as sure as was asked, of how many; None if none had a target."""
    reached = [bool(values["target_reached"]) for values in measured if "target_reached" in values]
    return {"reached": sum(reached), "trials": len(reached)} if reached else None


def outcome_counts(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """Return how many trials had which outcome, "pruned" if any; those under way are not counted."""
    tried = Counter(t.user_attrs.get("outcome", "failed") for t in trials if t.state.is_finished())
    pruned = {"pruned": tried["pruned"]} if tried["pruned"] else {}
    return {outcome: tried[outcome] for outcome in TRIED} | pruned


@contextlib.contextmanager
def stored_study(home: Home, name: str) -> Iterator[optuna.Study]:
    """Hold a study that was run before, so that nobody else coordinates it meanwhile; its study file is not needed.

    Raises:
        SpecError: There is no such study.
        StudyInUse: It is running.
        StorageError: The search state cannot be read, or another program made the study.
    """
    with storage.coordinator_lock(home, name), _opened(home, name) as (database, _):
        with optuna_errors(home), study_lock(database, name):
            stored = optuna.load_study(storage=database, study_name=name, sampler=RandomSampler())
            if is_foreign(stored):
                raise StorageError(NOT_OURS.format(name=name))
            yield stored


@dataclass(frozen=True)
class Record:
    """What Optuna holds of an explore trial."""

    is_done: bool
    outcome: str | None
    params: Mapping[str, Any]
    values: Sequence[float]


@contextlib.contextmanager
def records(home: Home, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Record]]]:
    """Hold a study as `stored_study` does, and yield its specification and key → record of each trial."""
    with stored_study(home, name) as stored:
        yield (
            json.loads(stored.user_attrs.get("spec", "{}")),
            {
                spool.make_key("explore", t.number): Record(
                    t.state.is_finished(), t.user_attrs.get("outcome"), t.params, t.values or ()
                )
                for t in stored.get_trials(deepcopy=False)
            },
        )


@contextlib.contextmanager
def _opened(home: Home, name: str | None) -> Iterator[tuple[optuna.storages.RDBStorage, list[str]]]:
    """Open the database and yield it with the names of its studies; `name` has to be one of them."""
    if home.search_uri is None and not home.optuna_db.exists():
        raise SpecError(f"no study {name!r} is stored here: nothing was run yet in {home.root.resolve()}")
    database = open_database(home)
    try:
        with optuna_errors(home):
            names = sorted(optuna.get_all_study_names(database))
        if name is not None and name not in names:
            raise SpecError(f"no study {name!r} is stored here: choose one of {', '.join(names)}")
        yield database, names
    finally:
        close(database)


def status(home: Home, name: str | None = None) -> list[dict[str, Any]]:
    """Return how the stored studies stand, or the one named.

    Raises:
        SpecError: There is no such study.
        StorageError: The search state cannot be read.
    """
    if name is None and home.search_uri is None and not home.optuna_db.exists():
        return []
    with _opened(home, name) as (database, names), optuna_errors(home):
        return [_status(database, home, one) for one in ([name] if name else names)]


def is_foreign(stored: optuna.Study) -> bool:
    """Return whether a study was made by another program in the same database; one without trials may be anybody's."""
    return "spec" not in stored.user_attrs and len(stored.get_trials(deepcopy=False)) > 0


def _foreign_status(stored: optuna.Study) -> dict[str, Any]:
    """Return what is known of a study of another program: trials by Optuna's states, the best by its own directions."""
    trials = stored.get_trials(deepcopy=False)
    states = Counter(t.state.name.lower() for t in trials if t.state.is_finished())
    names = stored.metric_names or [f"objective_{k}" for k in range(len(stored.directions))]
    signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in stored.directions]
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    trial = min(complete, key=lambda t: sum(map(operator.mul, signs, t.values)), default=None)
    best = None
    if trial is not None:
        best = {"number": trial.number, "run_id": None, "params": dict(trial.params)}
        best |= dict(zip(names, trial.values, strict=True))
    return {
        "study": stored.study_name, "question": None, "training_sets": None, "n_planned": None, "objective": names,
        "counts": dict(states), "targets": None, "n_unfinished": len(trials) - states.total(), "n_spooled": 0,
        "best": best, "runs": [], "in_use_by": None, "in_use": False, "again": None, "reasons": [],
    }  # fmt: skip


def _status(database: optuna.storages.RDBStorage, home: Home, name: str) -> dict[str, Any]:
    stored = optuna.load_study(storage=database, study_name=name, sampler=RandomSampler())
    trials = stored.get_trials(deepcopy=False)
    if is_foreign(stored):
        return _foreign_status(stored)
    spec = json.loads(stored.user_attrs.get("spec", "{}"))
    objective = spec.get("objective", "objective")  # without specification it was cut short, before its first trial
    best = best_trial(trials)
    busy = storage.in_use(home, name)
    return {
        "study": name,
        "question": stored.user_attrs.get("question"),
        "training_sets": stored.user_attrs.get("training_sets"),
        "n_planned": spec.get("n_trials"),
        "objective": objective,
        "counts": outcome_counts(trials),
        "targets": targets([t.user_attrs for t in trials]),
        "n_unfinished": sum(t.state == TrialState.RUNNING for t in trials),
        "n_spooled": len(spool.pending(home, name)),
        "best": None if best is None else describe(best, objective),
        "runs": sorted(stored.user_attrs.get("runs", {})),
        "in_use_by": storage.holder(home, name) if busy else None,
        "in_use": busy,
        "again": again(stored),
        "reasons": [
            f"trial {t.number} {t.user_attrs['outcome']}: {t.user_attrs['reason']}"
            for t in trials
            if "reason" in t.user_attrs and "outcome" in t.user_attrs
        ],
    }
