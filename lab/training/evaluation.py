"""Errors and predictions of a pack on its training sets, the validation set and the test set.

Shape suffixes: R replicas, N examples, C classes, B batch.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data.pool import Dataset, Pool
from lab.training import losses
from lab.training.attacks import Attack
from lab.training.features import Features, Images, Known
from lab.training.losses import Array, Errors
from lab.training.pack import Pack
from lab.training.sets import TrainingSets

EVALUATION_VALUES = 2**22  # of the widest activation of all replicas in one evaluation call: 16 MB in float32
GPU_EVALUATION_VALUES = 2**26  # the same on a GPU, which has no cache to stay in and many cores to fill: 256 MB
PIECE, GPU_PIECE = 128, 512  # examples of one evaluation call, at the most


class Measured(NamedTuple):
    """One evaluation of R replicas.

    Attributes:
        splits: train, val and test → errors and log probabilities (R, N, C), see `lab.training.losses.errors`. Also
            the conditions of `attacks` and of `corrupted`, where they are measured.
        finite_R: Whether all weights are finite.
        signals: name → (R,), see `lab.training.health`.
        weights: name → (R, …) of what was measured, where they are kept, see `Evaluation.weights`.
    """

    splits: dict[str, tuple[Errors, Array]]
    finite_R: NDArray[np.bool_]
    signals: Mapping[str, Array]
    weights: Mapping[str, NDArray[np.float32]] = MappingProxyType({})

    def take(self, rows_S: NDArray[np.int64]) -> "Measured":
        """Return what was measured of these replicas."""
        if len(rows_S) == len(self.finite_R):
            return self
        splits = {
            name: (Errors(*(values[rows_S] for values in errors)), probabilities[rows_S])
            for name, (errors, probabilities) in self.splits.items()
        }
        signals = {name: values[rows_S] for name, values in self.signals.items()}
        weights = {name: values[rows_S] for name, values in self.weights.items()}
        return Measured(splits, self.finite_R[rows_S], signals, weights)


def evaluation_epochs(n_epochs: int, n_evaluations: int) -> list[int]:
    """Return about `n_evaluations` log-spaced epochs from 1 to `n_epochs`, both included; of one, it is the last."""
    wanted = min(n_evaluations, n_epochs)
    if wanted == 1:
        return [n_epochs]
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
    attacks: Mapping[str, Attack] | None = None,
    corrupted: Mapping[str, Pool] | None = None,
    signals: Mapping[str, Array] | None = None,
    keep_weights: bool = False,
    features: Features | None = None,
) -> Measured:
    """Measure the replicas of a pack; `sets_R` says which training set each of them has.

    Under attacks on the test images, and on corrupted ones (both by condition), if these are given. `keep_weights`
    adds a copy of the weights. `features` are those of the frozen blocks, if there are any: what is not there yet is
    added.
    """
    every_1N = torch.arange(sets.n_train, device=sets_R.device)[None]

    def train(rows: slice, part: slice) -> Tensor:
        return sets.batch(sets.positions(every_1N[:, part], sets_R[rows]))[0]

    def pixels_of(pool: Pool) -> Callable[[], Tensor]:
        """Return what gives the images of a pool: on the device from the first call on, if they are looked at."""
        return functools.cache(functools.partial(sets.pixels, pool.images))

    def held_out(pixels: Callable[[], Tensor], rows: slice, part: slice) -> Tensor:
        return sets.standardised(pixels()[part], sets_R[rows])

    def attacked(attack: Attack, pixels: Callable[[], Tensor], labels_N: Tensor, rows: slice, part: slice) -> Tensor:
        images_RBCHW = held_out(pixels, rows, part)
        return attack.view(rows)(pack.view(rows), images_RBCHW, labels_N[part].expand(len(images_RBCHW), -1))

    def known(name: str, n: int, images: Images) -> Known | None:
        return None if features is None else features.of(name, n, pack.view(slice(None)), images)

    pools = {"val": dataset.validation, "test": dataset.test, **(corrupted or {})}
    logits_RNC = _logits(pack, sets.n_train, train, known("train", sets.n_train, train))
    splits = {"train": losses.errors(logits_RNC, sets.labels_DN[sets_R.cpu().numpy()])}
    for split, pool in pools.items():
        # whole to the device, and one pool after the other: halving a pack would not make room for more
        images = functools.partial(held_out, pixels_of(pool))
        logits_RNC = _logits(pack, len(pool.labels), images, known(split, len(pool.labels), images))
        splits[split] = losses.errors(logits_RNC, pool.labels[None])
        del images
    if attacks:
        test, labels_N = pixels_of(dataset.test), torch.from_numpy(dataset.test.labels).to(sets_R.device)
        for condition, attack in attacks.items():
            images = functools.partial(attacked, attack, test, labels_N)
            logits_RNC = _logits(pack, len(dataset.test.labels), images)
            splits[condition] = losses.errors(logits_RNC, dataset.test.labels[None])
    weights = pack.tensors() | sets.statistics(sets_R) if keep_weights else {}
    kept = {name: _copied(value) for name, value in weights.items()}
    return Measured(splits, pack.finite_R().cpu().numpy(), signals or {}, kept)


def _copied(value: Tensor) -> NDArray[np.float32]:
    """Return a copy of values (R, …) on the host; what all replicas share, as one start of a trunk, is copied once."""
    is_shared = len(value) > 1 and value.stride(0) == 0
    copied = (value[:1] if is_shared else value).to("cpu", torch.float32, copy=True).numpy()
    return np.broadcast_to(copied, tuple(value.shape))


def _logits(pack: Pack, n: int, images: Images, known: Known | None = None) -> Tensor:
    """Return logits (R, n, C) of `images(replicas, examples)`, a piece at a time; from their features if given.

    How many examples a piece has depends on the network and the device alone, so that rounding does not depend on the
    pack; and all pieces have equally many replicas, so that it does not depend on the place in the pack.
    """
    is_on_gpu = pack.theta_RP.device.type == "cuda"
    most = GPU_EVALUATION_VALUES if is_on_gpu else EVALUATION_VALUES
    n_examples = max(1, min(n, GPU_PIECE if is_on_gpu else PIECE, most // pack.network.widest))
    n_rows = max(1, most // (n_examples * pack.network.widest))
    parts = [slice(start, start + n_examples) for start in range(0, n, n_examples)]
    by_rows = []
    for done in range(0, len(pack), n_rows):
        first = max(0, min(done, len(pack) - n_rows))
        rows = slice(first, first + n_rows)
        network, weights, buffers = pack.view(rows)
        pieces = []
        for part in parts:
            if known is None:
                x = network.features(weights, images(rows, part))
            else:
                x = network.enter(known.of(rows, part))
            pieces.append(network.onward(x, weights, buffers, None))
        by_rows.append(torch.cat(pieces, 1)[done - first :])
    return torch.cat(by_rows)
