"""Signal health of the replicas (lab.training.health): the table through training, and what is flagged of it.

A replica's gradient vanishes if, at the first evaluation, the gradient of its first layer is a thousandth of that of
its last or less, and explodes if it is a thousand times as large or more (root mean squares over the weights of a
layer; Glorot & Bengio 2010 compare layers in this way). The first evaluation shows how the signal started.

Shape suffixes: R replicas, L layers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Signals = Mapping[str, Array]  # "signal:<what>:<layer>" → (R,), NaN for replicas that were not measured

PREFIX = "signal:"
COLUMNS = ("epoch", "signal", "layer", "position", "mean", "low", "high", "n_replicas")
VANISHING, EXPLODING = 1e-3, 1e3
# at the end of training, conventions: more than half of a layer cannot learn, or a step is no small one any more
LIMITS = {"dead": 0.5, "saturated": 0.5, "update": 0.1}


def table(epochs: Sequence[int], signals: Sequence[Signals]) -> pd.DataFrame:
    """Return one row an (epoch, signal, layer) with mean and range over the replicas; layers are counted from 0."""
    rows = []
    for epoch, found in zip(epochs, signals, strict=True):
        positions: dict[str, int] = {}
        for name, value_R in found.items():
            if not name.startswith(PREFIX):
                continue
            _, signal, layer = name.split(":")
            positions[signal] = positions.get(signal, -1) + 1
            alive = value_R[np.isfinite(value_R)]
            if len(alive):
                numbers = (float(alive.mean()), float(alive.min()), float(alive.max()), len(alive))
                rows.append((epoch, signal, layer, positions[signal], *numbers))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def flagged(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last epoch whose mean over replicas is above the limit of its signal, see `LIMITS`."""
    last = table[table["epoch"] == table["epoch"].max()]
    return last[last["mean"] > last["signal"].map(LIMITS).fillna(np.inf)]


def _layers(found: Signals, signal: str) -> Array:
    """Return a signal of all layers, shape (L, R)."""
    return np.array([value_R for name, value_R in found.items() if name.startswith(f"{PREFIX}{signal}:")])


def _finite_median(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def summary(first: Signals, last: Signals) -> dict[str, float]:
    """Return the numbers that are tracked of a trial; what was not measured is left out.

    `signal_gradient_ratio` is that of first to last layer at the first evaluation (median over replicas),
    `n_vanishing` and `n_exploding` count replicas. At the last evaluation, `signal_dead` and `signal_saturated` are
    means over layers and replicas, `signal_update` is the median relative update of a step.
    """
    numbers: dict[str, float] = {}
    gradients_LR = _layers(first, "gradient")
    if len(gradients_LR) > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_R = gradients_LR[0] / gradients_LR[-1]
        numbers["signal_gradient_ratio"] = _finite_median(ratio_R)
        numbers["n_vanishing"] = float((ratio_R <= VANISHING).sum())
        numbers["n_exploding"] = float((ratio_R >= EXPLODING).sum())
    for signal in ("dead", "saturated"):
        values_LR = _layers(last, signal)
        finite = values_LR[np.isfinite(values_LR)]
        if len(finite):
            numbers[f"signal_{signal}"] = float(finite.mean())
    numbers["signal_update"] = _finite_median(_layers(last, "update"))
    return {name: value for name, value in numbers.items() if np.isfinite(value)}
