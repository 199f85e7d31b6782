"""Who is trained: the replicas of all jobs, and the training sets that they share.

Shape suffixes: D resamples, I initialisations, K draws of the label noise, R replicas, S some of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data.pool import Dataset, Pool
from lab.data.resampling import training_sets
from lab.knobs import TrialConfig
from lab.models import Network
from lab.spec import Replication
from lab.training.job import Job
from lab.training.sets import TrainingSets


@dataclass(frozen=True)
class Members:
    """Who the replicas of a crew are.

    Attributes:
        networks: The network of each job; they may differ in width.
        configs_R: Configuration of each replica; they may differ in `lab.fusion.OWN_KNOBS` and in width.
        jobs_R: Which of the jobs it belongs to.
        places_R: Its place r = (d·I + i)·K + k in its job.
        inits_R: Its init stream.
        sets_R: Which of the training sets it has.
    """

    networks: Sequence[Network]
    configs_R: Sequence[TrialConfig]
    jobs_R: NDArray[np.int64]
    places_R: NDArray[np.int64]
    inits_R: NDArray[np.int64]
    sets_R: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.configs_R)

    @property
    def networks_R(self) -> list[Network]:
        """The network of each replica."""
        return [self.networks[j] for j in self.jobs_R]

    def take(self, rows_S: NDArray[np.int64]) -> "Members":
        """Return these of them."""
        return Members(
            self.networks,
            [self.configs_R[r] for r in rows_S],
            *(values[rows_S] for values in (self.jobs_R, self.places_R, self.inits_R, self.sets_R)),
        )


def enlist(
    jobs: Sequence[Job],
    networks: Sequence[Network],
    dataset: Dataset,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[TrainingSets, Members]:
    """Return the training sets, those that jobs share once, and the replicas of all jobs, given the network of each.

    Raises:
        ValueError: The scheme needs more examples than there are.
    """
    pools: list[Pool] = []
    first_of: dict[
        tuple[Replication, int, int, float], int
    ] = {}  # what the training sets of a job depend on → its first
    configs, rows = [], []
    for j, job in enumerate(jobs):
        config, replication = job.config, job.replication
        key = (replication, job.first_resample, job.first_noise, config.label_noise)
        if key not in first_of:
            first_of[key] = len(pools)
            pools += training_sets(
                config, dataset, replication, seed=seed, first_resample=job.first_resample, first_noise=job.first_noise
            )
        D, I, K = replication.shape  # noqa: E741 - the letters of the shape legend
        for r, (d, i, k) in enumerate(itertools.product(range(D), range(I), range(K))):
            configs.append(config)
            rows.append((j, r, job.first_init + i, first_of[key] + d * K + k))
    is_standardised = jobs[0].config.normalize == "training"
    sets = TrainingSets(pools, dataset.n_classes, device=device, dtype=dtype, is_standardised=is_standardised)
    return sets, Members(networks, configs, *np.array(rows, dtype=np.int64).T)
