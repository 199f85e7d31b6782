"""Anyone's predictions, checked and in one shape: what every loss of `lab.analysis.decomposition` works on.

Arrays may be numpy's, torch's or pandas'. Whatever cannot be right is a `ValueError` of one line that says which array,
where in it, and what to give instead.

Shape suffixes: D resamples, I inits, K label-noise draws, R replicas, N test points, C classes.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.analysis.layout import Array, Design, Layout
from lab.errors import one_line

DESIGNS = ("crossed", "nested", "independent")


class Points:
    """Predictions of all replicas at some test points, in float64; those of missing replicas are 0.

    Attributes:
        target_NC: Posterior where it is known, else one-hot labels.
        known: Whether the posterior is known.
    """

    def __init__(self, values_DIKNC: NDArray[Any], are_logits: bool, used_DIK: NDArray[np.bool_],
                 labels_N: NDArray[np.int64], posterior_NC: Array | None) -> None:  # fmt: skip
        """`values_DIKNC` are probabilities or logits, of any float type."""
        self._are_logits = are_logits
        self._used = used_DIK[..., None, None]
        *replicas, N, C = values_DIKNC.shape
        memory_CDIKN = np.empty((C, *replicas, N))  # sums over few classes are fast if points lie side by side
        self._values = np.moveaxis(memory_CDIKN, 0, -1)
        np.copyto(self._values, values_DIKNC)
        self._values[~used_DIK] = 0
        self.known, self._labels_N = posterior_NC is not None, labels_N
        self.target_NC = np.asfortranarray(np.eye(C)[labels_N] if posterior_NC is None else posterior_NC)

    @cached_property
    def log_probabilities_DIKNC(self) -> Array:
        """Normalised log probabilities; −inf where a probability is 0."""
        with np.errstate(divide="ignore"):
            logits = self._values if self._are_logits else np.log(np.where(self._used, self._values, 1.0))
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return np.where(self._used, shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), 0.0)

    @cached_property
    def probabilities_DIKNC(self) -> Array:
        """Probabilities."""
        if not self._are_logits:
            return self._values
        return np.where(self._used, np.exp(self.log_probabilities_DIKNC), 0.0)

    @cached_property
    def votes_DIKNC(self) -> Array:
        """One-hot predicted classes; classes that tie share the vote evenly."""
        top, n_top = self._top
        votes = np.where(self._used, top, 0.0)
        return votes / n_top[..., None] if n_top.max(initial=1) > 1 else votes

    @property
    def error_DIKN(self) -> Array:
        """The expected zero-one loss of each replica, 0 of a missing one; classes that tie share the vote evenly."""
        if self.known:
            return np.einsum("dkinc,nc->dkin", self.votes_DIKNC, 1 - self.target_NC)
        top, n_top = self._top
        return np.where(self._used[..., 0], 1 - self.at_target(top) / n_top, 0.0)

    def at_target(self, values_DIKNC: NDArray[Any]) -> NDArray[Any]:
        """Return the expectation over labels of a value of each class (D, I, K, N): without posterior, the label's."""
        if self.known:
            return np.einsum("dkinc,nc->dkin", values_DIKNC, self.target_NC)
        return values_DIKNC[..., np.arange(len(self._labels_N)), self._labels_N]

    @cached_property
    def _top(self) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
        """Which classes are the most probable, and how many are."""
        top = self._values == self._values.max(axis=-1, keepdims=True)
        return top, top.view(np.uint8).sum(axis=-1, dtype=np.uint32)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Checked predictions of all test points."""

    values_DIKNC: NDArray[Any]
    are_logits: bool
    labels_N: NDArray[np.int64]
    posterior_NC: Array | None
    layout: Layout

    def resamples(self, index: NDArray[np.int64]) -> "Predictions":
        """Return the same of some resamples."""
        layout = Layout.of(self.layout.design, self.layout.used_DIK[index])
        layout = replace(layout, clusters=self.layout.clusters)  # none, if no intervals are asked for
        return replace(self, values_DIKNC=self.values_DIKNC[index], layout=layout)

    def only(self, used_DIK: NDArray[np.bool_]) -> "Predictions":
        """Return the same with fewer replicas."""
        return replace(self, layout=Layout.of(self.layout.design, used_DIK))

    @property
    def n_classes(self) -> int:
        """The number of classes C."""
        return int(self.values_DIKNC.shape[-1])

    def points(self, part: slice) -> Points:
        """Return some of the test points."""
        posterior = None if self.posterior_NC is None else self.posterior_NC[part]
        values = self.values_DIKNC[..., part, :]
        return Points(values, self.are_logits, self.layout.used_DIK, self.labels_N[part], posterior)


class _Axes(NamedTuple):
    """What the axes of an array of predictions are in each design, beside test points and classes."""

    counts: tuple[int, ...]
    shapes: str


_AXES: dict[str, _Axes] = {
    "crossed": _Axes((2, 3), "(D, I, N, C), or (D, I, K, N, C) with redrawn label noise"),
    "nested": _Axes((2,), "(D, I, N, C)"),
    "independent": _Axes((1,), "(R, N, C)"),
}


def checked(
    probabilities: ArrayLike | None,
    labels_N: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    posterior_NC: ArrayLike | None = None,
    design: Design = "crossed",
    missing: ArrayLike | None = None,
) -> Predictions:
    """Return predictions, labels and posterior if they fit together.

    Raises:
        ValueError: They do not.
    """
    if design not in _AXES:
        raise ValueError(f"design {design!r} is unknown: choose {', '.join(DESIGNS[:-1])} or {DESIGNS[-1]}")
    if (probabilities is None) == (logits is None):
        raise ValueError("give either probabilities or logits")
    what = "probabilities" if logits is None else "logits"
    values = as_array(probabilities if logits is None else logits, what)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{what} are {values.dtype}: give numbers")
    axes = _AXES[design]
    n_axes = values.ndim - 2
    if n_axes not in axes.counts:
        raise ValueError(f"{what} have shape {values.shape}: a {design} design needs {axes.shapes}")
    sizes, (N, C) = values.shape[:-2], values.shape[-2:]
    if N == 0 or C < 2 or 0 in sizes:
        raise ValueError(f"{what} have shape {values.shape}: no replica, no test point or fewer than two classes")
    if (design == "nested" and min(sizes) < 2) or (design == "crossed" and max(sizes) < 2):
        raise ValueError(
            f"{what} have shape {values.shape}: a nested design needs at least two resamples and two seeds, a crossed "
            "one at least two of either; for replicas that share neither give (R, N, C) and design='independent'"
        )
    gone = np.zeros(sizes, dtype=bool) if missing is None else as_array(missing, "missing").astype(bool)
    if gone.shape != sizes:
        raise ValueError(f"missing has shape {gone.shape}, the replicas have {sizes}")
    shape = (*sizes, 1, 1)[:3]
    values = values.reshape(*shape, N, C)
    used_DIK = ~gone.reshape(shape) & ~np.isnan(values).all(axis=(-2, -1))
    if not used_DIK.any():
        raise ValueError("no replica is left: all are missing or NaN throughout")
    _check_values(values, used_DIK, sizes, are_logits=logits is not None)
    labels = _checked_labels(labels_N, N, C)
    posterior = None if posterior_NC is None else _checked_posterior(posterior_NC, N, C)
    return Predictions(values, logits is not None, labels, posterior, Layout.of(design, used_DIK))


def one_hot(classes: ArrayLike, labels_N: ArrayLike, posterior_NC: ArrayLike | None) -> NDArray[np.float64]:
    """Return predicted class numbers (…, N) as votes (…, N, C), with as many classes as there are anywhere.

    Raises:
        ValueError: A class number is negative.
    """
    index = as_array(classes, "predicted classes")
    if index.size and index.min() < 0:
        raise ValueError(f"predicted classes run from {index.min()}: give class numbers from 0 on")
    if posterior_NC is not None:
        n_classes = as_array(posterior_NC, "posterior").shape[-1]
    else:
        n_classes = max(2, int(index.max(initial=0)) + 1, int(as_array(labels_N, "labels").max(initial=0)) + 1)
    if index.max(initial=0) >= n_classes:
        raise ValueError(f"predicted classes run to {index.max()}, but the posterior has {n_classes} classes")
    return np.eye(n_classes)[index]


def as_array(values: Any, what: str) -> NDArray[Any]:
    """Return anyone's array (numpy, torch on any device, pandas, nested lists) as numpy's.

    Raises:
        ValueError: It is ragged or no array.
    """
    for step in ("detach", "cpu"):  # a torch tensor; torch itself is not needed for that
        if hasattr(values, step):
            values = getattr(values, step)()
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what} cannot be read as an array: {one_line(error)}") from None
    if array.dtype.kind == "O":
        raise ValueError(f"{what} are a mixture of types or lengths: give one array of numbers")
    return array


def _check_values(
    values: NDArray[Any], used_DIK: NDArray[np.bool_], sizes: tuple[int, ...], *, are_logits: bool
) -> None:
    used = values if used_DIK.all() else values[used_DIK]
    used = used.reshape(-1, *values.shape[-2:])
    least, largest = used.min(), used.max()  # NaN if any is
    if not np.isfinite(least) or not np.isfinite(largest):
        r, n, _ = np.argwhere(~np.isfinite(used))[0]
        replica = tuple(int(k) for k in np.argwhere(used_DIK)[r])[: len(sizes)]
        raise ValueError(
            f"a prediction is NaN or infinite (replica {replica}, test point {n}), but not all of that replica are"
        )
    if are_logits:
        return
    if least < -1e-6 or largest > 1 + 1e-6:
        raise ValueError(f"predictions run from {least:.3g} to {largest:.3g}: give probabilities, or these as logits=")
    sums = used @ np.ones(used.shape[-1], used.dtype)  # a product: a sum over a short last axis is slow
    lowest, highest = sums.min(), sums.max()
    if lowest < 0.999 or highest > 1.001:
        raise ValueError(f"probabilities sum to {lowest:.4g} … {highest:.4g} over classes, not to 1")


def _checked_labels(labels_N: ArrayLike, N: int, C: int) -> NDArray[np.int64]:
    y = as_array(labels_N, "labels")
    if y.shape != (N,):
        raise ValueError(f"labels have shape {y.shape}, but the predictions are of {N} test points")
    if not np.issubdtype(y.dtype, np.integer):
        if not np.issubdtype(y.dtype, np.number) or not np.array_equal(y, np.rint(y)):
            raise ValueError(f"labels are {y.dtype}: give class numbers 0 to {C - 1}")
    if y.min() < 0 or y.max() >= C:
        raise ValueError(f"labels run from {y.min()} to {y.max()}, but there are {C} classes: 0 to {C - 1}")
    return y.astype(np.int64)


def _checked_posterior(posterior_NC: ArrayLike, N: int, C: int) -> Array:
    pi = as_array(posterior_NC, "posterior")
    if pi.shape != (N, C):
        raise ValueError(f"posterior has shape {pi.shape}, not (N, C) = {(N, C)}")
    if (
        pi.dtype.kind not in "fiu"
        or not np.isfinite(pi).all()
        or pi.min() < 0
        or not np.allclose(pi.sum(axis=1), 1, atol=1e-6)
    ):
        raise ValueError("the rows of the posterior have to be probabilities that sum to 1")
    return pi.astype(np.float64)
