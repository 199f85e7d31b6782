"""Early stopping, for each replica by itself.

Shape suffixes: R replicas of a pack, S some of them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.training.pack import Pack


class Stopping:
    """The lowest validation risk that each replica of a pack has had, and a copy of the weights that had it."""

    def __init__(self, patience_R: Sequence[int], pack: Pack) -> None:
        """Take the patience of each replica, in evaluations; one with a patience of 0 never stops."""
        self._patience_R = np.array(patience_R)
        self._lowest_R = np.full(len(pack), np.inf)
        self._n_worse_R = np.zeros(len(pack), dtype=np.int64)
        self._network, self._frozen = pack.network, pack.frozen
        self._best = {name: value.clone() for name, value in pack.state().items()}

    def update(
        self, pack: Pack, risk_R: NDArray[np.float64], diverged_R: NDArray[np.bool_], *, at_end: bool
    ) -> NDArray[np.bool_]:
        """Take note of an evaluation and return which replicas go back to their best weights and stop here.

        A replica stops when its risk has not fallen below its lowest for as many evaluations in a row as its patience,
        and at the end. Equal risk is not lower, so the earliest of equals is the best.
        """
        better_R = risk_R < self._lowest_R  # False for NaN
        self._lowest_R = np.where(better_R, risk_R, self._lowest_R)
        self._n_worse_R = np.where(better_R, 0, self._n_worse_R + 1)
        if better_R.any():
            rows_S = torch.from_numpy(np.flatnonzero(better_R)).to(pack.theta_RP.device)
            for name, value in pack.state().items():
                self._best[name].index_copy_(0, rows_S, value.index_select(0, rows_S))
        return (self._patience_R > 0) & ~diverged_R & ((self._n_worse_R >= self._patience_R) | at_end)

    def best(self, rows_S: Tensor) -> Pack:
        """Return these replicas as they were at their best evaluations."""
        taken = {name: value.index_select(0, rows_S) for name, value in self._best.items()}
        buffers = {name.removeprefix("buffer."): value for name, value in taken.items() if name != "theta"}
        return Pack(self._network, taken["theta"], buffers, self._frozen.take(rows_S))

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        rows = rows_S.cpu().numpy()
        self._patience_R, self._lowest_R = self._patience_R[rows], self._lowest_R[rows]
        self._n_worse_R = self._n_worse_R[rows]
        self._best = {name: value.index_select(0, rows_S) for name, value in self._best.items()}
        self._frozen = self._frozen.take(rows_S)

    def state(self) -> dict[str, Tensor]:
        """Return what training goes on from, without a copy."""
        counts = {"lowest": torch.from_numpy(self._lowest_R), "n_worse": torch.from_numpy(self._n_worse_R)}
        return counts | {f"best.{name}": value for name, value in self._best.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._lowest_R, self._n_worse_R = state["lowest"].cpu().numpy().copy(), state["n_worse"].cpu().numpy().copy()
        for name, value in self._best.items():
            value.copy_(state[f"best.{name}"])
