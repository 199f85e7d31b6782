"""One trial, from its task to its outcome: train the replicas, decompose their errors, write it all to the spool.

Runs in a worker (or in the coordinator, engine "inline") and knows neither Optuna nor MLflow. `lab.outcome` builds the
files.
"""

import contextlib
import dataclasses
import errno
import functools
import itertools
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import (
    failpoints,
    first_stage,
    growing,
    outcome,
    own_families,
    pretraining,
    racing,
    spool,
    timing,
    weights,
)
from lab.course import Course, checkpoints, decomposed, taken_up
from lab.errors import DataError, LabError, SpecError, StorageError, one_line
from lab.files import forget
from lab.growing import Rectangle
from lab.growth import Growth
from lab.knobs import TrialConfig
from lab.racing import Pruned
from lab.replication import Replication
from lab.storage import Home
from lab.task import Task
from lab.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor

    from lab.data.pool import Dataset
    from lab.training.crew import State
    from lab.training.loop import OnEpoch


def load_dataset(spec: Mapping[str, Any], *, data_dir: str | None = None, study_file: str | None = None) -> "Dataset":
    """Return the data set of a study; a process loads it once.

    A data set that the lab does not know by name may be defined in the study file, by a function of that name with
    the arguments of `lab.data.datasets.Loader`.
    """
    return _load_dataset(
        spec["data"], spec["seed"], spec["n_validation"], spec["n_test"], data_dir or None, study_file or None
    )


@functools.lru_cache(maxsize=2)  # a study's, and that of its pre-training
def _load_dataset(
    name: str, seed: int, n_validation: int | None, n_test: int | None, data_dir: str | None, study_file: str | None
) -> "Dataset":
    from lab.data import datasets

    base, own = name.partition("[")[0], None  # without the classes that are chosen of it, see lab.data.classes
    if base not in datasets.NAMES and study_file is not None:
        from lab.study_file import load_module

        own = getattr(load_module(Path(study_file)), base, None)
        if callable(own):
            datasets.register(base, own)  # in the place of what another study file has under that name
    try:
        return datasets.load(name, seed=seed, n_validation=n_validation, n_test=n_test, data_dir=data_dir)
    except LabError:
        raise
    except Exception as error:
        if not callable(own):
            raise
        raise DataError(f"data set {name!r} of {study_file}: {type(error).__name__}: {one_line(error)}") from error


def _dataset(task: Task) -> "Dataset":
    """Return the data set of a task, in its size, with the posterior that its predictions are decomposed against."""
    from lab.data import label_noise, transforms

    config = TrialConfig.from_dict(task.config)
    dataset = load_dataset(task.spec, data_dir=task.data_dir, study_file=task.study_file)
    return label_noise.scored(transforms.at_side(dataset, config.resize), config)


def evaluate(task: Task, home: Home, *, tick: Callable[[], None] | None = None) -> Path:
    """Train one trial and write its outcome into the spool; return the directory of the outcome.

    A configuration that cannot be built gives an outcome "infeasible", one that breaks while it is trained an outcome
    "failed"; both say why. `tick` is called after each evaluation.

    Raises:
        LabError: The data set cannot be loaded or the outcome cannot be written: no trial of the study would do better.
    """
    started, dataset, events = time.time(), _dataset(task), []  # type: ignore[var-annotated]
    return _write(task, home, dataset, started, events, lambda: _train(task, dataset, home, tick, events.append))


def evaluate_together(tasks: Sequence[Task], home: Home, *, tick: Callable[[], None] | None = None) -> list[Path]:
    """Train trials of equal form in one pack, and write the outcome of each as if it had been trained alone.

    In several packs, one after the other, where they differ so much in width that filling up does not pay. What one
    trial of a pack breaks, breaks for all: they are then trained one after the other, and so are those of which one
    goes on from a checkpoint.

    Raises:
        LabError: See `evaluate`.
    """
    outcomes: dict[int, Path] = {}
    for places in _packs(tasks):
        outcomes |= zip(places, _evaluate_pack([tasks[k] for k in places], home, tick), strict=True)
    return [outcomes[k] for k in range(len(tasks))]


def _packs(tasks: Sequence[Task]) -> list[list[int]]:
    """Return which trials train in one pack, as lists of their places."""
    if len({task.config["width"] for task in tasks}) > 1:
        from lab.training import padding, strategy

        with contextlib.suppress(Exception):  # what is wrong with one of them shows when it is trained
            dataset, configs = _dataset(tasks[0]), [TrialConfig.from_dict(task.config) for task in tasks]
            networks = padding.built(configs, dataset.image_shape, dataset.n_classes)
            return strategy.packs(networks, [task.replication.n_replicas for task in tasks])
    return [list(range(len(tasks)))]


def _evaluate_pack(tasks: Sequence[Task], home: Home, tick: Callable[[], None] | None) -> list[Path]:
    """Do so with the trials of one pack."""
    started, events = time.time(), []  # type: ignore[var-annotated]
    datasets = [_dataset(task) for task in tasks]
    found = None
    if len(tasks) > 1:
        with contextlib.suppress(Exception):
            found = _train_together(tasks, datasets, home, tick, events.append)
    if found is None:
        return [evaluate(task, home, tick=tick) for task in tasks]
    return [
        _write(task, home, dataset, started, [*events], functools.partial(lambda trained: trained, trained))
        for task, dataset, trained in zip(tasks, datasets, found, strict=True)
    ]


