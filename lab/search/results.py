"""From an outcome to a result: published to MLflow, told to Optuna, and only then removed from the spool.

With a database, a trial is told after it was published. With a tracking server it is told at once (the search goes on
whatever the server does) and its outcome stays in the spool until it is published. Either way a trial whose outcome
lies in the spool can be settled again from the start without harm.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lab import failpoints, spool
from lab.errors import StorageError
from lab.files import forget
from lab.search import ledger
from lab.search.publisher import Publisher
from lab.search.trials import tell
from lab.spec import Study
from lab.spool import Outcome
from lab.storage import Home
from lab.syncs import Syncs

# What the Optuna dashboard shows of a trial beside its objective. Each attribute is a transaction of 0.4 ms, and of
# 0.7 ms if it waits for the disk (2 shared cores of an AMD EPYC, medians of 20 means of 27), so the ends of an interval
# share one, and so do the causes of the variance.
MEASURED = (
    "n_parameters", "seconds", "n_diverged", "val_risk", "val_error", "bias_sq", "variance",
    "n_resamples", "n_inits", "half_width", "target_reached",  # of a trial that grows
)  # fmt: skip
INTERVALS = ("bias_sq", "variance")
CAUSES = ("resample", "init", "interaction")


class Results:
    """The results of one study, whose lock is held. `ids` maps a trial's number to Optuna's id, of all asked.

    `syncs` are those of Optuna's database.
    """

    def __init__(self, study: Study, stored: optuna.Study, publisher: Publisher, syncs: Syncs) -> None:
        self.study, self.stored, self.publisher, self._syncs = study, stored, publisher, syncs
        trials = stored.get_trials(deepcopy=False)
        self.ids = {trial.number: trial._trial_id for trial in trials}
        self.best: FrozenTrial | None = ledger.best_trial(trials)
        self._told = {trial.number for trial in trials if trial.state.is_finished()}
        self._waiting: dict[Path, Outcome] = {}

    def settle(self, outcome: Outcome) -> None:
        """Take an outcome on: it is told now, published now or later, and then forgotten."""
        if outcome.phase == "confirm" and outcome.status in ("finished", "diverged"):
            self.stored.set_user_attr("confirmed", self.confirmed() | {outcome.key: sum(self._values(outcome))})
        self._waiting[outcome.directory] = outcome
        self.publisher.publish(outcome.directory)
        self.collect()
        if outcome.directory in self._waiting:
            self._tell(outcome, None)

    def collect(self) -> None:
        """Forget the outcomes that were published since."""
        for directory, run_id in self.publisher.published():
            outcome = self._waiting.pop(directory)
            self._tell(outcome, run_id)
            note_run(self.stored, outcome, run_id)
            spool.remove_outcome(directory)

    def finish(self, home: Home) -> int:
        """Publish what is left, if that can be done now; return how many outcomes stay in the spool."""
        if self._waiting:
            self.publisher.finish()
            self.collect()
        settled = self.settled()
        for directory in spool.pending(home, self.stored.study_name):
            # brought late, by a worker that outlived its coordinator; what is damaged and not settled stays
            if directory not in self._waiting and directory.name in settled:
                spool.remove_outcome(directory)
        asked, told = keys_of(self.stored.get_trials(deepcopy=False))
        folder = home.checkpoints_of(self.stored.study_name)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in asked - told:
                forget(path)
        return len(self._waiting)

    def settled(self) -> set[str]:
        """Return the keys of the outcomes that need no training any more."""
        run_ids = self.publisher.run_ids()
        known = self.stored.user_attrs.get("runs", {}) if run_ids is None else run_ids
        return {*known, *(outcome.key for outcome in self._waiting.values())}

    def confirmed(self) -> dict[str, float]:
        """Return key → objective (of a pair, the sum) of the confirmations."""
        return dict(self.stored.user_attrs.get("confirmed", {}))

    def _values(self, outcome: Outcome) -> list[float]:
        final = outcome.json("metrics.json")["final"]
        return [float(final[f"objective_{k}"]) for k in range(len(self.stored.directions))]

    def _tell(self, outcome: Outcome, run_id: str | None) -> None:
        if outcome.phase != "explore" or outcome.number in self._told:
            return
        attrs: dict[str, Any] = {"outcome": outcome.status}
        attrs |= {} if run_id is None else {"run_id": run_id}
        if outcome.reason is not None:
            attrs["reason"] = outcome.reason
        values: list[float] | None = None
        by_resample: Sequence[float] = ()
        if outcome.status in ("finished", "diverged"):
            metrics = outcome.json("metrics.json")
            by_resample = metrics.get("by_resample", ())
            attrs |= self._measured(metrics["final"])
            values = self._values(outcome)
        if outcome.status == "pruned":
            by_resample = outcome.json("pruned.json")["by_resample"]
        if by_resample:
            attrs[ledger.BY_RESAMPLE] = list(by_resample)
        failpoints.hit("tell")
        trial_id = self.ids[outcome.number]
        with self._syncs.later():  # the end of the trial waits for the disk, and takes all this with it
            for name, value in attrs.items():
                failpoints.hit("tell.attr")
                self.stored._storage.set_trial_user_attr(trial_id, name, value)
            for n, mean in enumerate(itertools.accumulate(by_resample), start=1):
                failpoints.hit("tell.attr")
                self.stored._storage.set_trial_intermediate_value(trial_id, n, mean / n)
        if outcome.status == "pruned":
            self.stored.tell(outcome.number, state=TrialState.PRUNED)  # with the mean so far, which samplers read
        else:
            tell(self.stored, self.study, outcome.number, trial_id, values)
            if values is not None and (self.best is None or ledger.rank(values, outcome.number) < _rank(self.best)):
                self.best = self.stored._storage.get_trial(trial_id)
        self._told.add(outcome.number)
        failpoints.hit("told")

    def _measured(self, final: Mapping[str, float]) -> dict[str, Any]:
        objective = self.study.objective
        found: dict[str, Any] = {name: final[name] for name in MEASURED if name in final}
        for name in dict.fromkeys((*INTERVALS, *([objective] if isinstance(objective, str) else []))):
            if f"{name}_lo" in final and f"{name}_hi" in final:
                found[f"{name}{ledger.INTERVAL}"] = [final[f"{name}_lo"], final[f"{name}_hi"]]
        causes = {cause: final[f"variance_{cause}"] for cause in CAUSES if f"variance_{cause}" in final}
        return found | ({ledger.BY_CAUSE: causes} if causes else {})


def _rank(trial: FrozenTrial) -> tuple[float, int]:
    return ledger.rank(trial.values, trial.number)


def note_run(stored: optuna.Study, outcome: Outcome, run_id: str) -> None:
    """Keep the id of a published run; that of an explore trial is told with its values."""
    if outcome.phase != "explore":
        stored.set_user_attr("runs", dict(stored.user_attrs.get("runs", {})) | {outcome.key: run_id})


def keys_of(trials: Sequence[FrozenTrial]) -> tuple[set[str], set[str]]:
    """Return the keys of explore trials: of all, and of those that are done."""
    asked = {spool.make_key("explore", trial.number) for trial in trials}
    return asked, {spool.make_key("explore", trial.number) for trial in trials if trial.state.is_finished()}


def check_history(name: str, asked: set[str], told: set[str], spooled: set[str], run_ids: Mapping[str, str]) -> None:
    """Refuse to go on if search state and run history do not belong together: that would mix results.

    Args:
        name: The study.
        asked: Keys of the explore trials that Optuna knows.
        told: Those of them that are done.
        spooled: Keys whose outcome lies in the spool.
        run_ids: Keys of complete runs.

    Raises:
        StorageError: They do not.
    """
    published = {key for key in run_ids if spool.parse_key(key)[0] == "explore"}
    lost = told - published - spooled
    if published - asked:
        raise StorageError(
            f"the run history has {len(published - asked)} trials of study {name} that mlruns/optuna.db lacks: "
            "restore that file, or delete the experiment in MLflow to begin again"
        )
    if lost:
        raise StorageError(
            f"the run history lacks {len(lost)} of {len(told)} trials of study {name} (first {min(lost)}): "
            "restore the runs in MLflow, or run the study under another name"
        )
