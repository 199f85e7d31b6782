"""A crew: replicas that are trained together, and all that their training goes on from.

Shape suffixes: R replicas of the crew, S some of them, N examples, B batch.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data import corruption
from lab.data.pool import Dataset, Pool
from lab.models import Network
from lab.training import features, strategy
from lab.training.attacks import Attack
from lab.training.augment import Augmentation
from lab.training.averaging import Averaging, recalibrated
from lab.training.batches import Batches
from lab.training.dropout import Dropout
from lab.training.feature_store import FeatureStore
from lab.training.features import Features, Known
from lab.training.graphs import Graphs
from lab.training.losses import Criterion
from lab.training.members import Members
from lab.training.moment import Moment
from lab.training.optimizers import Optimizer
from lab.training.pack import Pack
from lab.training.sets import TrainingSets
from lab.training.stopping import Stopping

State = Mapping[str, Tensor]


class Crew:
    """R replicas in one pack, the narrower filled up to the network of the pack (lab.training.padding).

    Attributes:
        members: Who they are.
        config: The configuration of the first of them, for what all of them share.
        sets_R: Their training sets, on the device.
        epoch: Epochs that are done.
        evaluated: The latest epoch after which the crew was evaluated.
        n_batches: Optimiser steps of an epoch.
        signals: Signal health after the latest epoch, if the crew is evaluated after it: name → (R,).
    """

    def __init__(
        self,
        network: Network,
        members: Members,
        sets: TrainingSets,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        store: FeatureStore | None = None,
    ) -> None:
        """Draw the initial weights and stand before the first epoch.

        Raises:
            ValueError: The optimiser, the schedule or the initialisation is unknown.
        """
        configs_R, inits_R = members.configs_R, members.inits_R.tolist()
        self.members, self.config = members, configs_R[0]
        self.sets_R = torch.from_numpy(members.sets_R).to(device)
        self.batches = Batches(members.inits_R, self.sets_R, sets, size=self.config.batch_size, seed=seed)
        self.n_batches = self.batches.n
        self.epoch = self.evaluated = 0
        self.signals: dict[str, NDArray[np.float64]] = {}
        self._sets = sets
        self._start = functools.partial(Crew, network, sets=sets, seed=seed, device=device, dtype=dtype, store=store)
        networks_R = members.networks_R
        self.pack = Pack.start(
            network, configs_R, inits_R, seed=seed, device=device, dtype=dtype, networks_R=networks_R
        )  # fmt: skip
        self.dropout = Dropout(
            [c.dropout for c in configs_R], inits_R, seed=seed, device=device,
            channel_rates_R=[c.spatial_dropout for c in configs_R],
            filled_R=[network.config.width - own.config.width for own in networks_R],
        )  # fmt: skip
        self.augmentation = Augmentation(configs_R, inits_R, seed=seed, device=device, dtype=dtype)
        self.criterion = Criterion.of(configs_R, sets.counts(self.sets_R), dtype)
        self.optimizer = Optimizer(
            configs_R, self.pack.theta_RP, n_steps=self.config.epochs * self.n_batches, head=self.pack.head()
        )
        self.features: Features | None = None
        if self.pack.network.n_frozen:
            is_standardised = self.config.normalize == "training"
            origins_R = self.pack.frozen.origins_R
            store = store if network.why_alone is not None else None  # the lab's own blocks are about as fast as a disk
            self.features = Features(origins_R, self.sets_R, is_standardised=is_standardised, store=store)
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
        # a module of the user's may ask the host, which a graph forbids
        self.graphs = Graphs(device) if device.type == "cuda" and not network.is_own else None
        self.known: Known | None = None  # features of the training sets
        self.saves = device.type == "cuda"  # where running out of memory is an exception and not the end
        self._saved: State | None = None

    def __len__(self) -> int:
        return len(self.members)

    def begin_epoch(self) -> None:
        """Lay out what the steps of the next epoch read: batches, dropout keys, learning rates."""
        first_step = self.epoch * self.n_batches
        self.dropout.begin(first_step, self.n_batches)
        self.augmentation.begin(first_step, self.n_batches)
        self.optimizer.begin(first_step, self.n_batches)
        if self.averaging is not None:
            self.averaging.begin(first_step)
        self.batches.begin(self.epoch + 1)
        self.known = self._known()

    def _known(self) -> Known | None:
        """Return the features of each replica's training set, None if images go through all blocks."""
        if self.features is None or not self.augmentation.is_off or self.attack is not None:
            return None
        every_1N = torch.arange(self._sets.n_train, device=self.sets_R.device)[None]

        def images(rows: slice, part: slice) -> Tensor:
            return self._sets.batch(self._sets.positions(every_1N[:, part], self.sets_R[rows]))[0]

        return self.features.of("train", self._sets.n_train, self.pack.view(slice(None)), images)

    def known_batch(self, moment: Moment) -> Tensor | None:
        """Return the features (R, B, …) of each replica's batch, None where they are not known."""
        if self.known is None:
            return None
        return self.known.batch(self.batches.at(moment) - self.sets_R[:, None] * self._sets.n_train)

    def keep(self, stays_R: NDArray[np.bool_]) -> None:
        """Go on with these replicas alone: the others cost nothing from the next epoch on."""
        rows = np.flatnonzero(stays_R)
        rows_S = torch.from_numpy(rows).to(self.sets_R.device)
        self.members = self.members.take(rows)
        self.sets_R = self.sets_R.index_select(0, rows_S)
        self.pack = self.pack.take(rows_S)
        self.batches.keep(rows_S)
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
        for member in (self.averaging, self.attack, self.features):
            if member is not None:
                member.keep(rows_S)
        if self.graphs is not None:
            self.graphs = Graphs(self.sets_R.device)

    def shown(self) -> Pack:
        """Return the replicas as they are to be evaluated: with the averages of their weights, if there are any."""
        if self.averaging is None:
            return self.pack
        shown = Pack(self.pack.network, self.averaging.mean_RP, self.pack.buffers, self.pack.frozen)
        if shown.buffers:
            batches = self._sets.first(self._sets.n_train, self.sets_R).split(self.config.batch_size, dim=1)
            shown.buffers = recalibrated(shown.network, shown.weights, shown.buffers, batches)
        return shown

    def corrupted(self, points: Pool) -> dict[str, Pool]:
        """Return condition → the points under the corruptions that these replicas are to be measured under."""
        return corruption.pools(points, self.config.corruption, self.config.severity)

    def test_attacks(self, rows_S: Tensor | None = None) -> dict[str, Attack]:
        """Return condition → the attack that these replicas (or all) are to be measured under, if there are any.

        One is "attacked"; several of evenly rising strengths are "attacked_1", "attacked_2" …
        """
        epsilon_R = np.array([c.attack_epsilon for c in self.members.configs_R])
        if not epsilon_R.any():
            return {}
        device = self.sets_R.device
        rows_S = torch.arange(len(self), device=device) if rows_S is None else rows_S
        n, attacks = self.config.attack_strengths, {}
        for k in range(1, n + 1):
            # rounded once, as the strength of a trial that has it alone
            share_R = torch.tensor(epsilon_R * (k / n), dtype=torch.float32, device=device)
            box = self._sets.box(share_R[rows_S], self.sets_R[rows_S])
            attacks["attacked" if n == 1 else f"attacked_{k}"] = Attack("pgd", box)
        return attacks

    def state(self) -> dict[str, Tensor]:
        """Return all that training goes on from, by name, without a copy: write it down before training goes on.

        Every tensor has a leading replica axis, except `counts`.
        """
        state = {
            "places": torch.from_numpy(self.members.places_R),
            "counts": torch.tensor([self.epoch, self.evaluated]),
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
        """Go on from what `state` returned of the same replicas."""
        assert state["places"].tolist() == self.members.places_R.tolist()
        self.epoch, self.evaluated = state["counts"].tolist()
        self.signals = {name: value.numpy().copy() for name, value in part(state, "signals.").items()}
        for name, value in self.pack.state().items():
            value.copy_(state[name])
        for name, value in self.optimizer.moments.items():
            value.copy_(state[f"moment.{name}"])
        if self.stopping is not None:
            self.stopping.restore(part(state, "stopping."))
        if self.averaging is not None:
            self.averaging.restore(part(state, "averaging."))
        self._saved = state if self.saves else None

    def save(self) -> None:
        """Keep a copy of the state on the host, for `halves`, where that may be needed."""
        if self.saves:
            self._saved = {name: value.to("cpu", copy=True) for name, value in self.state().items()}

    def halves(self) -> "list[Crew]":
        """Return two crews of half the replicas each, as they were when last saved, else at the beginning.

        This one is at its end: its tensors are released first.
        """
        for name in (
            "pack", "optimizer", "batches", "dropout", "augmentation", "criterion", "stopping", "averaging", "attack",
            "graphs", "features",
        ):  # fmt: skip
            delattr(self, name)
        self.known = None
        if self.sets_R.device.type == "cuda":
            torch.cuda.empty_cache()
        crews = []
        for rows in np.array_split(np.arange(len(self)), 2):
            crew = self._start(self.members.take(rows))
            if self._saved is not None:
                crew.restore(rows_of(self._saved, torch.from_numpy(rows)))
            crews.append(crew)
        return crews


def rows_of(state: State, rows_S: Tensor) -> dict[str, Tensor]:
    """Return the part of the state of a crew that is about these replicas."""
    return {
        name: value if name == "counts" else value.index_select(0, rows_S.to(value.device))
        for name, value in state.items()
    }


def part(state: State, prefix: str) -> dict[str, Tensor]:
    """Return the entries whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def crews_of(
    network: Network,
    members: Members,
    sets: TrainingSets,
    dataset: Dataset,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    pack_size: int | None = None,
    resume: State | None = None,
    on_event: Callable[[str], None] | None = None,
    features_in: Path | None = None,
) -> list[Crew]:
    """Return the replicas in the packs that they are trained in; arguments as of `fit_many`."""
    sizes = [sets.n_train, len(dataset.validation), len(dataset.test)]
    store = None if features_in is None else FeatureStore(features_in)
    known = features.n_bytes(network, dataset.image_shape, sizes)
    if network.why_alone is not None and not (network.is_head_alone and known) and on_event is not None:
        family = network.config.family
        on_event(f"family {family}: its replicas are trained one after the other, because {network.why_alone}")
    return [
        Crew(network, members.take(rows), sets, seed=seed, device=device, dtype=dtype, store=store)
        for rows in _crew_rows(len(members), pack_size or strategy.pack_size(network, device, known=known), resume)
    ]


def _crew_rows(n_replicas: int, pack_size: int, resume: State | None) -> list[np.ndarray]:
    """Return which replicas form a crew: as they did when the state was taken, else packs of about equal size."""
    if resume is None:
        return np.array_split(np.arange(n_replicas), -(-n_replicas // pack_size))
    n_crews = sum(name.endswith(".places") for name in resume)
    return [resume[f"crew{k}.places"].numpy() for k in range(n_crews)]
