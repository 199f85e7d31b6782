"""Training: one configuration, D resamples × I seeds, evaluated at chosen epochs. Read it from top to bottom.

Shape suffixes: R = D·I replicas (replica r = d·I + i), N examples, C classes, B batch; images are CHW.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab import models, seeds
from lab.data.datasets import Dataset, Pool
from lab.data.resampling import draw_resample
from lab.data.transforms import standardisation, to_float
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import losses, optimizers
from lab.training.pack import Dropout, Pack

EVALUATION_VALUES = 2**22  # of the widest activation of all replicas in one evaluation call: 16 MB in float32


@dataclass(frozen=True)
class Evaluation:
    """The replicas of a trial at the end of an epoch.

    Attributes:
        epoch: Counts from 1; the last is `config.epochs`.
        metrics: `{train,val,test}_{loss,risk,error}` → (R,) float64, means over examples; NaN for diverged replicas.
        probabilities_test_DINC: Predictions on the test set, float32; NaN for diverged replicas.
        probabilities_val_DINC: The same on the validation set.
        diverged_R: Replicas whose weights or training loss have been infinite or NaN at this or an earlier evaluation.
    """

    epoch: int
    metrics: dict[str, NDArray[np.float64]]
    probabilities_test_DINC: NDArray[np.float32]
    probabilities_val_DINC: NDArray[np.float32]
    diverged_R: NDArray[np.bool_]


def evaluation_epochs(n_epochs: int, n_evaluations: int) -> list[int]:
    """Return about `n_evaluations` log-spaced epochs from 1 to `n_epochs`, both included."""
    wanted = min(n_evaluations, n_epochs)
    for n_points in range(wanted, 50 * wanted):
        epochs = np.unique(np.rint(np.geomspace(1, n_epochs, n_points)).astype(int))
        if len(epochs) >= wanted:
            break
    return [int(epoch) for epoch in epochs]


class _Resamples:
    """The training sets of all resamples on the device, each standardised with its own statistics."""

    def __init__(self, pools: list[Pool], device: torch.device, dtype: torch.dtype) -> None:
        statistics = [standardisation(pool.images) for pool in pools]
        self._shift_DC11 = torch.tensor(np.stack([mean for mean, _ in statistics]), device=device, dtype=dtype)
        self._scale_DC11 = torch.tensor(np.stack([std for _, std in statistics]), device=device, dtype=dtype)
        self._shift_DC11 = self._shift_DC11[:, :, None, None]
        self._scale_DC11 = self._scale_DC11[:, :, None, None]
        self._device, self._dtype = device, dtype
        self.n_train = len(pools[0].labels)
        self.labels_DN = np.stack([pool.labels for pool in pools])
        self.images = torch.cat([self.standardised(pool.images, d)[0] for d, pool in enumerate(pools)])
        self.labels = torch.from_numpy(self.labels_DN.ravel()).to(device)

    def standardised(self, images: NDArray, resamples: int | Tensor) -> Tensor:
        """Return images (N, C, H, W) as each of the resamples' learners sees them, shape (D, N, C, H, W)."""
        index = torch.as_tensor(resamples, device=self._device).reshape(-1)
        x = torch.from_numpy(to_float(images)).to(self._device, self._dtype)
        return (x - self._shift_DC11[index, None]) / self._scale_DC11[index, None]

    def batch(self, index_RB: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (R, B, C, H, W) and labels (R, B) of positions in the concatenated training sets."""
        flat = index_RB.reshape(-1)
        images = self.images.index_select(0, flat).view(*index_RB.shape, *self.images.shape[1:])
        return images, self.labels.index_select(0, flat).view(index_RB.shape)


def count_parameters(config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> int:
    """Return the number of trained values of one network of this configuration."""
    return models.build(config, image_shape, n_classes).n_parameters


def fit(
    config: TrialConfig,
    dataset: Dataset,
    replication: Replication,
    *,
    seed: int,
    first_resample: int = 0,
    first_init: int = 0,
    n_evaluations: int = 20,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[Evaluation]:
    """Train all replicas of a configuration and yield an evaluation at about `n_evaluations` log-spaced epochs.

    Replica r = d·I + i is trained on resample `first_resample + d` from init stream `first_init + i`. Its result does
    not depend on which other replicas are trained with it.

    Raises:
        ValueError: The configuration cannot be built, or the scheme needs more examples than there are.
    """
    D, I = replication.n_resamples, replication.n_inits  # noqa: E741 - the letters of the shape legend
    target = torch.device(device)
    resamples_D = range(first_resample, first_resample + D)
    inits_R = [first_init + i for _ in range(D) for i in range(I)]
    pools = [
        draw_resample(dataset, replication.scheme, n_train=config.n_train, n_blocks=D, seed=seed, index=d)
        for d in resamples_D
    ]
    data = _Resamples(pools, target, dtype)
    network = models.build(config, dataset.image_shape, dataset.n_classes)
    pack = Pack(network, inits_R, seed=seed, device=target, dtype=dtype)
    dropout = Dropout(config, inits_R, seed=seed, device=target)
    optimizer = optimizers.build(config, pack.theta_RP)

    resample_R = torch.arange(D, device=target).repeat_interleave(I)
    diverged_R = np.zeros(D * I, dtype=bool)
    n_steps = config.epochs * -(-config.n_train // config.batch_size)
    evaluate_after = set(evaluation_epochs(config.epochs, n_evaluations))
    step = 0
    for epoch in range(1, config.epochs + 1):
        order_RN = _orders(seed, range(first_init, first_init + I), epoch, config.n_train, target).repeat(D, 1)
        order_RN += resample_R[:, None] * config.n_train
        for start in range(0, config.n_train, config.batch_size):
            images_RBCHW, labels_RB = data.batch(order_RN[:, start : start + config.batch_size])
            dropout.step = step
            optimizers.set_learning_rate(optimizer, optimizers.learning_rate(config, step, n_steps))
            _one_step(pack, optimizer, dropout, images_RBCHW, labels_RB)
            step += 1
        if epoch in evaluate_after:
            evaluation = _evaluate(epoch, pack, data, dataset, resample_R, diverged_R, (D, I))
            diverged_R = evaluation.diverged_R
            yield evaluation


def _orders(seed: int, inits: range, epoch: int, n_train: int, device: torch.device) -> Tensor:
    """Return the order in which each init stream passes over its training set in an epoch, shape (I, n_train)."""
    orders = [seeds.generator(seed, "order", i, epoch).permutation(n_train) for i in inits]
    return torch.from_numpy(np.stack(orders)).to(device)


def _one_step(
    pack: Pack, optimizer: torch.optim.Optimizer, dropout: Dropout, images_RBCHW: Tensor, labels_RB: Tensor
) -> None:
    """Update every replica once, on its own batch."""
    logits_RBC = pack.network.forward(pack.weights, pack.buffers, images_RBCHW, dropout)
    pack.differentiate(losses.summed_cross_entropy(logits_RBC, labels_RB))
    optimizer.step()


@torch.no_grad()
def _logits(pack: Pack, images_RNCHW: Tensor) -> Tensor:
    return pack.network.forward(pack.weights, pack.buffers, images_RNCHW, None)


def _chunks(n: int, pack: Pack) -> Iterator[slice]:
    size = max(1, EVALUATION_VALUES // (len(pack.theta_RP) * pack.network.widest))
    return (slice(start, start + size) for start in range(0, n, size))


def _evaluate(
    epoch: int,
    pack: Pack,
    data: _Resamples,
    dataset: Dataset,
    resample_R: Tensor,
    diverged_before_R: NDArray[np.bool_],
    shape: tuple[int, int],
) -> Evaluation:
    positions_RN = resample_R[:, None] * data.n_train + torch.arange(data.n_train, device=resample_R.device)
    logits = [_logits(pack, data.batch(positions_RN[:, part])[0]) for part in _chunks(data.n_train, pack)]
    train_labels_RN = data.labels_DN[resample_R.cpu().numpy()]
    splits = {"train": losses.errors(torch.cat(logits, dim=1), train_labels_RN)}
    for split, pool in (("val", dataset.validation), ("test", dataset.test)):
        logits = [
            _logits(pack, data.standardised(pool.images[part], resample_R)) for part in _chunks(len(pool.labels), pack)
        ]
        splits[split] = losses.errors(torch.cat(logits, dim=1), pool.labels[None])

    finite_R = pack.finite_R().cpu().numpy()
    for errors, probabilities in splits.values():
        finite_R &= np.isfinite(errors.loss) & np.isfinite(probabilities).all(axis=(1, 2))
    diverged_R = diverged_before_R | ~finite_R
    metrics = {
        f"{split}_{name}": np.where(diverged_R, np.nan, values)
        for split, (errors, _) in splits.items()
        for name, values in errors._asdict().items()
    }
    test_DINC, val_DINC = (
        np.where(diverged_R[:, None, None], np.nan, splits[split][1])
        .reshape(*shape, -1, dataset.n_classes)
        .astype(np.float32)
        for split in ("test", "val")
    )
    return Evaluation(epoch, metrics, test_DINC, val_DINC, diverged_R)
