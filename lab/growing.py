"""A trial that grows: its grid of training sets × seeds is trained rectangle by rectangle, and joined.

A rectangle that is trained stays beside the trial's checkpoints until its outcome is written. So a trial that was
killed between two steps (lab.growth decides on them, from the results alone) takes up what it had, and replica (d, i)
is the one that a plan of the final size would have trained from the start.

Shape suffixes: D resamples, I initialisations, K draws of the label noise, R = D·I·K replicas, N points, C classes.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lab import growth
from lab.course import checkpoints, judged
from lab.growth import Growth, Shape, Step
from lab.replication import Grid
from lab.storage import Home
from lab.task import Task

if TYPE_CHECKING:
    from lab.data.pool import Dataset
    from lab.training.checkpoint import Checkpoints
    from lab.training.crew import State
    from lab.training.scores import Evaluation


class Rectangle(NamedTuple):
    """Neighbouring training sets × seeds of a trial's grid, counted from the first of the trial."""

    first_resample: int
    first_init: int
    n_resamples: int
    n_inits: int

    @property
    def name(self) -> str:
        """The name of its folder, e.g. "replicas-8-0-4-3"."""
        return "-".join(["replicas", *map(str, self)])


# trains a rectangle, from a state on if one is given, and calls the function after every epoch (lab.training.fit)
Train = Callable[[Rectangle, "State | None", Callable[..., None]], "Iterator[Evaluation]"]


@dataclass(frozen=True)
class Grown:
    """What a trial has come to: the plan as it was carried out, and its evaluations as of one training."""

    plan: Grid
    evaluations: "list[Evaluation]"
    growth: Growth
    seconds: float


@dataclass
class Piece:
    """What a rectangle has given so far."""

    rectangle: Rectangle
    evaluations: "list[Evaluation]" = field(default_factory=list)
    began: float = field(default_factory=time.time)
    seconds: float = math.nan  # of its training, once that is done

    def add(self, step: "Evaluation") -> None:
        """Note an evaluation; predictions on the validation set are kept of the latest alone."""
        if self.evaluations:
            last = self.evaluations[-1]
            none_left = last.probabilities_val_DINC[..., :0, :]
            self.evaluations[-1] = dataclasses.replace(last, probabilities_val_DINC=none_left)
        self.evaluations.append(step)

    def state(self, training: "State") -> "tuple[State, dict[str, Any]]":
        """Return what a checkpoint keeps: that of the training, and all predictions until now."""
        from lab.training.scores import state_of

        tensors = {f"training.{name}": tensor for name, tensor in training.items()}
        for k, step in enumerate(self.evaluations):
            tensors |= {f"evaluation.{k}.{name}": tensor for name, tensor in state_of(step).items()}
        return tensors, {
            "epochs": [step.epoch for step in self.evaluations],
            "seconds": time.time() - self.began,
            "is_done": not math.isnan(self.seconds),
        }


def grow(task: Task, dataset: "Dataset", home: Home, train: Train, note: Callable[[str], None]) -> Grown:
    """Train a trial that grows until its target or a limit is reached; `note` says what the user should know."""
    plan = task.replication
    shape = (plan.n_resamples, plan.n_inits)
    rectangles, pieces, steps = [Rectangle(0, 0, *shape)], [], []
    while True:
        for rectangle in rectangles:
            pieces.append(trained(rectangle, checkpoints(task, dataset, home, note, rectangle), train))
        last = joined(pieces, shape, -1)
        found = judged(
            last.probabilities_test_DINC, dataset.test, last.diverged_R, partition_D=plan.grid(*shape).partition_D
        )
        half_width = growth.half_width(found, plan.target_term)
        seconds = sum(piece.seconds for piece in pieces)
        value = None if found is None else found.terms[plan.target_term].value
        steps.append(Step(*shape, _known(value), _known(half_width), seconds))
        after = growth.following(plan, shape, found)
        if isinstance(after, str):
            evaluations = [joined(pieces, shape, k) for k in range(len(pieces[0].evaluations))]
            return Grown(plan.grid(*shape), evaluations, Growth(tuple(steps), after), seconds)
        rectangles, shape = added(shape, after), after


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def added(before: Shape, after: Shape) -> list[Rectangle]:
    """Return what a grid lacks to become a larger one: new training sets with the old seeds, then the new seeds."""
    (d, i), (more_d, more_i) = before, after
    rectangles = [Rectangle(d, 0, more_d - d, i), Rectangle(0, i, more_d, more_i - i)]
    return [rectangle for rectangle in rectangles if rectangle.n_resamples and rectangle.n_inits]


