"""What is known of every replica of a trial at its latest evaluation.

Shape suffixes: D resamples, I initialisations, R = D·I replicas (replica r = d·I + i) of the trial, S some of them,
N examples, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.training.evaluation import Measured
from lab.training.losses import Errors


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


class Scores:
    """The latest measurement of each replica; one that is not measured again keeps it, and one that diverged is NaN.

    Attributes:
        epoch: That of the latest evaluation that was given out, 0 before the first.
        diverged_R: Which replicas have ever not been finite.
        metrics: name → (R,), as in `Evaluation`.
    """

    def __init__(self, n_resamples: int, n_inits: int) -> None:
        n_replicas = n_resamples * n_inits
        self._shape = (n_resamples, n_inits)
        self.epoch = 0
        self.diverged_R = np.zeros(n_replicas, dtype=bool)
        self.metrics = {
            f"{split}_{name}": np.full(n_replicas, np.nan)
            for split in ("train", "val", "test")
            for name in Errors._fields
        }
        self._probabilities: dict[str, NDArray[np.float32]] = {}

    def record(self, replicas_S: NDArray[np.int64], measured: Measured) -> None:
        """Replace what is known of these replicas; one that is not finite counts as diverged from now on."""
        finite_S = measured.finite_R.copy()
        for errors, probabilities in measured.splits.values():
            finite_S &= np.isfinite(errors.loss) & np.isfinite(probabilities).all(axis=(1, 2))
        self.diverged_R[replicas_S] |= ~finite_S
        gone_S = self.diverged_R[replicas_S]
        for split, (errors, probabilities) in measured.splits.items():
            for name, values in errors._asdict().items():
                self.metrics[f"{split}_{name}"][replicas_S] = np.where(gone_S, np.nan, values)
            if split == "train":
                continue
            if split not in self._probabilities:
                shape = (len(self.diverged_R), *probabilities.shape[1:])
                self._probabilities[split] = np.full(shape, np.nan, dtype=np.float32)
            self._probabilities[split][replicas_S] = np.where(gone_S[:, None, None], np.nan, probabilities)

    def at(self, epoch: int) -> Evaluation:
        """Return a copy of what is known, as the evaluation of this epoch."""
        self.epoch = epoch
        test_DINC, val_DINC = (
            self._probabilities[split].reshape(*self._shape, *self._probabilities[split].shape[1:]).copy()
            for split in ("test", "val")
        )
        metrics = {name: values.copy() for name, values in self.metrics.items()}
        return Evaluation(epoch, metrics, test_DINC, val_DINC, self.diverged_R.copy())

    def state(self) -> dict[str, Tensor]:
        """Return all of it, without a copy."""
        arrays = {"epoch": np.array(self.epoch), "diverged": self.diverged_R, **self.metrics}
        arrays |= {f"probabilities.{split}": values for split, values in self._probabilities.items()}
        return {name: torch.from_numpy(values) for name, values in arrays.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        arrays = {name: value.numpy().copy() for name, value in state.items()}
        self.epoch, self.diverged_R = int(arrays.pop("epoch")), arrays.pop("diverged")
        self._probabilities = {
            name.removeprefix("probabilities."): arrays.pop(name) for name in list(arrays) if "." in name
        }
        self.metrics = arrays
