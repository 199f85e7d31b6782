"""A race: a trial of a study that prunes is trained on its first training sets, and on the rest if it has not lost.

What is stopped has no decomposition: parts of a risk over fewer replicas would compare with no other trial's. See
lab.pruning for the rule.

Shape suffixes: D resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lab import objectives
from lab.course import checkpoints
from lab.growing import Rectangle, Train, joined, trained
from lab.pruning import Rival, is_lost, n_first, p_value
from lab.replication import Grid
from lab.storage import Home
from lab.task import Task

if TYPE_CHECKING:
    from lab.data.pool import Dataset
    from lab.training.scores import Evaluation


@dataclass(frozen=True)
class Raced:
    """The evaluations of a trial that went on, as of one training, and the seconds that they took."""

    evaluations: "list[Evaluation]"
    seconds: float


@dataclass(frozen=True)
class Pruned:
    """A trial that was stopped.

    Attributes:
        replication: The part of the plan that was carried out.
        by_resample_D: Its objective on each training set that it had.
        rival: The trial that it lost to.
        p_value: Of the test.
        seconds: Of training.
        n_parameters: Of its network.
        start: As of a trial that was trained whole.
    """

    replication: Grid
    by_resample_D: Sequence[float]
    rival: Rival
    p_value: float
    seconds: float
    n_parameters: int
    start: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why it was stopped."""
        return (
            f"worse than trial {self.rival.number} on their {len(self.by_resample_D)} common training sets "
            f"(p = {self.p_value:.2g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values; `metrics` are what is tracked of it."""
        return {
            "metrics": {
                "pruned_objective": float(np.mean(self.by_resample_D)),
                "pruned_p_value": self.p_value,
                "n_replicas": self.replication.n_replicas,
                "seconds": self.seconds,
            },
            "by_resample": list(self.by_resample_D),
            "rival": {"number": self.rival.number, "by_resample": list(self.rival.by_resample_D)},
        }


def race(task: Task, dataset: "Dataset", home: Home, train: Train, note: Callable[[str], None]) -> Raced | Pruned:
    """Train a trial on its first training sets, and on the rest if it has not lost to its rival by then."""
    plan, level, objective = task.replication, task.spec["prune"], task.spec["objective"]
    assert task.rival is not None
    n, shape = n_first(level), (plan.n_resamples, plan.n_inits)
    pieces = []
    for rectangle in (Rectangle(0, 0, n, plan.n_inits), Rectangle(n, 0, plan.n_resamples - n, plan.n_inits)):
        pieces.append(trained(rectangle, checkpoints(task, dataset, home, note, rectangle), train))
        if len(pieces) == 1:
            last = pieces[0].evaluations[-1]
            values_D = objectives.by_resample(objective, last.metrics, last.diverged_R, n)
            if is_lost(values_D, task.rival, level):
                p = p_value(values_D, task.rival.by_resample_D)
                return Pruned(plan.grid(n, plan.n_inits), values_D, task.rival, p, pieces[0].seconds, 0)
    evaluations = [joined(pieces, shape, k) for k in range(len(pieces[0].evaluations))]
    return Raced(evaluations, sum(piece.seconds for piece in pieces))
