"""How long an epoch takes: of two configurations by turns, so that what slows the machine down slows both.

Both are trained with all replicas of their plan, in the packs of their own training. An epoch is its steps and what
lays them out (orders, masks, learning rates); evaluations do not count. The first epoch of each is not counted either:
there libraries choose their kernels, and features of frozen blocks are computed.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lab import models
from lab.data.pool import Dataset
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import loop
from lab.training.crew import crews_of
from lab.training.job import Job
from lab.training.members import enlist
from lab.training.precision import arithmetic


def epoch_seconds(
    pair: tuple[tuple[TrialConfig, Dataset], tuple[TrialConfig, Dataset]],
    replication: Replication,
    *,
    seed: int,
    n_pairs: int,
    device: str = "cpu",
    features_in: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> NDArray[np.float64]:
    """Return the seconds of `n_pairs` epochs of both configurations, each on its data set, shape (n_pairs, 2).

    They go a b, b a, a b …, so that a machine that gets slower or faster evenly favours neither. `features_in` is as
    of `lab.training.fit`.

    Raises:
        ValueError: A configuration cannot be built, or its training sets cannot be drawn.
        torch.OutOfMemoryError: The device's memory does not suffice for both.
    """
    target = torch.device(device)
    epochs = [_epoch(config, dataset, replication, seed, n_pairs, target, features_in) for config, dataset in pair]
    for epoch in epochs:
        epoch()
    seconds = np.empty((n_pairs, 2))
    for k in range(n_pairs):
        for which in (0, 1) if k % 2 == 0 else (1, 0):
            started = clock()
            epochs[which]()
            seconds[k, which] = clock() - started
    return seconds


def _epoch(
    config: TrialConfig,
    dataset: Dataset,
    replication: Replication,
    seed: int,
    n_pairs: int,
    device: torch.device,
    features_in: Path | None,
) -> Callable[[], None]:
    """Return a function that takes all replicas through their next epoch and waits until that is done."""
    # a schedule is defined for the steps of its training alone
    config = dataclasses.replace(config, epochs=max(config.epochs, n_pairs + 1))
    network = models.build(config, dataset.image_shape, dataset.n_classes)
    sets, members = enlist([Job(config, replication)], [network], dataset, seed, device, torch.float32)
    crews = crews_of(
        network, members, sets, dataset, seed=seed, device=device, dtype=torch.float32, features_in=features_in
    )  # fmt: skip

    def epoch() -> None:
        with arithmetic(config.precision, device):
            for crew in crews:
                loop.one_epoch(crew, sets, is_watched=False)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return epoch