def _write(
    task: Task,
    home: Home,
    dataset: "Dataset",
    started: float,
    events: list[str],
    train: Callable[[], Trained | Pruned],
) -> Path:
    """Write the outcome of a trial, whatever comes of training it; `events` is read afterwards."""
    files: dict[str, bytes] = {}
    start: Mapping[str, Any] = {}
    status, reason, n_parameters, plan = "finished", None, None, task.replication
    try:
        trained = train()
        n_parameters, plan, start = trained.n_parameters, trained.replication, trained.start
        if isinstance(trained, Pruned):
            status, reason = "pruned", trained.reason
            files["pruned.json"] = outcome.as_json(trained.to_dict())
        else:
            trained_on = functools.partial(_trained_on, home=home)
            timed = timing.measured(task, plan, trained_on, events.append, features_in=_features(home))
            files |= outcome.results(task, dataset, dataclasses.replace(trained, timed=timed), note=events.append)
            status = "diverged" if trained.snapshots[-1].diverged_R.any() else "finished"
    except _Infeasible as error:
        status, reason = "infeasible", str(error)
    except LabError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise StorageError(f"{task.key}: {one_line(error)}") from error  # no trial is to blame for the disk
        status, reason = "failed", f"{type(error).__name__}: {one_line(error)}"
        files["error.txt"] = traceback.format_exc().encode()
    files["environment.json"] = outcome.as_json(outcome.environment(task) | {"events": events})
    files["config.json"] = outcome.as_json(outcome.request(task, dataset, plan, n_parameters) | {**start})
    directory = spool.write_outcome(
        home, task.study, task.phase, task.number, files,
        status=status, reason=reason, attempt=task.attempt, started=started, finished=time.time(),
    )  # fmt: skip
    forget(home.checkpoints_of(task.study, task.key))
    return directory


def write_failure(task: Task, home: Home, reason: str) -> Path:
    """Write the outcome of a trial that no worker lived to finish."""
    now = time.time()
    dataset = _dataset(task)
    files = {
        "config.json": outcome.as_json(outcome.request(task, dataset, task.replication, None)),
        "environment.json": outcome.as_json(outcome.environment(task)),
    }
    return spool.write_outcome(
        home, task.study, task.phase, task.number, files,
        status="failed", reason=reason, attempt=task.attempt, started=now, finished=now,
    )  # fmt: skip


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Infeasible(Exception):
    """The configuration cannot be built."""


def _train(
    task: Task, dataset: "Dataset", home: Home, tick: Callable[[], None] | None, on_event: Callable[[str], None]
) -> Trained | Pruned:
    own_families.register(str(task.config["family"]), task.study_file)
    with _feasible():
        config = _config(task, home)
        start = _start(config)
    return dataclasses.replace(_trained_from(config, task, dataset, home, tick, on_event), start=start)


def _trained_from(
    config: TrialConfig,
    task: Task,
    dataset: "Dataset",
    home: Home,
    tick: Callable[[], None] | None,
    on_event: Callable[[str], None],
) -> Trained | Pruned:
    from lab import training

    def fit(part: Rectangle, resume: "State | None", on_epoch: "OnEpoch") -> Iterator[Any]:
        plan = task.replication.grid(part.n_resamples, part.n_inits)
        steps = training.fit(
            config, dataset, plan, seed=task.spec["seed"], first_resample=task.first_resample + part.first_resample,
            first_init=task.first_init + part.first_init, first_noise=task.first_noise,
            n_evaluations=task.spec["n_evaluations"], device=task.device, keep_weights=weights.are_kept(task.phase),
            resume=resume, on_epoch=on_epoch, on_event=on_event, features_in=_features(home),
        )  # fmt: skip
        for step in _begun(steps):
            yield step
            _passed(tick)

    with _feasible():
        n_parameters = training.count_parameters(config, dataset.image_shape, dataset.n_classes)
    if task.rival is not None:
        raced = racing.race(task, dataset, home, fit, _note)
        if isinstance(raced, Pruned):
            return dataclasses.replace(raced, n_parameters=n_parameters)
        course = Course()
        for step in raced.evaluations:
            course.add(step, dataset.test, task.replication)
        return _trained(n_parameters, course, step, dataset, task.replication, raced.seconds)
    if task.replication.grows:
        grown = growing.grow(task, dataset, home, fit, _note)
        course = Course()
        for step in grown.evaluations:
            course.add(step, dataset.test, grown.plan)
        return _trained(n_parameters, course, step, dataset, grown.plan, grown.seconds, grown.growth)
    kept = checkpoints(task, dataset, home, _note)
    course, resume = taken_up(kept)
    whole = Rectangle(0, 0, task.replication.n_resamples, task.replication.n_inits)
    for step in fit(whole, resume, lambda state: kept.offer(lambda: course.state(state()))):
        course.add(step, dataset.test, task.replication)
    return _trained(n_parameters, course, step, dataset, task.replication, course.seconds())


