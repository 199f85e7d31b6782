"""How replicas share what is random: which of training set, seed and label noise two of them have in common.

A design is a set of *pair classes*. In a crossed design, two replicas agree on some set S of the factors resample, init
and (if labels are redrawn) label noise; the mean inner product of pairs that agree on exactly S has the expectation
‖mean‖² + Σ of the variance components of all non-empty T ⊆ S. Solving that from small to large S (Möbius inversion)
gives every component, unbiased, also where replicas are missing. A nested design (seeds are new in each resample) has
the chain ∅ ⊂ {resample} ⊂ {resample, seed}; independent replicas have ∅ ⊂ {replica}.

An axis of length 1 holds its factor fixed: everything is then conditional on that one training set (or seed).

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, S classes of pairs, T terms, P parts, Z
clusters of replicas, X anything. Arrays over replicas always have all three axes D, I, K here; a missing replica is 0
throughout and False in `used_DIK`.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Design = Literal["crossed", "nested", "independent"]
Factors = tuple[int, ...]  # axes of (D, I, K) on which two replicas agree, or that a cluster fixes

CAUSES: dict[Factors, str] = {
    (0,): "resample",
    (1,): "init",
    (0, 1): "interaction",
    (2,): "label_noise",
    (0, 2): "resample_label_noise",
    (1, 2): "init_label_noise",
    (0, 1, 2): "three_way",
}
ALWAYS_NAMED = ("resample", "init", "interaction")  # also where a design cannot tell them: they are NaN then


class Parts(NamedTuple):
    """P quantities at every test point, and without each cluster of replicas.

    `without` is keyed by the axes that a cluster shares; Z runs over all index tuples of these axes, also over those
    where no replica is left to leave out (the value is then the one with all replicas).
    """

    point_PN: Array
    without: dict[Factors, Array]  # (P, Z, N)

    def and_those(self, others: "Parts") -> "Parts":
        """Return these and others, one after the other."""
        without = {axes: np.concatenate([values, others.without[axes]]) for axes, values in self.without.items()}
        return Parts(np.concatenate([self.point_PN, others.point_PN]), without)


class Estimates(NamedTuple):
    """Estimates of T terms at every test point, and the fewer parts that they are made of, without each cluster.

    Terms are weights times parts, but for what is the same without any cluster, as the noise is.
    """

    point_TN: Array
    without: dict[Factors, Array]  # as in `Parts`
    weights_TP: Array

    @classmethod
    def of(cls, parts: Parts, weights_TP: Array) -> "Estimates":
        """Return weights times parts; NaN for what has a weight on one that is."""
        return cls(combined(weights_TP, parts.point_PN), parts.without, weights_TP)

    def times(self, weights_QT: Array) -> "Estimates":
        """Return estimates of Q quantities that are linear in the terms; NaN for what has a weight on one that is."""
        return Estimates(combined(weights_QT, self.point_TN), self.without, combined(weights_QT, self.weights_TP))


@dataclass(frozen=True, eq=False)
class Layout:
    """Which replicas there are and what they share.

    Attributes:
        design: crossed, nested or independent.
        used_DIK: True where a replica takes part.
        classes: The sets of factors on which pairs can agree, small ones first; the last is a replica with itself.
        causes: Name of the variance component of each pair class but the first, where it has one.
        clusters: The axes whose index tuples are sampled together: what the intervals account for.
    """

    design: Design
    used_DIK: NDArray[np.bool_]
    classes: tuple[Factors, ...]
    causes: dict[Factors, str]
    clusters: tuple[Factors, ...]

    @classmethod
    def of(cls, design: Design, used_DIK: NDArray[np.bool_]) -> "Layout":
        """Return the layout of a design; the same object for the same replicas, as it works out numbers of pairs."""
        return _layout(design, used_DIK.shape, used_DIK.tobytes())

    @property
    def n_replicas(self) -> int:
        """The number of replicas that take part."""
        return int(self.used_DIK.sum())

    @cached_property
    def levels(self) -> tuple[NDArray[np.intp], ...]:
        """The resamples, inits and label-noise draws of which a replica takes part."""
        others = ((1, 2), (0, 2), (0, 1))
        return tuple(np.flatnonzero(self.used_DIK.any(axis=axes)) for axes in others)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the variance components that a table of this design shows."""
        found = set(ALWAYS_NAMED) | set(self.causes.values())
        return tuple(name for name in CAUSES.values() if name in found)

    def sum_within(self, values_DIK: Array, factors: Factors) -> Array:
        """Return sums over the replicas that agree on `factors`; the axes of the other factors have length 1."""
        others = tuple(axis for axis in range(3) if axis not in factors and values_DIK.shape[axis] > 1)
        return values_DIK.sum(axis=others, keepdims=True) if others else values_DIK

    @cached_property
    def sizes(self) -> dict[Factors, Array]:
        """The number of replicas in each group that agrees on some factors, in the shape of `sum_within`."""
        used_DIK = self.used_DIK.astype(np.float64)
        return {axes: self.sum_within(used_DIK, axes) for axes in ((), *CAUSES)}

    def sums_of_clusters(self, values_XDIKN: Array, axes: Factors) -> Array:
        """Return sums over the replicas of each cluster of these axes, shape (X, Z, N)."""
        others = tuple(1 + axis for axis in range(3) if axis not in axes)
        sums = values_XDIKN.sum(axis=others) if others else values_XDIKN
        return sums.reshape(len(sums), -1, sums.shape[-1])

    @cached_property
    def n_pairs(self) -> dict[Factors, Array]:
        """The numbers of pairs that agree on exactly each class, without a cluster of some axes, (S, Z); of (): (S, 1).

        They are whole and far below 2⁵³, so that a 0 is exact.
        """
        products = np.stack([self.used_DIK * self.sizes[s] for s in self.classes])[..., None]
        return {axes: self._pairs(products, axes)[..., 0] for axes in ((), *self.clusters)}

    def _pairs(self, products_SDIKN: Array, axes: Factors) -> Array:
        """Return sums over the pairs that agree on exactly each class, without each cluster of these axes (S, Z, N).

        `products` are of each replica with its group: Σ over pairs that agree at least on S is Σ_r ⟨f_r, F_S(r)⟩. Pairs
        within a cluster have two ends in it.
        """
        n_classes, n_points = len(self.classes), products_SDIKN.shape[-1]
        exact_SN = self._exact_SS @ products_SDIKN.sum(axis=(1, 2, 3))
        if not axes:
            return exact_SN[:, None]
        within = [self.classes.index(tuple(sorted({*s, *axes}))) for s in self.classes]
        lost_SS = self._exact_SS @ (2 * np.eye(n_classes) - np.eye(n_classes)[within])
        sums_SZN = self.sums_of_clusters(products_SDIKN, axes)
        return exact_SN[:, None] - (lost_SS @ sums_SZN.reshape(n_classes, -1)).reshape(n_classes, -1, n_points)

    @cached_property
    def _exact_SS(self) -> Array:
        """What makes sums over pairs that agree on exactly each class of those that agree at least on it."""
        exact = self.exactly(dict(zip(self.classes, np.eye(len(self.classes)), strict=True)))
        return np.stack([exact[s] for s in self.classes])

    def variances(self, products_SDIKN: Array) -> Parts:
        """Return the variance and its components, in the order of `causes`; NaN for what the replicas do not allow.

        `products` are ⟨f_r, F_S(r)⟩ of each replica with the sum over those that agree with it on the class S.
        """
        found = {}
        for axes, n_pairs_SZ in self.n_pairs.items():
            means_SZN = self._pairs(products_SDIKN, axes) / np.where(n_pairs_SZ > 0, n_pairs_SZ, np.nan)[..., None]
            parts = self.solve(dict(zip(self.classes, means_SZN, strict=True)))
            found[axes] = np.stack([means_SZN[-1] - means_SZN[0], *(parts[s] for s in self.causes)])
        return Parts(found.pop(())[:, 0], found)

    def means(self, values_DIKN: Array) -> Estimates:
        """Return the means over replicas of a value that each replica has at each point, as one term."""
        return Estimates.of(self.means_of(values_DIKN[None]), np.eye(1))

    def means_of(self, values_XDIKN: Array) -> Parts:
        """Return the means over replicas of X values that each of them has at each point; 0 where one is missing."""
        whole_XN = values_XDIKN.sum(axis=(1, 2, 3))
        without = {}
        for axes in self.clusters:
            n_left_Z1 = self.n_replicas - self.sizes[axes].reshape(-1, 1)
            left_XZN = whole_XN[:, None] - self.sums_of_clusters(values_XDIKN, axes)
            without[axes] = left_XZN / np.where(n_left_Z1 > 0, n_left_Z1, np.nan)
        return Parts(whole_XN / self.n_replicas, without)

    def exactly(self, at_least: dict[Factors, Array]) -> dict[Factors, Array]:
        """Return, from sums over pairs that agree at least on each class, the sums over those that agree on no more."""
        exact: dict[Factors, Array] = {}
        for s in reversed(self.classes):
            exact[s] = at_least[s] - sum(exact[t] for t in exact if set(s) < set(t))
        return exact

    @cached_property
    def told(self) -> frozenset[Factors]:
        """The pair classes, and so the components, that the replicas can tell: there are pairs of each class below."""
        sums = {s: np.array([(self.sizes[s] ** 2).sum()]) for s in self.classes}
        met = {s for s, n_pairs in self.exactly(sums).items() if n_pairs[0] > 0}
        return frozenset(s for s in self.classes if all(t in met for t in self.classes if set(t) <= set(s)))

    def solve(self, class_means: dict[Factors, Array]) -> dict[Factors, Array]:
        """Return the variance component of each class (of ∅: ‖mean‖²) from the mean inner products of the classes."""
        parts: dict[Factors, Array] = {}
        for s in self.classes:
            parts[s] = class_means[s] - sum(parts[t] for t in parts if set(t) < set(s))
        return parts

    def causes_of(self, parts: Array) -> list[Array]:
        """Return the components by `names`, from those in the order of `causes`; NaN for one that is not told."""
        by_name = dict(zip(self.causes.values(), parts, strict=True))
        return [by_name.get(name, np.full(parts.shape[1:], np.nan)) for name in self.names]

    @cached_property
    def mean_squares(self) -> Array:
        """Return the matrix that turns components, in the order of `causes`, into the mean squares of the classes.

        E MS_S = Σ_{T ⊇ S} n_T σ²_T with n_T replicas a group that agrees on T (with missing replicas: on average).
        """
        per_group = {s: self.n_replicas / np.count_nonzero(self.sizes[s]) for s in self.causes}
        rows = [[per_group[t] if set(s) <= set(t) else 0.0 for t in self.causes] for s in self.causes]
        return np.array(rows).reshape(len(self.causes), len(self.causes))

    @cached_property
    def components(self) -> Array:
        """Return the matrix that turns mean squares back into components."""
        return np.asarray(np.linalg.inv(self.mean_squares), dtype=np.float64)


