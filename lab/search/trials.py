"""Trials in Optuna's storage, asked and told in few calls of it.

Optuna's own `ask` and `suggest` commit once a knob, each after reading the trial again. A storage takes a new trial
with all its values at once; that needs a proposal that depends on the trial's number alone.
"""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from lab import failpoints
from lab.errors import StorageError
from lab.search.samplers import SEQUENTIAL, distribution, domain_of, proposed
from lab.spec import Study


def ask(stored: optuna.Study, study: Study, number: int) -> tuple[int, dict[str, Any]]:
    """Begin trial `number` of a study whose sampler does not learn; return Optuna's id of it and its values.

    Raises:
        StorageError: Somebody else has added a trial.
    """
    values = proposed(stored, study, number)
    kinds = {name: distribution(domain_of(study, name)) for name in values}
    template = create_trial(state=TrialState.RUNNING, params=values, distributions=kinds)
    trial_id = stored._storage.create_new_trial(stored._study_id, template)
    failpoints.hit("asked")
    try:
        same = stored._storage.get_trial_id_from_study_id_trial_number(stored._study_id, number) == trial_id
    except KeyError:
        same = False
    if not same:
        raise StorageError(f"study {stored.study_name} got a trial from another program, in the place of {number}")
    return trial_id, values


def tell(stored: optuna.Study, study: Study, number: int, trial_id: int, values: Sequence[float] | None) -> None:
    """End a trial under way: with values it is complete, without it has failed."""
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    if study.sampler in SEQUENTIAL:  # and may want to note the result
        stored.tell(number, values, state)
    else:
        stored._storage.set_trial_state_values(trial_id, state, values)
