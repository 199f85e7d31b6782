"""`publish`: sends what an earlier run could not, once the run history can be written again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from lab import spool, storage
from lab.errors import StorageError
from lab.search import ledger
from lab.search.results import check_history, keys_of, note_run
from lab.storage import Home

if TYPE_CHECKING:
    from lab.tracking import Tracker


def publish(name: str, *, home: Home) -> dict[str, Any]:
    """Publish the outcomes of a study that wait in the spool; what is published already is left alone.

    Returns:
        study; again: the command that goes on with it; sent: keys that were published now; left: keys of trials that
        `run` has to settle first; damaged: one line for each outcome that cannot be read.

    Raises:
        SpecError: There is no such study.
        StudyInUse: It is running: it publishes by itself.
        StorageError: The run history cannot be written; what was sent before counts.
    """
    from lab.tracking import Tracker

    with ledger.stored_study(home, name) as stored:
        question = stored.user_attrs.get("question", name)
        with storage.setup_lock(home):
            tracker = Tracker.open(name, home=home, question=question)
        try:
            return {"study": name, "again": ledger.again(stored)} | _send(stored, tracker, spool.pending(home, name))
        finally:
            tracker.close()


def _send(stored: optuna.Study, tracker: "Tracker", pending: list[Path]) -> dict[str, list[str]]:
    asked, told = keys_of(stored.get_trials(deepcopy=False))
    check_history(stored.study_name, asked, told, {path.name for path in pending}, tracker.run_ids())
    sent, left, damaged = [], [], []
    for directory in pending:
        try:
            outcome = spool.read_outcome(directory)
        except StorageError as error:
            damaged.append(str(error))
            continue
        if outcome.phase == "explore" and outcome.key not in told:
            left.append(outcome.key)
            continue
        if outcome.key not in tracker.run_ids():
            sent.append(outcome.key)
        note_run(stored, outcome, tracker.publish(directory))
        spool.remove_outcome(directory)
    return {"sent": sent, "left": left, "damaged": damaged}