def trained(rectangle: Rectangle, kept: "Checkpoints", train: Train) -> Piece:
    """Train a rectangle, or what is left of it."""
    piece, resume = _taken_up(rectangle, kept)
    if not math.isnan(piece.seconds):
        return piece
    for step in train(rectangle, resume, lambda state: kept.offer(lambda: piece.state(state()))):
        piece.add(step)
    piece.seconds = time.time() - piece.began
    kept.put(lambda: piece.state({}))
    return piece


def _taken_up(rectangle: Rectangle, kept: "Checkpoints") -> "tuple[Piece, State | None]":
    """Return what an earlier attempt left of a rectangle, and the state that its training goes on from."""
    from lab.training.scores import restored

    found = kept.load()
    if found is None:
        return Piece(rectangle), None
    training: dict[str, Any] = {}
    states: list[dict[str, Any]] = [{} for _ in found.record["epochs"]]
    for name, tensor in found.tensors.items():
        where, _, rest = name.partition(".")
        if where == "training":
            training[rest] = tensor
        else:
            k, _, rest = rest.partition(".")
            states[int(k)][rest] = tensor
    evaluations = [restored(epoch, state) for epoch, state in zip(found.record["epochs"], states, strict=True)]
    seconds = found.record["seconds"]
    done = seconds if found.record["is_done"] else math.nan
    return Piece(rectangle, evaluations, time.time() - seconds, done), training


def joined(pieces: Sequence[Piece], shape: Shape, k: int) -> "Evaluation":
    """Return evaluation number k of a grid of D × I, of its pieces."""
    from lab.training.scores import Evaluation

    steps = [(piece.rectangle, piece.evaluations[k]) for piece in pieces]

    def join(values: "Callable[[Evaluation], np.ndarray | None]") -> np.ndarray:
        """Return values (R, …) of all replicas; NaN where a piece has none."""
        return _joined([(rectangle, values(step)) for rectangle, step in steps], shape)

    def by_name(values: "Callable[[Evaluation], Mapping[str, np.ndarray]]") -> dict[str, np.ndarray]:
        names = dict.fromkeys(name for _, step in steps for name in values(step))
        return {name: join(lambda step, name=name: values(step).get(name)) for name in names}  # type: ignore[misc]

    diverged_R = join(lambda step: step.diverged_R)
    n_draws = len(diverged_R) // math.prod(shape)
    axes = shape if n_draws == 1 else (*shape, n_draws)

    def predictions(values_RNC: np.ndarray) -> np.ndarray:
        return values_RNC.reshape(*axes, *values_RNC.shape[1:])

    def flat(values_DINC: np.ndarray) -> np.ndarray:
        return values_DINC.reshape(math.prod(values_DINC.shape[:-2]), *values_DINC.shape[-2:])

    shifted = by_name(lambda step: {name: flat(values) for name, values in step.probabilities_shifted.items()})
    return Evaluation(
        steps[0][1].epoch,
        by_name(lambda step: step.metrics),
        predictions(join(lambda step: flat(step.log_probabilities_test_DINC))),
        predictions(join(lambda step: flat(step.probabilities_val_DINC))),
        diverged_R,
        {name: predictions(values_RNC) for name, values_RNC in shifted.items()},
        by_name(lambda step: step.signals),
        by_name(lambda step: step.weights),
    )


def _joined(parts: Sequence[tuple[Rectangle, np.ndarray | None]], shape: Shape) -> np.ndarray:
    """Return values (R, …) of a whole grid from those (R, …) of its rectangles; NaN for a rectangle without any."""
    rectangle, first = next((rectangle, values) for rectangle, values in parts if values is not None)
    n_draws = len(first) // (rectangle.n_resamples * rectangle.n_inits)
    empty = np.nan if first.dtype.kind == "f" else 0
    whole = np.full((*shape, n_draws, *first.shape[1:]), empty, dtype=first.dtype)
    for (d, i, n_d, n_i), values in parts:
        if values is not None:
            whole[d : d + n_d, i : i + n_i] = values.reshape(n_d, n_i, n_draws, *first.shape[1:])
    return whole.reshape(math.prod(shape) * n_draws, *first.shape[1:])
