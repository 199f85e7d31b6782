"""Batches: which examples of its training set a replica sees at every step of an epoch.

Shape suffixes: R replicas, S some of them, U init streams, N examples, B batch, K batches of an epoch.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab import seeds
from lab.training.moment import Moment, stored
from lab.training.sets import TrainingSets


class Batches:
    """Every replica passes over its training set once an epoch, in the order of its init stream.

    Attributes:
        n: Batches of an epoch; the last may be smaller than the others.
    """

    def __init__(self, inits_R: NDArray[np.int64], sets_R: Tensor, sets: TrainingSets, *, size: int, seed: int) -> None:
        """Take the init streams of the replicas, their training sets (on the device) and the examples of a batch."""
        self._sets_R, self._sets = sets_R, sets
        streams_U, index_R = np.unique(inits_R, return_inverse=True)
        self._streams_U, self._index_R = streams_U.tolist(), torch.from_numpy(index_R).to(sets_R.device)
        self._size, self._seed = size, seed
        self.n = -(-sets.n_train // size)
        self._full_KRB: Tensor | None = None  # positions of the examples of the epoch's batches of full size
        self._rest_RB: Tensor | None = None  # and of those that are left, if any

    def begin(self, epoch: int) -> None:
        """Lay out the batches of an epoch, the first of which is 1."""
        device, size = self._sets_R.device, self._size
        order_RN = self._sets.positions(self._orders(epoch), self._sets_R)
        n_full = order_RN.shape[1] // size
        full_KRB = order_RN[:, : n_full * size].unflatten(1, (n_full, size)).transpose(0, 1).contiguous()
        self._full_KRB = stored(self._full_KRB, full_KRB, device)
        self._rest_RB = stored(self._rest_RB, order_RN[:, n_full * size :], device)

    def at(self, moment: Moment) -> Tensor:
        """Return the positions of each replica's batch in the training sets, shape (R, B)."""
        assert self._full_KRB is not None
        assert self._rest_RB is not None
        return moment.of(self._full_KRB) if moment.k < len(self._full_KRB) else self._rest_RB

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone, from the next `begin` on."""
        self._index_R = self._index_R.index_select(0, rows_S)
        self._sets_R = self._sets_R.index_select(0, rows_S)

    def _orders(self, epoch: int) -> Tensor:
        """Return the order in which each replica passes over its training set in an epoch, shape (R, N)."""
        n = self._sets.n_train
        orders = [seeds.generator(self._seed, "order", i, epoch).permutation(n) for i in self._streams_U]
        order_UN = torch.from_numpy(np.stack(orders)).to(self._sets_R.device)
        return order_UN.index_select(0, self._index_R)  # on the device: what goes there is one order a stream