@functools.lru_cache(maxsize=32)
def _layout(design: Design, shape: tuple[int, ...], used: bytes) -> Layout:
    used_DIK = np.frombuffer(used, dtype=np.bool_).reshape(shape)
    if design == "independent":
        return Layout(design, used_DIK, ((), (0,)), {}, ((0,),))
    if design == "nested":
        return Layout(design, used_DIK, ((), (0,), (0, 1)), {(0,): "resample", (0, 1): "init"}, ((0,),))
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    subsets = tuple(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))
    return Layout(design, used_DIK, subsets, {s: CAUSES[s] for s in subsets if s}, subsets[1:])


def combined(weights_TP: Array, values_PX: Array) -> Array:
    """Return weights times values (T, X); NaN for what has a weight on one that is, and for nothing else."""
    is_nan_PX = np.isnan(values_PX)
    if not is_nan_PX.any():
        return weights_TP @ values_PX
    values_TX: Array = weights_TP @ np.nan_to_num(values_PX)
    values_TX[(weights_TP != 0) @ is_nan_PX] = np.nan
    return values_TX


def chunks(n_points: int, values_per_point: int, at_once: int = 2**21) -> Iterator[slice]:
    """Yield slices of the test points, so that no array over replicas and points holds many more than `at_once`."""
    size = max(1, at_once // values_per_point)
    return (slice(start, start + size) for start in range(0, n_points, size))
