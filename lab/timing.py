"""What a technique costs in time: an epoch of a variant against one of the baseline, in pairs.

A trial's own duration tells little of its technique: it is one number, taken while other workers had their share of
the machine. So a worker that has trained a variant takes the time of a few more epochs, of the baseline and of the
variant by turns, and what slows the machine down slows both. That takes about a third of the variant's epochs again at
the most, half of them the baseline's; trainings of fewer than 16 epochs are not timed.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import one_line
from lab.knobs import TrialConfig
from lab.replication import Replication
from lab.task import Task
from lab.trained import LEVEL

if TYPE_CHECKING:
    from lab.data.pool import Dataset

MOST_PAIRS = 5
EPOCHS_A_PAIR = 8  # of the training, so that timing stays small beside it


def pairs_of(config: TrialConfig) -> int:
    """Return how many pairs of epochs are timed beside a training; 0 where that would cost too much of it."""
    n = min(MOST_PAIRS, config.epochs // EPOCHS_A_PAIR)
    return n if n >= 2 else 0


def baseline_of(task: Task) -> Task | None:
    """Return the task of the baseline that a trial is compared with; None if it is that, or is no variant."""
    variants = task.spec.get("variants") or {}
    first = next(iter(variants), None)
    if task.phase != "explore" or task.variant is None or task.variant == first:
        return None
    config = TrialConfig.from_dict({**task.spec["fixed"], **variants[first]})
    return dataclasses.replace(task, variant=first, config=dataclasses.asdict(config))


def measured(
    task: Task,
    plan: Replication,
    trained_on: Callable[[Task], tuple[TrialConfig, "Dataset"]],
    note: Callable[[str], None],
    *,
    features_in: Path | None = None,
) -> Mapping[str, float]:
    """Return the seconds of an epoch of all replicas, see `lab.analysis.paired.paired_seconds`; empty without a pair.

    Args:
        task: The trial, which has been trained.
        plan: Its replicas.
        trained_on: Task → its configuration, with the weights that it starts from, and its data set, in its size.
        note: Told why the time could not be taken, which is no reason for a trial to fail.
        features_in: As of `lab.training.fit`.
    """
    from lab import training
    from lab.analysis.paired import paired_seconds

    baseline, n_pairs = baseline_of(task), pairs_of(TrialConfig.from_dict(task.config))
    if baseline is None or not n_pairs:
        return {}
    try:
        seconds_K2 = training.epoch_seconds(
            (trained_on(baseline), trained_on(task)), plan, seed=task.spec["seed"], n_pairs=n_pairs, device=task.device,
            features_in=features_in,
        )  # fmt: skip
    except Exception as error:
        note(f"the time of an epoch was not taken: {type(error).__name__}: {one_line(error)}")
        return {}
    return paired_seconds(seconds_K2, level=LEVEL)
