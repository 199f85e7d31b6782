"""Averages of a replica's weights over its training, which are then what is evaluated.

`ema` is an exponential moving average over steps (Polyak & Juditsky 1992; the decay warms up, so that the initial
weights are soon forgotten), `swa` the mean over the ends of the last epochs (Izmailov et al. 2018). Both are one rule,
mean ← mean + share · (weights − mean), with shares that depend on the step alone, so nothing else has to be kept.

Running statistics of batch normalisation belong to the weights that were trained, not to their mean: `recalibrated`
measures them anew.

Shape suffixes: R replicas, S some of them, P parameters, B batch, K steps of an epoch; images are CHW.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lab.knobs import TrialConfig
from lab.models import Network
from lab.training.moment import Moment, stored


def share(config: TrialConfig, n_done: int, n_batches: int) -> float:
    """Return how much the weights after `n_done` steps count in the mean; an epoch has `n_batches` steps.

    Without averaging, and before `swa` begins, it is 1: the mean is the weights themselves.

    Raises:
        ValueError: The kind of averaging is unknown.
    """
    if config.averaging == "none":
        return 1.0
    if config.averaging == "ema":
        return 1 - min(config.ema_decay, (1 + n_done) / (10 + n_done))  # the warm-up of TensorFlow's moving average
    if config.averaging == "swa":
        first = max(1, math.ceil(config.swa_start * config.epochs))  # the first epoch whose end counts
        epoch, inside = divmod(n_done, n_batches)
        if epoch < first:
            return 1.0
        return 0.0 if inside else 1 / (epoch - first + 1)
    raise ValueError(f"unknown averaging {config.averaging!r}: choose none, ema or swa")


class Averaging:
    """The mean of the weights of each replica of a pack."""

    def __init__(self, configs_R: Sequence[TrialConfig], theta_RP: Tensor, *, n_batches: int) -> None:
        """Begin at the initial weights; the replicas share the number of epochs and of steps in one.

        Raises:
            ValueError: The kind of averaging is unknown.
        """
        for config in configs_R:
            share(config, 1, n_batches)
        self._configs_R, self._n_batches = list(configs_R), n_batches
        self.mean_RP = theta_RP.detach().clone()
        self._shares_K: list[list[float]] = []  # of the steps of an epoch, one a distinct configuration
        self._table_KR1: Tensor | None = None  # the same of every replica, on the device

    def begin(self, first_step: int) -> None:
        """Begin an epoch: moments of `update` now count from this step of the training."""
        n_done = range(first_step + 1, first_step + 1 + self._n_batches)
        distinct = list(dict.fromkeys(self._configs_R))
        self._shares_K = [[share(config, n, self._n_batches) for config in distinct] for n in n_done]
        index_R = torch.tensor([distinct.index(config) for config in self._configs_R])
        table_KR1 = torch.tensor(self._shares_K, dtype=self.mean_RP.dtype)[:, index_R, None]
        self._table_KR1 = stored(self._table_KR1, table_KR1, self.mean_RP.device)

    def update(self, theta_RP: Tensor, moment: Moment) -> None:
        """Take in the weights after the step of this moment."""
        if moment.counter is None and len(self._shares_K[moment.k]) == 1:
            self.mean_RP.lerp_(theta_RP, self._shares_K[moment.k][0])
        else:
            assert self._table_KR1 is not None
            self.mean_RP.lerp_(theta_RP, moment.of(self._table_KR1))

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        self._configs_R = [self._configs_R[r] for r in rows_S.tolist()]
        self.mean_RP = self.mean_RP.index_select(0, rows_S)

    def state(self) -> dict[str, Tensor]:
        """Return what training goes on from, without a copy."""
        return {"mean": self.mean_RP}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.mean_RP.copy_(state["mean"])


@torch.no_grad()
def recalibrated(
    network: Network, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Return the running statistics of batch normalisation under these weights: their means over batches.

    As torch.optim.swa_utils.update_bn, without dropout.

    Args:
        network: What the weights are of.
        weights: name → (R, *shape).
        buffers: name → (R, *shape); gives names and shapes.
        batches: Images (R, B, C, H, W) of the training sets.
    """
    momenta = {name: share for name in buffers if (share := network.statistics_momentum(name)) is not None}
    totals = {name: torch.zeros_like(buffers[name]) for name in momenta}
    n_batches = 0
    for images_RBCHW in batches:
        fresh = {name: value.clone() for name, value in buffers.items()} | {
            name: torch.zeros_like(total) for name, total in totals.items()
        }
        network.forward(weights, fresh, images_RBCHW, lambda layer, x, rate=None: x)
        for name, total in totals.items():
            total += fresh[name] / momenta[name]  # from 0, one update leaves this share of the batch's statistics
        n_batches += 1
    return {**buffers} | {name: total / n_batches for name, total in totals.items()}
