"""A crew: replicas that are trained together, and all that their training goes on from.

Shape suffixes: R replicas of the crew, S some of them, N examples.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab import seeds
from lab.knobs import TrialConfig
from lab.models import Network
from lab.training.attacks import Attack
from lab.training.augment import Augmentation
from lab.training.averaging import Averaging, recalibrated
from lab.training.dropout import Dropout
from lab.training.losses import Criterion
from lab.training.optimizers import Optimizer
from lab.training.pack import Pack
from lab.training.sets import TrainingSets
from lab.training.stopping import Stopping

State = Mapping[str, Tensor]


class Crew:
    """R replicas in one pack. Their configurations may differ in whatever does not change the shape of a tensor.

    Attributes:
        configs_R: Configuration of each replica.
        places_R: Its place in its trial.
        inits_R: Its init stream.
        sets_R: Which of the training sets it has, on the device.
        epoch: Epochs that are done.
        step: Optimiser steps that are done.
        evaluated: The latest epoch after which the crew was evaluated.
        signals: Signal health after the latest epoch, if the crew is evaluated after it: name → (R,).
    """

    def __init__(
        self,
        network: Network,
        configs_R: Sequence[TrialConfig],
        places_R: NDArray[np.int64],
        inits_R: NDArray[np.int64],
        sets_R: NDArray[np.int64],
        sets: TrainingSets,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Draw the initial weights and stand before the first epoch.

        Raises:
            ValueError: The optimiser, the schedule or the initialisation is unknown.
        """
        self.configs_R, self.places_R, self.inits_R = list(configs_R), places_R, inits_R
        self.sets_R = torch.from_numpy(sets_R).to(device)
        self.config = self.configs_R[0]  # for what all of them share
        self.n_batches = -(-self.config.n_train // self.config.batch_size)
        self.epoch = self.step = self.evaluated = 0
        self.signals: dict[str, NDArray[np.float64]] = {}
        self._seed = seed
        self.pack = Pack.start(network, configs_R, inits_R.tolist(), seed=seed, device=device, dtype=dtype)
        self.dropout = Dropout([c.dropout for c in configs_R], inits_R.tolist(), seed=seed, device=device)
        self.augmentation = Augmentation(configs_R, inits_R.tolist(), seed=seed, device=device, dtype=dtype)
        self.criterion = Criterion.of(configs_R, sets.counts(self.sets_R), dtype)
        self.optimizer = Optimizer(configs_R, self.pack.theta_RP, n_steps=self.config.epochs * self.n_batches)
        patience_R = [c.patience for c in configs_R]
        self.stopping = Stopping(patience_R, self.pack) if any(patience_R) else None
        self.largest_R1: Tensor | None = None  # norm of a gradient, if any is clipped
        if any(c.clip_norm for c in configs_R):
            limits = [c.clip_norm or float("inf") for c in configs_R]
            self.largest_R1 = torch.tensor(limits, device=device, dtype=dtype)[:, None]
        self.l1_R1: Tensor | None = None
        if any(c.l1 for c in configs_R):
            self.l1_R1 = torch.tensor([c.l1 for c in configs_R], device=device, dtype=dtype)[:, None]
        self.averaging: Averaging | None = None
        if any(c.averaging != "none" for c in configs_R):
            self.averaging = Averaging(configs_R, self.pack.theta_RP, n_batches=self.n_batches)
        self.attack: Attack | None = None  # on the training images
        if self.config.adversarial != "none":
            epsilon_R = torch.tensor([c.epsilon for c in configs_R], device=device)
            self.attack = Attack(self.config.adversarial, sets.box(epsilon_R, self.sets_R))

    def __len__(self) -> int:
        return len(self.configs_R)

    def orders(self, epoch: int) -> Tensor:
        """Return the order in which each replica passes over its training set in an epoch, shape (R, N)."""
        streams, index_R = np.unique(self.inits_R, return_inverse=True)
        orders = [seeds.generator(self._seed, "order", int(i), epoch).permutation(self.config.n_train) for i in streams]
        return torch.from_numpy(np.stack(orders)[index_R]).to(self.sets_R.device)

    def keep(self, stays_R: NDArray[np.bool_]) -> None:
        """Go on with these replicas alone: the others cost nothing from now on."""
        rows_S = torch.from_numpy(np.flatnonzero(stays_R)).to(self.sets_R.device)
        self.configs_R = [config for config, stays in zip(self.configs_R, stays_R, strict=True) if stays]
        self.places_R, self.inits_R = self.places_R[stays_R], self.inits_R[stays_R]
        self.sets_R = self.sets_R.index_select(0, rows_S)
        self.pack = self.pack.take(rows_S)
        self.dropout.keep(rows_S)
        self.augmentation.keep(rows_S)
        self.criterion.keep(rows_S)
        self.optimizer.keep(rows_S, self.pack.theta_RP)
        if self.stopping is not None:
            self.stopping.keep(rows_S)
        if self.largest_R1 is not None:
            self.largest_R1 = self.largest_R1.index_select(0, rows_S)
        if self.l1_R1 is not None:
            self.l1_R1 = self.l1_R1.index_select(0, rows_S)
        self.signals = {}
        for member in (self.averaging, self.attack):
            if member is not None:
                member.keep(rows_S)

    def shown(self, sets: TrainingSets) -> Pack:
        """Return the replicas as they are to be evaluated: with the averages of their weights, if there are any."""
        if self.averaging is None:
            return self.pack
        shown = Pack(self.pack.network, self.averaging.mean_RP, self.pack.buffers)
        if shown.buffers:
            batches = sets.first(sets.n_train, self.sets_R).split(self.config.batch_size, dim=1)
            shown.buffers = recalibrated(shown.network, shown.weights, shown.buffers, batches)
        return shown

    def test_attack(self, sets: TrainingSets, rows_S: Tensor | None = None) -> Attack | None:
        """Return the attack that these replicas (or all) are to be measured under, if there is one."""
        epsilon_R = torch.tensor([c.attack_epsilon for c in self.configs_R], device=self.sets_R.device)
        if not epsilon_R.any():
            return None
        rows_S = torch.arange(len(self), device=self.sets_R.device) if rows_S is None else rows_S
        return Attack("pgd", sets.box(epsilon_R[rows_S], self.sets_R[rows_S]))

    def state(self) -> dict[str, Tensor]:
        """Return all that training goes on from, by name, without a copy: write it down before training goes on."""
        state = {
            "places": torch.from_numpy(self.places_R),
            "counts": torch.tensor([self.epoch, self.step, self.evaluated]),
            **self.pack.state(),
            **{f"moment.{name}": value for name, value in self.optimizer.moments.items()},
            **{f"signals.{name}": torch.from_numpy(value) for name, value in self.signals.items()},
        }
        if self.stopping is not None:
            state |= {f"stopping.{name}": value for name, value in self.stopping.state().items()}
        if self.averaging is not None:
            state |= {f"averaging.{name}": value for name, value in self.averaging.state().items()}
        return state

    def restore(self, state: State) -> None:
        """Go on from what `state` returned: a crew of the same replicas at its beginning, less those that left."""
        stayed = set(state["places"].tolist())
        self.keep(np.array([place in stayed for place in self.places_R.tolist()]))
        self.epoch, self.step, self.evaluated = state["counts"].tolist()
        self.signals = {name: value.numpy().copy() for name, value in part(state, "signals.").items()}
        for name, value in self.pack.state().items():
            value.copy_(state[name])
        for name, value in self.optimizer.moments.items():
            value.copy_(state[f"moment.{name}"])
        if self.stopping is not None:
            self.stopping.restore(part(state, "stopping."))
        if self.averaging is not None:
            self.averaging.restore(part(state, "averaging."))


def part(state: State, prefix: str) -> dict[str, Tensor]:
    """Return the entries whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
