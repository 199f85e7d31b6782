"""One session of a study: check it, take its lock, open databases and workers, let the coordinator work, sum up."""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from lab import first_stage, interrupts, own_families, spool, storage, workers
from lab.errors import LabError, SpecError
from lab.progress import Progress
from lab.search import database as databases
from lab.search import ledger
from lab.search.coordinator import Coordinator
from lab.search.points import grid_size
from lab.search.publisher import BackgroundPublisher, DirectPublisher, Publisher
from lab.search.results import Results, check_history, keys_of
from lab.search.samplers import planned
from lab.spec import Study
from lab.storage import Home
from lab.syncs import Syncs
from lab.task import Task
from lab.trial import load_dataset

if TYPE_CHECKING:
    import optuna

    from lab.data.pool import Dataset
    from lab.tracking import Tracker


@dataclass(frozen=True)
class Summary:
    """How a study stands after `run`: counts of the explore trials by outcome, the best one, what was confirmed."""

    study: str
    n_planned: int
    counts: Mapping[str, int]  # outcome → trials; all of ledger.TRIED are there
    n_trained: int  # outcomes of this run, of all phases
    n_resumed: int  # trials taken up again that an earlier run had left unfinished
    seconds: float
    best: Mapping[str, Any] | None  # number, config, objective values and what was measured
    confirmed: str | None  # key of the confirmation
    engine: str
    n_workers: int
    device: str
    n_unpublished: int = 0  # outcomes that the tracking server did not take; they stay in the spool
    publish_error: str = ""

    @property
    def n_waiting(self) -> int:
        """Explore trials that are left to do: the time limit came first."""
        return max(0, self.n_planned - sum(self.counts.values()))

    @property
    def share_failed(self) -> float:
        """The share of explore trials that gave no result."""
        n_tried = sum(self.counts.values())
        return (self.counts["infeasible"] + self.counts["failed"]) / n_tried if n_tried else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return dataclasses.asdict(self) | {"share_failed": self.share_failed}


def prepare(study: Study, *, data_dir: str | None = None, study_file: str | None = None) -> "Dataset":
    """Load the data set and check that the study is possible on it; nothing is written.

    Raises:
        SpecError: It is not; the message says why.
        DataError: The data set is missing or damaged.
    """
    from lab.data import resampling

    dataset = load_dataset(study.to_dict(), data_dir=data_dir, study_file=study_file)
    first_stage.check_starts(study)
    if study.pretraining is not None:
        first_stage.dataset_of(study.to_dict(), data_dir=data_dir, study_file=study_file)
    n_train = study.largest("n_train")
    assert isinstance(n_train, int)
    plan = study.replication
    resampling.check_plan(dataset, plan, n_train=n_train)
    if plan.n_noise_draws > 1 and not study.largest("label_noise") and dataset.pool.posterior is None:
        raise SpecError(
            f"replication: n_noise_draws = {plan.n_noise_draws}, but {dataset.name} has no posterior to draw labels "
            "from: set it to 1, or label_noise above 0"
        )
    return dataset


def _training_sets(study: Study, dataset: "Dataset") -> str:
    """Return what the study's training sets can show, and what they cannot, at its largest size."""
    from lab.data import resampling

    n_train = study.largest("n_train")
    assert isinstance(n_train, int)
    return resampling.describe(study.replication, n_train=n_train, n_pool=len(dataset.pool))


