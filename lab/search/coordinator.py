"""The coordinator of a study: ask, submit, publish, tell; then confirm the best configuration.

Its only ledger is Optuna's: a trial is RUNNING from `ask` to `tell`, and in between its outcome may lie finished in the
spool. An outcome is published to MLflow (idempotently), told, and removed from the spool, in this order. So after a
kill at any moment, the next `run` knows what is left to do, and does only that.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lab import failpoints, spool
from lab.errors import StorageError
from lab.knobs import TrialConfig, Value
from lab.progress import Progress, best_text
from lab.search import ledger
from lab.search.samplers import SEQUENTIAL, planned, suggest
from lab.spec import Study
from lab.spool import Outcome
from lab.storage import Home
from lab.task import Task
from lab.workers import Engine

if TYPE_CHECKING:
    from lab.tracking import Tracker

# what the Optuna dashboard shows of a trial beside its objective; each costs the coordinator about 4 ms
MEASURED = (
    "n_parameters", "seconds", "n_diverged", "val_risk", "val_error", "bias_sq", "bias_sq_lo", "bias_sq_hi", "variance",
    "variance_lo", "variance_hi", "variance_resample", "variance_init", "variance_interaction",
)  # fmt: skip


class Coordinator:
    """Asks, submits, publishes and tells, for one study whose lock is held."""

    def __init__(
        self,
        study: Study,
        common: Task,
        home: Home,
        stored: optuna.Study,
        tracker: "Tracker",
        engine: Engine,
        progress: Progress,
        n_classes: int,
    ) -> None:
        self.study, self.common, self.home, self.stored = study, common, home, stored
        self.tracker, self.engine, self.progress, self.n_classes = tracker, engine, progress, n_classes
        self.n_planned = planned(study)
        self.n_trained = self.n_resumed = 0
        self.confirmed: str | None = None
        self._queue: deque[Task] = deque()
        trials = self._trials()
        self._ids = {trial.number: trial._trial_id for trial in trials}  # number → Optuna's id, of all that were asked
        self._best = ledger.best_trial(trials)

    # -- after an interruption

    def recover(self) -> None:
        """Settle what lies finished in the spool, and queue again what was under way."""
        self._check_history()
        for directory in spool.pending(self.home, self.common.study):
            self._take(directory)
        running = [t for t in self._trials() if t.state == TrialState.RUNNING]
        for frozen in running:
            self._queue.append(self._task(optuna.Trial(self.stored, frozen._trial_id)))
        self.n_resumed = len(running)
        n_open = len(self._ids) % self.study.round_size  # trials of the last round, if it is not full
        if self._learns and n_open and len(running) >= n_open and running[-n_open].number == len(self._ids) - n_open:
            self._ask_round()  # none of them is told: the kill came between the proposals of the round

    def _check_history(self) -> None:
        """Refuse to go on if search state and run history do not belong together: that would mix results."""
        told = {spool.make_key("explore", t.number) for t in self._trials() if t.state.is_finished()}
        run_ids = self.tracker.run_ids()
        published = {key for key in run_ids if spool.parse_key(key)[0] == "explore"}
        asked = {spool.make_key("explore", t.number) for t in self._trials()}
        name = self.common.study
        if published - asked:
            raise StorageError(
                f"the run history has {len(published - asked)} trials of study {name} that mlruns/optuna.db lacks: "
                "restore that file, or delete the experiment in MLflow to begin again"
            )
        if told - published:
            raise StorageError(
                f"the run history lacks {len(told - published)} of {len(told)} trials of study {name} (first "
                f"{min(told - published)}): restore the runs in MLflow, or run the study under another name"
            )

    def _take(self, directory: Path) -> None:
        """Settle an outcome that an earlier run left in the spool."""
        phase, number = spool.parse_key(directory.name)
        trials = self._trials()
        if phase == "explore" and number >= len(trials):
            raise StorageError(f"{directory} is of a trial that mlruns/optuna.db does not know: move it away")
        if trials[number].state.is_finished() if phase == "explore" else directory.name in self.tracker.run_ids():
            spool.remove_outcome(directory)
            return
        try:
            outcome = spool.read_outcome(directory)
        except StorageError as error:
            self.progress.note(f"{error}; it is trained again")
            spool.remove_outcome(directory)
            return
        config = outcome.json("config.json")
        spec = {k: v for k, v in config["spec"].items() if k not in ledger.GROWING}
        same = spec == {k: v for k, v in self.common.spec.items() if k not in ledger.GROWING}
        if phase == "explore":
            same = same and config["config"] == _plain(self.study, trials[number].params)
        if not same or outcome.manifest["study"] != self.common.study:
            raise StorageError(f"{directory} is of another study or configuration: move it away")
        self._settle(outcome)

    # -- explore

    @property
    def n_told(self) -> int:
        """The number of explore trials that are done."""
        return sum(trial.state.is_finished() for trial in self._trials())

    @property
    def is_done(self) -> bool:
        """Whether no explore trial is left to do."""
        return not self._queue and len(self._ids) >= self.n_planned

    @property
    def _learns(self) -> bool:
        return self.study.sampler in SEQUENTIAL

    def explore(self) -> None:
        """Evaluate trials until the planned number of them is done."""
        n_confirm = 1 + len(self._sizes(self.study.config({name: d.at(0.5) for name, d in self.study.space.items()})))
        self.progress.begin(n_done=self.n_told, n_total=max(self.n_planned, len(self._ids)) + n_confirm)
        self.progress.best = self._best_text()
        self._drive(self._refill)

    def _refill(self) -> None:
        """Ask for the trials that can be submitted now."""
        if self._queue or len(self._ids) >= self.n_planned:
            return
        if not self._learns:
            self._ask()
        elif self.engine.n_open == 0:  # all of the last round are told
            self._ask()
            self._ask_round()

    def _ask(self) -> None:
        failpoints.hit("ask")
        trial = self.stored.ask()
        failpoints.hit("asked")
        self._ids[trial.number] = trial._trial_id
        self._queue.append(self._task(trial))

    def _ask_round(self) -> None:
        """Ask for the rest of the round that has begun."""
        while len(self._ids) % self.study.round_size and len(self._ids) < self.n_planned:
            self._ask()

    def _task(self, trial: optuna.Trial) -> Task:
        params = suggest(trial, self.study)
        return dataclasses.replace(
            self.common, phase="explore", number=trial.number, config=_plain(self.study, params),
            variant=_variant(params),
        )  # fmt: skip

    def _drive(self, refill: Callable[[], None]) -> None:
        """Keep the workers busy until the queue and the engine are empty."""
        while True:
            refill()
            while self._queue and self.engine.n_open < self.engine.capacity:
                failpoints.hit("submit")
                self.engine.submit(self._queue.popleft())
                refill()
            if self.engine.n_open == 0:
                return
            done = self.engine.next_done(timeout=0.5)
            if done is not None:
                task, directory = done
                outcome = spool.read_outcome(directory)
                self._settle(outcome)
                self.n_trained += 1
                self.progress.done(n_replicas=task.replication.n_replicas, best=self._best_text())
            self.progress.tick()

    # -- results

    def _settle(self, outcome: Outcome) -> None:
        """Publish, tell, and only then forget the outcome."""
        run_id = self.tracker.publish(outcome.directory)
        if outcome.phase == "explore":
            self._tell(outcome, run_id)
        else:
            runs = dict(self.stored.user_attrs.get("runs", {}))
            self.stored.set_user_attr("runs", runs | {outcome.key: run_id})
        spool.remove_outcome(outcome.directory)

    def _tell(self, outcome: Outcome, run_id: str) -> None:
        trial_id = self._ids[outcome.number]
        attrs: dict[str, Any] = {"outcome": outcome.status, "run_id": run_id}
        if outcome.reason is not None:
            attrs["reason"] = outcome.reason
        values = None
        if outcome.status in ("finished", "diverged"):
            final = outcome.json("metrics.json")["final"]
            objective = self.study.objective
            ends = [f"{objective}_lo", f"{objective}_hi"] if isinstance(objective, str) else []
            attrs |= {name: final[name] for name in (*MEASURED, *ends) if name in final}
            values = [float(final[f"objective_{k}"]) for k in range(len(self.stored.directions))]
        failpoints.hit("tell")
        for name, value in attrs.items():
            failpoints.hit("tell.attr")
            self.stored._storage.set_trial_user_attr(trial_id, name, value)
        if values is None:
            self.stored.tell(outcome.number, state=TrialState.FAIL)
        else:
            told = self.stored.tell(outcome.number, values)
            self._best = ledger.best_trial([trial for trial in (self._best, told) if trial is not None])
        failpoints.hit("told")

    # -- confirm

    def confirm(self) -> None:
        """Measure the best configuration again on resamples and seeds that the search never saw, at several sizes.

        The confirmation of explore trial 23 is confirm-0023; its learning curve is learning_curve-2301 and so on.
        """
        best = self._best
        if best is None:
            return
        tasks = self._confirm_tasks(best)
        self.confirmed = tasks[0].key
        done = self.tracker.run_ids()
        missing = [task for task in tasks if task.key not in done]
        self._queue.extend(missing)
        self.progress.n_total = self.progress.n_done + len(missing)
        self._drive(lambda: None)

    def _confirm_tasks(self, best: FrozenTrial) -> list[Task]:
        """Return the confirmation and its learning curve, longest first."""
        replication = self.study.replication
        config = _plain(self.study, best.params)
        whole = dataclasses.replace(
            self.common, phase="confirm", number=best.number, config=config, variant=_variant(best.params),
            first_resample=replication.n_resamples, first_init=replication.n_inits,
        )  # fmt: skip
        curve = [
            dataclasses.replace(
                whole, phase="learning_curve", number=best.number * 100 + k, config=config | {"n_train": n_train}
            )
            for k, n_train in self._sizes(TrialConfig(**config)).items()
        ]
        return [whole, *sorted(curve, key=lambda task: -task.config["n_train"])]

    def _sizes(self, config: TrialConfig) -> dict[int, int]:
        """Return index → n_train of the learning curve, without the whole size (that is the confirmation's)."""
        sizes: dict[int, int] = {}
        for k, fraction in enumerate(self.study.learning_curve):
            n_train = max(round(fraction * config.n_train), 10, self.n_classes)
            if n_train < config.n_train and n_train not in sizes.values():
                sizes[k] = n_train
        return sizes

    # -- views

    def _trials(self) -> list[FrozenTrial]:
        return self.stored.get_trials(deepcopy=False)

    def counts(self) -> dict[str, int]:
        """Return how many explore trials had which outcome."""
        return ledger.outcome_counts(self._trials())

    def best_dict(self) -> dict[str, Any] | None:
        """Return the best trial so far as plain values."""
        return None if self._best is None else ledger.describe(self._best, self.study.objective)

    def _best_text(self) -> str:
        if self._best is None:
            return ""
        objective = self.study.objective
        names = objective if isinstance(objective, str) else list(objective)
        return best_text(names, ledger.describe(self._best, objective), self._best.number)


def _plain(study: Study, params: Mapping[str, Value]) -> dict[str, Any]:
    return dataclasses.asdict(study.config(params))


def _variant(params: Mapping[str, Value]) -> str | None:
    return str(params["variant"]) if "variant" in params else None
