"""The coordinator of a study: ask, submit, publish, tell; then confirm the best configuration.

Its only ledger is Optuna's: a trial is RUNNING from `ask` to `tell`, and in between its outcome may lie finished in the
spool, from where lab.search.results settles it. So after a kill at any moment, the next `run` knows what is left to do,
and does only that.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lab import failpoints, interrupts, spool
from lab.errors import StorageError
from lab.knobs import TrialConfig, Value
from lab.progress import Progress, best_text
from lab.pruning import Rival
from lab.search import ledger
from lab.search.results import Results
from lab.search.samplers import SEQUENTIAL, suggest
from lab.search.trials import ask
from lab.spec import Replication, Study
from lab.storage import Home
from lab.task import Task
from lab.workers.engine import MAX_ATTEMPTS, Engine


class Coordinator:
    """Asks, submits, publishes and tells, for one study whose lock is held."""

    def __init__(
        self,
        study: Study,
        common: Task,
        home: Home,
        results: Results,
        engine: Engine,
        progress: Progress,
        n_classes: int,
        deadline: float = math.inf,
    ) -> None:
        self.study, self.common, self.home, self.stored = study, common, home, results.stored
        self.results, self.engine, self.progress, self.n_classes = results, engine, progress, n_classes
        self.deadline = deadline  # on the clock of time.monotonic: no explore trial is begun after it
        self.n_planned = study.n_trials
        self.n_trained = self.n_resumed = 0
        self.confirmed: str | None = None
        self._queue: deque[Task] = deque()
        self._ids = results.ids
        self._attempt: int | None = None

    # -- after an interruption

    def recover(self) -> None:
        """Settle what lies finished in the spool, and queue again what was under way."""
        for directory in spool.pending(self.home, self.common.study):
            self._take(directory)
        running = [t for t in self._trials() if t.state == TrialState.RUNNING]
        for frozen in running:
            self._queue.append(self._task(optuna.Trial(self.stored, frozen._trial_id)))
        self.n_resumed = len(running)
        n_open = len(self._ids) % self.study.round_size  # trials of the last round, if it is not full
        if self._learns and n_open and len(running) >= n_open and running[-n_open].number == len(self._ids) - n_open:
            self._ask_round()  # none of them is told: the kill came between the proposals of the round

    def _take(self, directory: Path) -> None:
        """Settle an outcome that an earlier run left in the spool."""
        phase, number = spool.parse_key(directory.name)
        trials = self._trials()
        if phase == "explore" and number >= len(trials):
            raise StorageError(f"{directory} is of a trial that mlruns/optuna.db does not know: move it away")
        told = phase == "explore" and trials[number].state.is_finished()
        if directory.name in (self.results.publisher.run_ids() or ()) and (told or phase != "explore"):
            spool.remove_outcome(directory)
            return
        try:
            outcome = spool.read_outcome(directory)
        except StorageError as error:
            self.progress.note(f"{error}; it is trained again")  # and replaced then
            if told:  # the search has its result, the run history does not
                self._queue.append(self._explore_task(number, trials[number].params))
            return
        config = outcome.json("config.json")
        spec = {k: v for k, v in config["spec"].items() if k not in ledger.GROWING}
        same = spec == {k: v for k, v in self.common.spec.items() if k not in ledger.GROWING}
        if phase == "explore":
            same = same and config["config"] == _plain(self.study, trials[number].params)
        if not same or outcome.manifest["study"] != self.common.study:
            raise StorageError(f"{directory} is of another study or configuration: move it away")
        self.results.settle(outcome)

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

    @property
    def n_of_best(self) -> int:
        """How many trials follow the search: confirmations, and the learning curve of the best."""
        middle = self.study.config({name: domain.at(0.5) for name, domain in self.study.space.items()})
        return min(self.study.n_confirm, self.n_planned) + len(self._sizes(middle))

    def explore(self) -> None:
        """Evaluate trials until the planned number of them is done."""
        n_total = max(self.n_planned, len(self._ids)) + self.n_of_best
        self.progress.begin(n_done=self.n_told, n_total=n_total)
        self.progress.best = self._best_text()
        self._drive(self._refill)

    def _refill(self) -> None:
        """Ask for the trials that can be submitted now."""
        if monotonic() > self.deadline:
            self._queue.clear()  # the next run takes it up
            return
        if self._queue or len(self._ids) >= self.n_planned:
            return
        if not self._learns:
            self._ask()
        elif self.engine.n_open == 0:  # all of the last round are told
            self._ask()
            self._ask_round()

    def _ask(self) -> None:
        failpoints.hit("ask")
        number = len(self._ids)
        if self._learns:
            trial = self.stored.ask()
            failpoints.hit("asked")
            assert trial.number == number, (trial.number, number)
            self._ids[number] = trial._trial_id
            self._queue.append(self._task(trial))
        else:
            self._ids[number], values = ask(self.stored, self.study, number)
            self._queue.append(self._explore_task(number, values))

    def _ask_round(self) -> None:
        """Ask for the rest of the round that has begun."""
        while len(self._ids) % self.study.round_size and len(self._ids) < self.n_planned:
            self._ask()

    def _task(self, trial: optuna.Trial) -> Task:
        return self._explore_task(trial.number, suggest(trial, self.study))

    def _explore_task(self, number: int, params: Mapping[str, Value]) -> Task:
        return dataclasses.replace(
            self.common, phase="explore", number=number, config=_plain(self.study, params), variant=_variant(params),
            rival=self._rival(number),
        )  # fmt: skip

    def _rival(self, number: int) -> Rival | None:
        """Return the best trial before the round of this one, if the study prunes; all of those are told by then."""
        if self.study.prune is None:
            return None
        first = number - number % self.study.round_size
        best = ledger.best_trial([trial for trial in self._trials() if trial.number < first])
        return None if best is None else Rival(best.number, tuple(best.user_attrs[ledger.BY_RESAMPLE]))

    def _drive(self, refill: Callable[[], None]) -> None:
        """Keep the workers busy until the queue and the engine are empty."""
        while True:
            refill()
            while self._queue and self.engine.n_open < self.engine.capacity:
                failpoints.hit("submit")
                self.engine.submit(dataclasses.replace(self._queue.popleft(), attempt=self._first_attempt()))
                refill()
            if self.engine.n_open == 0:
                return
            done = self.engine.next_done(timeout=0.5)
            if done is not None:
                self._accept(*done)
            self.results.collect()
            self.progress.tick()
            interrupts.check()

    def _first_attempt(self) -> int:
        """Return the number of this session's first attempt at a trial, higher than any of an earlier session.

        A worker that outlived its coordinator (it was stopped) can thus be told from those that count.
        """
        if self._attempt is None:
            session = int(self.stored.user_attrs.get("sessions", 0)) + 1
            self.stored.set_user_attr("sessions", session)
            self._attempt = MAX_ATTEMPTS * (session - 1) + 1
        return self._attempt

    def _accept(self, task: Task, directory: Path) -> None:
        outcome = spool.read_outcome(directory)
        attempt = outcome.manifest["attempt"]
        if attempt < task.attempt:
            self.progress.note(f"{directory} is of attempt {attempt}, this is attempt {task.attempt}: refused")
            spool.remove_outcome(directory)
            self.engine.submit(task)
            return
        self.results.settle(outcome)
        self.n_trained += 1
        carried_out = Replication(**outcome.json("config.json")["replication"])
        self.progress.done(n_replicas=carried_out.n_replicas, best=self._best_text())

    # -- confirm

    def confirm(self) -> None:
        """Measure the best configurations again on resamples and seeds that the search never saw, one at several sizes.

        The confirmation of explore trial 23 is confirm-0023; its learning curve is learning_curve-2301 and so on. If
        several are confirmed, it is the best of them by its confirmation that gets the learning curve.
        """
        tasks = [self._confirm_task(trial) for trial in ledger.best_trials(self._trials(), self.study.n_confirm)]
        if not tasks:
            return
        best = tasks[0]
        if len(tasks) > 1:
            self._measure(tasks, n_later=len(self._curve_tasks(best)))
            found = self.results.confirmed()
            best = min(tasks, key=lambda task: found.get(task.key, math.inf))
            tasks = []
        self.confirmed = best.key
        self._measure([*tasks, *self._curve_tasks(best)])

    def _measure(self, tasks: list[Task], n_later: int = 0) -> None:
        """Carry out what is missing of these tasks; `n_later` others will follow."""
        done = self.results.settled()
        missing = [task for task in tasks if task.key not in done]
        self._queue.extend(missing)
        self.progress.n_done += len(tasks) - len(missing)
        self.progress.n_total = self.progress.n_done + len(missing) + n_later
        self._drive(lambda: None)

    def _confirm_task(self, trial: FrozenTrial) -> Task:
        """Return the confirmation of a trial: beyond all that any trial of the search can come to have."""
        first_resample, first_init = self.study.replication.most
        return dataclasses.replace(
            self.common, phase="confirm", number=trial.number, config=_plain(self.study, trial.params),
            variant=_variant(trial.params), first_resample=first_resample, first_init=first_init,
            first_noise=self.study.replication.n_noise_draws,
        )  # fmt: skip

    def _curve_tasks(self, whole: Task) -> list[Task]:
        """Return the learning curve of a confirmed configuration, longest first."""
        curve = [
            dataclasses.replace(
                whole, phase="learning_curve", number=whole.number * 100 + k,
                config=dict(whole.config) | {"n_train": n_train},
            )
            for k, n_train in self._sizes(TrialConfig(**whole.config)).items()
        ]  # fmt: skip
        return sorted(curve, key=lambda task: -task.config["n_train"])

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
        return None if self.results.best is None else ledger.describe(self.results.best, self.study.objective)

    def _best_text(self) -> str:
        if self.results.best is None:
            return ""
        objective = self.study.objective
        names = objective if isinstance(objective, str) else list(objective)
        return best_text(names, ledger.describe(self.results.best, objective), self.results.best.number)


def _plain(study: Study, params: Mapping[str, Value]) -> dict[str, Any]:
    return dataclasses.asdict(study.config(params))


def _variant(params: Mapping[str, Value]) -> str | None:
    return str(params["variant"]) if "variant" in params else None
