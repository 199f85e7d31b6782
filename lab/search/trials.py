"""Trials in Optuna's database, asked and told in few transactions.

Optuna's own `suggest` commits once a knob and its user attributes once a value, each after reading the trial again: of
94 ms that a trial with 8 knobs and 18 attributes cost the coordinator, 41 went there (mean of 30, 2 shared CPU cores).
Rows are written as Optuna 5 writes them; tests/search/test_trials.py compares the tables.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import TrialState
from sqlalchemy import Engine, text

from lab import failpoints
from lab.errors import StorageError
from lab.search.samplers import SEQUENTIAL, distribution, domain_of, proposed
from lab.spec import Study

_PARAMS = """
    INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    VALUES (:trial_id, :name, :value, :distribution)
"""
_ATTRIBUTES = """
    INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (:trial_id, :key, :value)
    ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
"""


def _engine(stored: optuna.Study) -> Engine:
    return stored._storage._backend.engine  # type: ignore[attr-defined]  # an RDBStorage in Optuna's cache of trials


def ask(stored: optuna.Study, study: Study, number: int) -> tuple[int, dict[str, Any]]:
    """Begin trial `number` of a study whose sampler does not learn; return Optuna's id of it and its values.

    A kill in between leaves a trial without values: `lab.search.samplers.suggest` completes it.

    Raises:
        StorageError: Somebody else has added a trial.
    """
    values = proposed(stored, study, number)
    trial_id = stored._storage.create_new_trial(stored._study_id)
    failpoints.hit("asked")
    with _engine(stored).begin() as connection:
        found = connection.execute(text("SELECT number FROM trials WHERE trial_id = :id"), {"id": trial_id}).scalar()
        if found != number:
            raise StorageError(f"study {stored.study_name} got a trial from another program: trial {number} is {found}")
        rows = [_param(trial_id, name, value, distribution(domain_of(study, name))) for name, value in values.items()]
        if rows:
            connection.execute(text(_PARAMS), rows)
    return trial_id, values


def _param(trial_id: int, name: str, value: Any, kind: BaseDistribution) -> dict[str, Any]:
    failpoints.hit("suggest")
    internal = kind.to_internal_repr(value)
    return {"trial_id": trial_id, "name": name, "value": internal, "distribution": distribution_to_json(kind)}


def set_attributes(stored: optuna.Study, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a trial under way, all or none; what it has of them is replaced."""
    rows = [{"trial_id": trial_id, "key": key, "value": json.dumps(value)} for key, value in attributes.items()]
    with _engine(stored).begin() as connection:
        for row in rows:
            failpoints.hit("tell.attr")
            connection.execute(text(_ATTRIBUTES), row)


def tell(stored: optuna.Study, study: Study, number: int, trial_id: int, values: Sequence[float] | None) -> None:
    """End a trial under way: with values it is complete, without it has failed."""
    if study.sampler in SEQUENTIAL:  # and may want to note the result
        stored.tell(number, values, None if values is not None else TrialState.FAIL)
    else:
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        stored._storage.set_trial_state_values(trial_id, state, values)
