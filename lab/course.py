"""The course of a trial: what its evaluations have given so far, and how a checkpoint keeps it.

Legend: D resamples, I initialisations, R = D·I replicas (replica r = d·I + i), N points, C classes.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lab import own_families, pretraining, weights
from lab.replication import Replication
from lab.storage import Home
from lab.task import Task
from lab.trained import LEVEL, Snapshot

if TYPE_CHECKING:
    from torch import Tensor

    from lab.analysis.decomposition import Decomposition
    from lab.data.pool import Dataset, Pool
    from lab.growing import Rectangle
    from lab.training.checkpoint import Checkpoints


@dataclass
class Course:
    """The snapshots of a trial, and the decomposition on the test set at each of them; None: no replica is left."""

    snapshots: list[Snapshot] = field(default_factory=list)
    decompositions: list[dict[str, Any] | None] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    def add(self, step: Any, points: "Pool", plan: Replication) -> None:
        """Note an evaluation (lab.training.scores.Evaluation) and decompose its errors on the test set."""
        scores = {name: np.array(values) for name, values in step.metrics.items()}
        self.snapshots.append(Snapshot(step.epoch, scores, np.array(step.diverged_R), step.signals))
        parts = decomposed(step.probabilities_test_DINC, points, step.diverged_R, partition_D=plan.partition_D)
        self.decompositions.append(parts)

    def seconds(self) -> float:
        """Return how long the trial has been trained, earlier attempts included that this one goes on from."""
        return time.time() - self.began

    def state(self, training: "Mapping[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, Any]]":
        """Return what a checkpoint keeps, tensors and JSON values, given the state of the training (see `fit`)."""
        import torch

        tensors = {f"training.{name}": tensor for name, tensor in training.items()}
        for k, snapshot in enumerate(self.snapshots):
            kinds = {"metrics": snapshot.metrics, "signals": snapshot.signals, "diverged": {"R": snapshot.diverged_R}}
            for kind, arrays in kinds.items():
                for name, values in arrays.items():
                    tensors[f"course.{k}.{kind}.{name}"] = torch.from_numpy(np.ascontiguousarray(values))
        epochs = [snapshot.epoch for snapshot in self.snapshots]
        return tensors, {"epochs": epochs, "decompositions": self.decompositions, "seconds": self.seconds()}


def taken_up(kept: "Checkpoints") -> "tuple[Course, dict[str, Tensor] | None]":
    """Return the course of a trial and the state that its training goes on from: what `Course.state` wrote last."""
    found = kept.load()
    if found is None:
        return Course(), None
    kinds: list[dict[str, dict[str, np.ndarray]]] = [
        {"metrics": {}, "signals": {}, "diverged": {}} for _ in found.record["epochs"]
    ]
    resume = {}
    for name, tensor in found.tensors.items():
        where, _, rest = name.partition(".")
        if where == "training":
            resume[rest] = tensor
        else:
            k, kind, rest = rest.split(".", 2)
            kinds[int(k)][kind][rest] = tensor.numpy().copy()
    snapshots = [
        Snapshot(epoch, kind["metrics"], kind["diverged"]["R"], kind["signals"])
        for epoch, kind in zip(found.record["epochs"], kinds, strict=True)
    ]
    began = time.time() - found.record["seconds"]
    return Course(snapshots, list(found.record["decompositions"]), began), resume


def checkpoints(
    task: Task, dataset: "Dataset", home: Home, note: Callable[[str], None], part: "Rectangle | None" = None
) -> "Checkpoints":
    """Return where a trial's checkpoints are kept, bound to all that its training depends on; or those of a part."""
    import torch

    import lab
    from lab.training.checkpoint import Checkpoints

    identity = {
        "config": dict(task.config), "replication": task.replication.to_dict(), "seed": task.spec["seed"],
        "n_evaluations": task.spec["n_evaluations"], "first_resample": task.first_resample,
        "first_init": task.first_init, "first_noise": task.first_noise, "device": task.device,
        "data": dataset.digest, "lab": lab.__version__,
        "torch": str(torch.__version__), "n_threads": torch.get_num_threads(),
    }  # fmt: skip
    own = own_families.digest(str(task.config["family"]), task.study_file)
    identity |= {"family_file": own} if own else {}
    start = str(task.config.get("weights", ""))
    identity |= {"weights": weights.given(start).digest} if start not in ("", pretraining.NAME) else {}
    folder = home.checkpoints_of(task.study, task.key)
    if part is not None:
        folder, identity["rectangle"] = folder / part.name, list(part)
    return Checkpoints(folder, json.loads(json.dumps(identity)), note)


def judged(
    probabilities_DINC: np.ndarray | None, points: "Pool", diverged_R: np.ndarray, **others: Any
) -> "Decomposition | None":
    """Return the decomposition over the replicas that did not diverge, None if none is left.

    `others` are further arguments of `lab.analysis.decomposition.decompose`, as logits in place of the probabilities,
    and the loss.
    """
    from lab.analysis.decomposition import decompose

    given = others["logits"] if probabilities_DINC is None else probabilities_DINC
    gone_DI = np.asarray(diverged_R).reshape(given.shape[:-2])
    if gone_DI.all():
        return None
    return decompose(
        probabilities_DINC, points.labels, posterior_NC=points.posterior, missing_DI=gone_DI, level=LEVEL,
        **others,
    )  # fmt: skip


def decomposed(
    probabilities_DINC: np.ndarray | None, points: "Pool", diverged_R: np.ndarray, **others: Any
) -> dict[str, Any] | None:
    """Return what `judged` does as plain values; terms that cannot be told apart are None, as JSON has no NaN."""
    found = judged(probabilities_DINC, points, diverged_R, **others)
    if found is None:
        return None
    parts = found.to_dict()
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in parts.items()}
