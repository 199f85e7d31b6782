"""Errors and predictions of a pack on its training sets, the validation set and the test set.

Shape suffixes: R replicas, N examples, C classes, B batch.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data.datasets import Dataset
from lab.training import losses
from lab.training.attacks import Attack
from lab.training.losses import Array, Errors
from lab.training.pack import Pack
from lab.training.sets import TrainingSets

EVALUATION_VALUES = 2**22  # of the widest activation of all replicas in one evaluation call: 16 MB in float32


class Measured(NamedTuple):
    """One evaluation of R replicas.

    Attributes:
        splits: train, val and test → errors and probabilities (R, N, C), see `lab.training.losses.errors`. Also
            "attacked", the test set under attack, where it is measured.
        finite_R: Whether all weights are finite.
        signals: name → (R,), see `lab.training.health`.
    """

    splits: dict[str, tuple[Errors, Array]]
    finite_R: NDArray[np.bool_]
    signals: Mapping[str, Array]


def evaluation_epochs(n_epochs: int, n_evaluations: int) -> list[int]:
    """Return about `n_evaluations` log-spaced epochs from 1 to `n_epochs`, both included."""
    wanted = min(n_evaluations, n_epochs)
    for n_points in range(wanted, 50 * wanted):
        epochs = np.unique(np.rint(np.geomspace(1, n_epochs, n_points)).astype(int))
        if len(epochs) >= wanted:
            break
    return [int(epoch) for epoch in epochs]


@torch.no_grad()
def evaluate(
    pack: Pack,
    sets_R: Tensor,
    sets: TrainingSets,
    dataset: Dataset,
    *,
    attack: Attack | None = None,
    signals: Mapping[str, Array] | None = None,
) -> Measured:
    """Measure the replicas of a pack; `sets_R` says which training set each of them has."""
    every_RN = sets.positions(torch.arange(sets.n_train, device=sets_R.device)[None], sets_R)
    logits = [_logits(pack, sets.batch(every_RN[:, part])[0]) for part in _chunks(sets.n_train, pack)]
    train_labels_RN = sets.labels_DN[sets_R.cpu().numpy()]
    splits = {"train": losses.errors(torch.cat(logits, dim=1), train_labels_RN)}
    for split, pool in (("val", dataset.validation), ("test", dataset.test)):
        logits = [
            _logits(pack, sets.standardised(pool.images[part], sets_R)) for part in _chunks(len(pool.labels), pack)
        ]
        splits[split] = losses.errors(torch.cat(logits, dim=1), pool.labels[None])
    if attack is not None:
        logits = []
        for part in _chunks(len(dataset.test.labels), pack):
            images_RBCHW = sets.standardised(dataset.test.images[part], sets_R)
            labels_B = torch.from_numpy(dataset.test.labels[part]).to(sets_R.device)
            logits.append(_logits(pack, attack(pack, images_RBCHW, labels_B.expand(len(pack), -1))))
        splits["attacked"] = losses.errors(torch.cat(logits, dim=1), dataset.test.labels[None])
    return Measured(splits, pack.finite_R().cpu().numpy(), signals or {})


def _logits(pack: Pack, images_RBCHW: Tensor) -> Tensor:
    return pack.network.forward(pack.weights, pack.buffers, images_RBCHW, None)


def _chunks(n: int, pack: Pack) -> Iterator[slice]:
    size = max(1, EVALUATION_VALUES // (len(pack) * pack.network.widest))
    return (slice(start, start + size) for start in range(0, n, size))