def _trained_on(task: Task, home: Home) -> "tuple[TrialConfig, Dataset]":
    """Return configuration and data set of a task, whose family may be defined in the study file."""
    own_families.register(str(task.config["family"]), task.study_file)
    return _config(task, home), _dataset(task)


def _features(home: Home) -> Path:
    """Return the folder where trials leave to each other what frozen trunks make of images."""
    return home.mlruns / "features"


def _start(config: TrialConfig) -> dict[str, Any]:
    """Return the digest and the number of the networks that a trial starts from, if there are any."""
    if not config.weights:
        return {}
    start = weights.given(config.weights)
    return {"weights_digest": start.digest, "n_starts": len(start.replicas)}


def _config(task: Task, home: Home) -> TrialConfig:
    """Return the configuration of a trial, with the place of the weights that it starts from."""
    config = TrialConfig.from_dict(task.config)
    if config.weights != pretraining.NAME:
        return config
    return dataclasses.replace(config, weights=str(first_stage.folder(task, home)))


@contextlib.contextmanager
def _feasible() -> Iterator[None]:
    """Take an error for a sign that the configuration cannot be built."""
    try:
        yield
    except SpecError as error:
        raise _Infeasible(str(error)) from error
    except LabError:
        raise
    except ValueError as error:
        raise _Infeasible(one_line(error)) from error


def _begun(steps: Iterator[Any]) -> Iterator[Any]:
    """Return the steps of a training; once the first is done, an error is a failure, not an infeasible choice."""
    steps = iter(steps)
    with _feasible():
        first = next(steps)
    return itertools.chain([first], steps)


def _train_together(
    tasks: Sequence[Task],
    datasets: Sequence["Dataset"],
    home: Home,
    tick: Callable[[], None] | None,
    on_event: Callable[[str], None],
) -> list[Trained] | None:
    """Return what training the trials in one pack gave; None if one of them has a checkpoint."""
    from lab import training
    from lab.training import padding

    task, dataset = tasks[0], datasets[0]  # they differ in what predictions are decomposed against alone
    own_families.register(str(task.config["family"]), task.study_file)
    kept = [checkpoints(t, d, home, _note) for t, d in zip(tasks, datasets, strict=True)]
    courses, states = zip(*(taken_up(of_task) for of_task in kept), strict=True)
    if any(state is not None for state in states):
        return None
    jobs = [
        training.Job(
            _config(t, home), t.replication, t.first_resample, t.first_init, t.first_noise, weights.are_kept(t.phase)
        )
        for t in tasks
    ]

    def written(state: Callable[[int], Mapping[str, "Tensor"]], j: int) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
        return courses[j].state(state(j))

    def offer(state: Callable[[int], Mapping[str, "Tensor"]]) -> None:
        for j, of_task in enumerate(kept):
            of_task.offer(functools.partial(written, state, j))

    starts = [_start(job.config) for job in jobs]
    steps: list[Any] = []
    for steps in training.fit_many(
        jobs, dataset, seed=task.spec["seed"], n_evaluations=task.spec["n_evaluations"], device=task.device,
        on_epoch=offer, on_event=on_event, features_in=_features(home),
    ):  # fmt: skip
        for course, step, of_task in zip(courses, steps, datasets, strict=True):
            course.add(step, of_task.test, task.replication)
        _passed(tick)
    networks = padding.built([job.config for job in jobs], dataset.image_shape, dataset.n_classes)
    n_replicas = [t.replication.n_replicas for t in tasks]
    found = [
        _trained(network.n_parameters, course, step, of_task, t.replication, course.seconds() * n / sum(n_replicas))
        for t, n, network, course, step, of_task in zip(
            tasks, n_replicas, networks, courses, steps, datasets, strict=True
        )
    ]
    return [dataclasses.replace(trained, start=start) for trained, start in zip(found, starts, strict=True)]


def _passed(tick: Callable[[], None] | None) -> None:
    """Note that an evaluation is done."""
    failpoints.hit("epoch")
    if tick is not None:
        tick()


def _trained(
    n_parameters: int,
    course: Course,
    step: Any,
    dataset: "Dataset",
    plan: Replication,
    seconds: float,
    growth: Growth | None = None,
) -> Trained:
    """Return what training a trial gave, `step` being its last evaluation."""
    parts_of = functools.partial(decomposed, diverged_R=step.diverged_R, partition_D=plan.partition_D)
    validation = parts_of(step.probabilities_val_DINC, dataset.validation)
    shifted = {
        condition: parts_of(probabilities_DINC, dataset.test)
        for condition, probabilities_DINC in step.probabilities_shifted.items()
    }
    losses = {
        loss: parts_of(None, dataset.test, logits=step.log_probabilities_test_DINC, loss=loss)
        for loss in outcome.OTHER_LOSSES
    }
    return Trained(
        n_parameters, plan, course.snapshots, course.decompositions, validation, step.log_probabilities_test_DINC,
        shifted, losses, seconds, growth, step.weights,
    )  # fmt: skip
