"""What is known of every replica of a trial at its latest evaluation.

Shape suffixes: D resamples, I initialisations, R = D·I replicas (replica r = d·I + i) of the trial, S some of them,
N examples, C classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.training.evaluation import Measured
from lab.training.losses import Errors

_BY_NAME = ("metrics", "probabilities_shifted", "signals", "weights")  # of an evaluation, arrays by name


@dataclass(frozen=True)
class Evaluation:
    """The replicas of a trial at the end of an epoch.

    Attributes:
        epoch: Counts from 1; the last is `config.epochs`.
        metrics: `{train,val,test}_{loss,risk,error}` → (R,) float64, means over examples; NaN for diverged replicas.
        log_probabilities_test_DINC: Predictions on the test set, float32; NaN for diverged replicas. Logarithms, as
            a probability that float32 rounds to 0 still has a cross-entropy.
        probabilities_val_DINC: Predictions on the validation set.
        diverged_R: Replicas whose weights or training loss have been infinite or NaN at this or an earlier evaluation.
        probabilities_shifted: The same on the test set under other conditions ("attacked", "corrupted" …), where they
            were measured; NaN for replicas that were not. `metrics` then has `{condition}_{loss,risk,error}` too.
        signals: name → (R,) of what `lab.training.health` measures; NaN for replicas that have stopped or diverged.
        weights: name → (R, …) of the networks that the last evaluation is of, running statistics included, and the
            `input.mean` and `input.std` of their training sets, if `Job.keep_weights`; NaN for diverged replicas.
    """

    epoch: int
    metrics: dict[str, NDArray[np.float64]]
    log_probabilities_test_DINC: NDArray[np.float32]
    probabilities_val_DINC: NDArray[np.float32]
    diverged_R: NDArray[np.bool_]
    probabilities_shifted: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    signals: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def probabilities_test_DINC(self) -> NDArray[np.float32]:
        """Predictions on the test set, float32; NaN for diverged replicas."""
        return np.exp(self.log_probabilities_test_DINC)


def state_of(evaluation: Evaluation) -> dict[str, Tensor]:
    """Return an evaluation, but for its epoch, as tensors by name, without a copy where that can be."""
    arrays: dict[str, NDArray] = {
        "log_probabilities_test": evaluation.log_probabilities_test_DINC,
        "probabilities_val": evaluation.probabilities_val_DINC,
        "diverged": evaluation.diverged_R,
    }
    for group in _BY_NAME:
        arrays |= {f"{group}.{name}": values for name, values in getattr(evaluation, group).items()}
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}


def restored(epoch: int, state: Mapping[str, Tensor]) -> Evaluation:
    """Return the evaluation that `state_of` took apart."""
    arrays = {name: value.numpy().copy() for name, value in state.items()}
    metrics, shifted, signals, weights = (
        {name.removeprefix(f"{group}."): values for name, values in arrays.items() if name.startswith(f"{group}.")}
        for group in _BY_NAME
    )
    predicted = arrays["log_probabilities_test"], arrays["probabilities_val"]
    return Evaluation(epoch, metrics, *predicted, arrays["diverged"], shifted, signals, weights)


class Scores:
    """The latest measurement of each replica; one that is not measured again keeps it, and one that diverged is NaN.

    Attributes:
        epoch: That of the latest evaluation that was given out, 0 before the first.
        diverged_R: Which replicas have ever not been finite.
        metrics: name → (R,), as in `Evaluation`.
        signals: The same of the signals of health.
        keeps_weights: Whether the weights of the last evaluation are wanted.
    """

    def __init__(self, shape: tuple[int, ...], *, keep_weights: bool = False) -> None:
        """Begin without a measurement; `shape` is (D, I), or (D, I, K) with several draws of the label noise."""
        n_replicas = math.prod(shape)
        self._shape, self.keeps_weights = shape, keep_weights
        self.epoch = 0
        self.diverged_R = np.zeros(n_replicas, dtype=bool)
        self.metrics = {
            f"{split}_{name}": np.full(n_replicas, np.nan)
            for split in ("train", "val", "test")
            for name in Errors._fields
        }
        self.signals: dict[str, NDArray[np.float64]] = {}
        self._log_probabilities: dict[str, NDArray[np.float32]] = {}
        self._weights: dict[str, NDArray[np.float32]] = {}

    def record(self, replicas_S: NDArray[np.int64], measured: Measured) -> None:
        """Replace what is known of these replicas; one that is not finite counts as diverged from now on."""
        finite_S = measured.finite_R.copy()
        for errors, log_probabilities in measured.splits.values():
            finite_S &= np.isfinite(errors.loss) & np.isfinite(log_probabilities).all(axis=(1, 2))
        self.diverged_R[replicas_S] |= ~finite_S
        gone_S = self.diverged_R[replicas_S]
        for split, (errors, log_probabilities) in measured.splits.items():
            for name, values in errors._asdict().items():
                known_R = self.metrics.setdefault(f"{split}_{name}", np.full(len(self.diverged_R), np.nan))
                known_R[replicas_S] = np.where(gone_S, np.nan, values)
            if split == "train":
                continue
            if split not in self._log_probabilities:
                shape = (len(self.diverged_R), *log_probabilities.shape[1:])
                self._log_probabilities[split] = np.full(shape, np.nan, dtype=np.float32)
            self._log_probabilities[split][replicas_S] = np.where(gone_S[:, None, None], np.nan, log_probabilities)
        for name, values in measured.signals.items():
            known_R = self.signals.setdefault(name, np.full(len(self.diverged_R), np.nan))
            known_R[replicas_S] = np.where(gone_S, np.nan, values)
        for name, values in measured.weights.items() if self.keeps_weights else ():
            shape = (len(self.diverged_R), *values.shape[1:])
            known = self._weights.setdefault(name, np.full(shape, np.nan, dtype=np.float32))
            known[replicas_S[~gone_S]] = values[~gone_S]

    def at(self, epoch: int, *, at_end: bool = True) -> Evaluation:
        """Return a copy of what is known, as the evaluation of this epoch; weights, if wanted, at the end alone."""
        self.epoch = epoch
        predicted = {
            split: log_probabilities.reshape(*self._shape, *log_probabilities.shape[1:]).copy()
            for split, log_probabilities in self._log_probabilities.items()
        }
        log_test = predicted.pop("test")
        predicted = {split: np.exp(log_probabilities) for split, log_probabilities in predicted.items()}
        metrics = {name: values.copy() for name, values in self.metrics.items()}
        signals, self.signals = self.signals, {}  # they are of one evaluation: who is not measured at the next has none
        return Evaluation(
            epoch, metrics, log_test, predicted.pop("val"), self.diverged_R.copy(), predicted, signals,
            dict(self._weights) if at_end else {},
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """Return all of it, without a copy."""
        arrays = {"epoch": np.array(self.epoch), "diverged": self.diverged_R, **self.metrics}
        arrays |= {f"log_probabilities.{split}": values for split, values in self._log_probabilities.items()}
        arrays |= {f"signals.{name}": values for name, values in self.signals.items()}
        arrays |= {f"weights.{name}": values for name, values in self._weights.items()}
        return {name: torch.from_numpy(values) for name, values in arrays.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        arrays = {name: value.numpy().copy() for name, value in state.items()}
        self.epoch, self.diverged_R = int(arrays.pop("epoch")), arrays.pop("diverged")
        self._log_probabilities, self.signals, self._weights = (
            {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}
            for prefix in ("log_probabilities.", "signals.", "weights.")
        )
        self.metrics = arrays