def run(
    study: Study,
    name: str,
    *,
    home: Home | None = None,
    device: str = "auto",
    n_workers: int | None = None,
    engine: str | None = None,
    ray_address: str | None = None,
    data_dir: str | None = None,
    study_file: str | None = None,
    smoke: bool = False,
    time_limit: float | None = None,
    asked: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Run a study, or what is left of it, to its end: explore, confirm, learning curve.

    Args:
        study: What is asked.
        name: The name that it is stored under.
        home: The project folder.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        n_workers: Worker processes; None chooses.
        engine: "inline", "process" or "ray"; None chooses.
        ray_address: Of a running Ray cluster; None starts one on this machine.
        data_dir: Where the user keeps data sets.
        study_file: The study's own file, if it may define the data set or a model family.
        smoke: Whether this is a run of seconds (workers would take as long to start).
        time_limit: Seconds after which no explore trial is begun; the best so far is then confirmed.
        asked: What the command said that the stored name does not (`lab.flags.asked`), for the commands of reports.
        progress: Where to say how far it is.

    Raises:
        LabError: See lab.errors; the study can be resumed after any of them.
    """
    from lab.data import check as data_check

    started = monotonic()
    study = dataclasses.replace(study, n_trials=planned(study))  # what is stored, followed and reported
    home = home or Home()
    progress = progress or Progress()
    device = workers.choose_device(device, elsewhere=engine == "ray")
    engine_name, n_workers = workers.choose_engine(engine, n_workers, device=device, smoke=smoke)
    dataset = prepare(study, data_dir=data_dir, study_file=study_file)
    notes = own_families.check(study, dataset.image_shape, dataset.n_classes, study_file)
    notes += first_stage.shared_starts(study)

    def beat() -> None:
        progress.tick()
        interrupts.check()

    with contextlib.ExitStack() as stack:
        stack.enter_context(storage.coordinator_lock(home, name))
        spool.clean_temporaries(home, name)
        first_stage.tidy(home)
        stack.callback(_clean_quietly, home, name)
        stack.callback(progress.end)
        hands = workers.open_engine(
            engine_name, n_workers, home=home, device=device, tick=beat, ray_address=ray_address
        )
        stack.callback(hands.close)
        if home.search_uri is None and not home.optuna_db.exists():
            hands.start()  # certainly needed; they start while MLflow is imported and makes its tables
        database = databases.open_database(home)
        stack.callback(databases.close, database)
        with databases.optuna_errors(home):
            stack.enter_context(databases.study_lock(database, name))
            training_sets = _training_sets(study, dataset)
            stored = ledger.open_study(database, study, name, dataset.digest, training_sets, asked)
            beat()
            publisher = _open_publisher(study, name, home, stored)
            stack.callback(publisher.close)
            common = Task(
                study=name, spec=json.loads(json.dumps(study.to_dict())), phase="explore", number=0, config={},
                device=device, data_dir=data_dir, study_file=study_file, asked=asked or {},
            )  # fmt: skip
            results = Results(study, stored, publisher, Syncs(database.engine))
            coordinator = Coordinator(
                study, common, home, results, hands, progress, dataset.n_classes,
                deadline=started + (math.inf if time_limit is None else time_limit),
            )  # fmt: skip
            beat()
            coordinator.recover()
            if not coordinator.is_done:
                progress.note(_header(study, name, device, engine_name, n_workers, coordinator))
                progress.note(training_sets)
                for note in notes:
                    progress.note(note)
                for finding in data_check.findings(dataset):
                    progress.note(f"data: {finding}")
            coordinator.explore()
            coordinator.confirm()
            n_unpublished = results.finish(home)
        return Summary(
            study=name, n_planned=study.n_trials, counts=coordinator.counts(), n_trained=coordinator.n_trained,
            n_resumed=coordinator.n_resumed, seconds=monotonic() - started, best=coordinator.best_dict(),
            confirmed=coordinator.confirmed, engine=engine_name, n_workers=n_workers, device=device,
            n_unpublished=n_unpublished, publish_error=publisher.error,
        )  # fmt: skip


def _open_publisher(study: Study, name: str, home: Home, stored: "optuna.Study") -> Publisher:
    """Open the run history; see that it belongs to the search state, now or as soon as its server answers."""
    from lab.mlflow_store import is_server, tracking_uri

    asked, told = keys_of(stored.get_trials(deepcopy=False))
    spooled = {directory.name for directory in spool.pending(home, name)}
    check = functools.partial(check_history, name, asked, told, spooled)
    open_tracker = functools.partial(_open_tracker, study, name, home)
    if is_server(tracking_uri(home)):
        return BackgroundPublisher(open_tracker, check)
    tracker = open_tracker()
    check(tracker.run_ids())
    return DirectPublisher(tracker)


def _open_tracker(study: Study, name: str, home: Home) -> "Tracker":
    from lab.tracking import Tracker

    with storage.setup_lock(home):
        return Tracker.open(name, home=home, question=study.question)


def _header(study: Study, name: str, device: str, engine_name: str, n_workers: int, coordinator: "Coordinator") -> str:
    hands = {"inline": "", "process": f", {n_workers} worker processes", "ray": ", on Ray"}[engine_name]
    how = device + hands
    plan = study.replication
    n_replicas = f"{plan.n_replicas} to {plan.max_replicas}" if plan.grows else str(plan.n_replicas)
    trials = f"{study.n_trials} trial{'' if study.n_trials == 1 else 's'}"
    text = f"{name}: {trials} × {n_replicas} replicas on {study.data} ({how})"
    text += f", then {coordinator.n_of_best} more of the best"
    if study.variants:
        n, what = len(study.variants), "variants"
    else:
        n, what = grid_size(study.space) if study.sampler == "grid" else 0, "points of the grid"
    if n:
        text += f"; all {n} {what}" if study.n_trials == n else f"; of {n} {what}: --trials {n} takes them all"
    if coordinator.n_told:
        text += f"; resumed: {coordinator.n_told} done, {coordinator.n_resumed} taken up again"
    return text


def _clean_quietly(home: Home, name: str) -> None:
    # not worth hiding the error that may be under way
    with contextlib.suppress(LabError):
        spool.clean_temporaries(home, name)
