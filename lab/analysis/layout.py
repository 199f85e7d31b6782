"""How replicas share what is random: which of training set, seed and label noise two of them have in common.

A design is a set of *pair classes*. In a crossed design, two replicas agree on some set S of the factors resample, init
and (if labels are redrawn) label noise; the mean inner product of pairs that agree on exactly S has the expectation
‖mean‖² + Σ of the variance components of all non-empty T ⊆ S. Solving that from small to large S (Möbius inversion)
gives every component, unbiased, also where replicas are missing. A nested design (seeds are new in each resample) has
the chain ∅ ⊂ {resample} ⊂ {resample, seed}; independent replicas have ∅ ⊂ {replica}.

An axis of length 1 holds its factor fixed: everything is then conditional on that one training set (or seed).

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, T terms, Z clusters of replicas. Arrays over
replicas always have all three axes D, I, K here; a missing replica is 0 throughout and False in `used_DIK`.
"""

import functools
from collections.abc import Iterator, Sequence
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


class Estimates(NamedTuple):
    """Estimates of T terms at every test point, with all replicas and without each cluster of replicas.

    `without` is keyed by the axes that a cluster shares; Z runs over all index tuples of these axes, also over those
    where no replica is left to leave out (the value is then the one with all replicas).
    """

    point_NT: Array
    without: dict[Factors, Array]  # (Z, N, T)


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
        others = tuple(axis for axis in range(3) if axis not in factors)
        return values_DIK.sum(axis=others, keepdims=True) if others else values_DIK

    def sizes(self, factors: Factors) -> Array:
        """Return the number of replicas in each group that agrees on `factors`, in the shape of `sum_within`."""
        return self.sum_within(self.used_DIK.astype(np.float64), factors)

    @cached_property
    def needed(self) -> tuple[Factors, ...]:
        """The sets of factors by which sums over pairs are needed, of all replicas and without each cluster."""
        return tuple(dict.fromkeys(_union(s, a) for s in self.classes for a in ((), *self.clusters)))

    def sum_of_clusters(self, values_DIKN: Array, axes: Factors) -> Array:
        """Return sums over the replicas of each cluster of these axes, shape (Z, N)."""
        return self.sum_within(values_DIKN, axes).reshape(-1, values_DIKN.shape[-1])

    def share(self, products: dict[Factors, Array], s: Factors, axes: Factors) -> Array:
        """Return what the pairs that agree at least on `s` lose when a cluster of these axes goes, shape (Z, N).

        `products` are of each replica with its group: Σ over pairs is Σ_r ⟨f_r, F_S(r)⟩. Pairs within a cluster have
        two ends in it.
        """
        return 2 * self.sum_of_clusters(products[s], axes) - self.sum_of_clusters(products[_union(s, axes)], axes)

    @cached_property
    def n_pairs(self) -> dict[Factors, dict[Factors, Array]]:
        """The numbers of pairs that agree on exactly each class, without a cluster of some axes (Z, 1); of (): (1, 1).

        They are whole and far below 2⁵³, so that a 0 is exact.
        """
        products = {s: (self.used_DIK * self.sizes(s))[..., None] for s in self.needed}
        all_of = {s: self.sum_of_clusters(products[s], ()) for s in self.classes}
        left = {a: {s: all_of[s] - self.share(products, s, a) for s in self.classes} for a in self.clusters}
        return {axes: self.exactly(of_class) for axes, of_class in {(): all_of, **left}.items()}

    def means(self, values_DIKN: Array) -> Estimates:
        """Return the means over replicas of a value that each replica has at each point, as one term."""
        n_points = values_DIKN.shape[-1]
        whole, n = values_DIKN.sum(axis=(0, 1, 2)), self.n_replicas
        without = {}
        for axes in self.clusters:
            gone = self.sum_within(values_DIKN, axes).reshape(-1, n_points)
            n_left = n - self.sizes(axes).reshape(-1, 1)
            left = np.divide(whole - gone, n_left, out=np.full_like(gone, np.nan), where=n_left > 0)
            without[axes] = left[..., None]
        return Estimates(whole[:, None] / n, without)

    def exactly(self, at_least: dict[Factors, Array]) -> dict[Factors, Array]:
        """Return, from sums over pairs that agree at least on each class, the sums over those that agree on no more."""
        exact: dict[Factors, Array] = {}
        for s in reversed(self.classes):
            exact[s] = at_least[s] - sum(exact[t] for t in exact if set(s) < set(t))
        return exact

    @cached_property
    def told(self) -> frozenset[Factors]:
        """The pair classes, and so the components, that the replicas can tell: there are pairs of each class below."""
        sums = {s: np.array([(self.sizes(s) ** 2).sum()]) for s in self.classes}
        met = {s for s, n_pairs in self.exactly(sums).items() if n_pairs[0] > 0}
        return frozenset(s for s in self.classes if all(t in met for t in self.classes if set(t) <= set(s)))

    def solve(self, class_means: dict[Factors, Array]) -> dict[Factors, Array]:
        """Return the variance component of each class (of ∅: ‖mean‖²) from the mean inner products of the classes."""
        parts: dict[Factors, Array] = {}
        for s in self.classes:
            parts[s] = class_means[s] - sum(parts[t] for t in parts if set(t) < set(s))
        return parts

    def causes_as_columns(self, parts: dict[Factors, Array], like: Array) -> list[Array]:
        """Return the components by `names`, NaN for one that this design does not tell."""
        by_name = {name: parts[s] for s, name in self.causes.items()}
        return [by_name.get(name, np.full_like(like, np.nan)) for name in self.names]

    @cached_property
    def mean_squares(self) -> Array:
        """Return the matrix that turns components, in the order of `causes`, into the mean squares of the classes.

        E MS_S = Σ_{T ⊇ S} n_T σ²_T with n_T replicas a group that agrees on T (with missing replicas: on average).
        """
        per_group = {s: self.n_replicas / np.count_nonzero(self.sizes(s)) for s in self.causes}
        rows = [[per_group[t] if set(s) <= set(t) else 0.0 for t in self.causes] for s in self.causes]
        return np.array(rows).reshape(len(self.causes), len(self.causes))


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


def _union(s: Factors, a: Factors) -> Factors:
    return tuple(sorted({*s, *a}))


def as_last_axis(columns: Sequence[Array]) -> Array:
    """Return arrays (…) as the terms (…, T) of one, each lying by itself: sums over points are fast then."""
    return np.moveaxis(np.stack(columns), 0, -1)


def side_by_side(parts: Sequence[Array]) -> Array:
    """Return arrays (…, T) of different terms as one, each term lying by itself."""
    return np.moveaxis(np.concatenate([np.moveaxis(part, -1, 0) for part in parts]), 0, -1)


def joined(*parts: Estimates) -> Estimates:
    """Return estimates of several groups of terms side by side."""
    return Estimates(
        side_by_side([part.point_NT for part in parts]),
        {axes: side_by_side([part.without[axes] for part in parts]) for axes in parts[0].without},
    )


def chunks(n_points: int, values_per_point: int, at_once: int = 2**21) -> Iterator[slice]:
    """Yield slices of the test points, so that no array over replicas and points holds many more than `at_once`."""
    size = max(1, at_once // values_per_point)
    return (slice(start, start + size) for start in range(0, n_points, size))
