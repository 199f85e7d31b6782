"""Intervals for the estimates of `lab.analysis.decomposition`.

Three things were sampled, and crossed with one another: training sets, seeds (and label noise), and test points. An
estimate is treated as the mean of its influences over that crossed array, and the variance of such a mean is the
alternating sum of mean squares over all non-empty sets E of what was sampled,

    var = Σ_E (−1)^{|E|+1} MS_E / n        (random effects; Cameron, Gelbach & Miller 2011 for clusters in general)

so that what sets of training and seeds do together is counted once, not once each. The influence of a cluster of
replicas is that of the jackknife: n (n − 1 for a mean) times the change when it is left out (Efron & Stein 1981), from
the unbiased estimator. It is never taken below the largest variance from one source.

* Risk, bias, error: estimate ± t · standard error, Satterthwaite degrees of freedom.
* Variances: an estimate of a variance is skewed to the right, and a symmetric interval misses on that side. They get
  the same on the logarithm: estimate × exp(± t · standard error / estimate), where the estimate is larger than its
  standard error.
* Variance components are differences of mean squares and can be negative, so they have no logarithm. The mean squares
  have one: their ends are combined by squares of distances (modified large samples, Graybill & Wang 1980; in general
  the MOVER of Zou & Donner 2008).

The interval covers the value that infinitely many replicas and test points from the same sources would give; how often
it does is measured by `python -m benchmarks.coverage`. A bootstrap over a few replicas is no alternative: its variance
estimates are centred low by the factor 1 − 1/R.

Shape suffixes: T terms, P parts that they are sums of, N test points, Z clusters of replicas, X any other axes.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lab.analysis.layout import CAUSES, Array, Estimates, Factors, Layout, combined

RESAMPLE = ("variance_resample", "kw_variance_resample")  # every variance that has components has one of these
TEST = 3  # the axis of test points, beside those of resamples, inits and label noise


class Variance(NamedTuple):
    """The sampling variance of T estimates, its degrees of freedom, and its parts by what was sampled."""

    total_T: Array
    freedom_T: Array
    parts: dict[
        str, Array
    ]  # "resample", "init", …, "test", "resample_test", …: each (T,), they add up before the floor


class Spread:
    """Collects the estimates of test points, some at a time, and says how sure their means are.

    Beside the T terms themselves it follows the mean squares of each group of variance components among them.
    """

    def __init__(self, layout: Layout, names: Sequence[str], estimated_in: Layout | None = None) -> None:
        """`names` of the terms: those that start with variance_ or kw_variance_ and name a cause are components.

        `estimated_in` is the layout of one partition of the pool, if the terms are means over several.
        """
        self._layout = layout
        self._estimated_in = estimated_in or layout
        self.names = tuple(names)
        groups = [
            [self.names.index(f"{prefix}variance_{cause}") for cause in layout.causes.values()]
            for prefix in ("", "kw_")
            if layout.causes and f"{prefix}variance_{next(iter(layout.causes.values()))}" in self.names
        ]
        self._groups = [np.array(group) for group in groups]
        self._n = 0
        self._sum_T = self._sum_sq_T = np.zeros(0)
        self._weights_TP = np.zeros((0, 0))
        self._total: dict[Factors, Array] = {}
        self._products: dict[Factors, Array] = {}

    def add(self, estimates: Estimates) -> None:
        """Take in the estimates of more test points."""
        point_TN = self._with_mean_squares(estimates.point_TN)
        first = self._n == 0
        if first:
            self._origin_T = np.nan_to_num(point_TN[:, 0])  # sums of squares are taken about it: nothing cancels
            self._weights_TP = self._with_mean_squares(estimates.weights_TP)
        self._n += point_TN.shape[1]
        about_TN = point_TN - self._origin_T[:, None]
        self._sum_T = about_TN.sum(axis=1) + (0 if first else self._sum_T)
        self._sum_sq_T = (about_TN**2).sum(axis=1) + (0 if first else self._sum_sq_T)
        for axes, without_PZN in estimates.without.items():
            effects_PX = self._effects(axes, without_PZN).reshape(len(without_PZN), -1)
            self._total[axes] = without_PZN.sum(axis=-1) + (0 if first else self._total[axes])
            self._products[axes] = effects_PX @ effects_PX.T + (0 if first else self._products[axes])

    def _with_mean_squares(self, values_TX: Array) -> Array:
        """Return values of the terms with the mean squares of their components after them."""
        matrix = self._estimated_in.mean_squares
        return np.concatenate([values_TX, *(matrix @ values_TX[group] for group in self._groups)])

    def _effects(self, axes: Factors, without_PZX: Array) -> Array:
        """Return what each cluster does beyond its lower-order effects, (P, *sizes, X), from what is left without it.

        That is up to the factor 1 − n, which makes influences of what is left.
        """
        used_Z = self._layout.sizes[axes].ravel() > 0
        if not used_Z.all():  # whoever is not there has no influence
            without_PZX = np.where(
                used_Z[:, None], without_PZX - without_PZX[:, used_Z].mean(axis=1, keepdims=True), 0.0
            )
        sizes = [self._layout.used_DIK.shape[axis] for axis in axes]
        table = without_PZX.reshape(len(without_PZX), *sizes, -1)
        for place, axis in enumerate(axes, start=1):
            if len(self._layout.levels[axis]) < table.shape[place]:
                table = table.take(self._layout.levels[axis], axis=place)
            table = table - table.mean(axis=place, keepdims=True)
        return table

    def parts(self) -> dict[str, dict[str, float]]:
        """Return, for each term, the variance of its estimate by what was sampled."""
        parts = self._variance.parts
        return {name: {source: float(part[k]) for source, part in parts.items()} for k, name in enumerate(self.names)}

    def _mean(self) -> Array:
        return self._origin_T + self._sum_T / self._n

    @cached_property
    def _variance(self) -> Variance:
        """The variance of the estimates, mean squares after the terms; NaN where a source cannot be judged."""
        n_terms = len(self._sum_T)
        squares: dict[Factors, Array] = {}
        freedoms: dict[Factors, float] = {}
        n = self._n
        spread_T = np.maximum(self._sum_sq_T - self._sum_T**2 / n, 0.0)
        if n > 1:
            squares[(TEST,)], freedoms[(TEST,)] = spread_T / (n - 1) / n, n - 1
        for axes, total_PZ in self._total.items():
            n_clusters, freedom = self._freedom(axes)
            if freedom < 1:
                if len(axes) == 1:  # what one factor does cannot be judged; what several do together may be left in
                    squares[axes], freedoms[axes] = np.full(n_terms, np.nan), 1
                continue
            effects_PZ = self._effects(axes, total_PZ[..., None] / n).reshape(len(total_PZ), -1)
            squares_T = (n_clusters - 1) ** 2 * (combined(self._weights_TP, effects_PZ) ** 2).sum(axis=1)
            squares[axes], freedoms[axes] = squares_T / freedom / n_clusters, freedom
            if n > 1:
                # the squares of a term, summed over clusters and points, are a quadratic form in the products of parts
                of_points = combined(self._weights_TP, combined(self._weights_TP, self._products[axes]).T)
                of_points_T = (n_clusters - 1) ** 2 * np.diag(of_points)
                # at least 0: where all points are alike, the difference of two equal sums is left
                rest = np.maximum(of_points_T - n * squares_T, 0.0)
                both = (*axes, TEST)
                squares[both] = rest / (freedom * (n - 1)) / (n_clusters * n)
                freedoms[both] = freedom * (n - 1)
        if not self._total or not squares:
            nothing = np.full(n_terms, np.nan)
            return Variance(nothing, nothing, {})
        total = sum((-1) ** (len(e) + 1) * square for e, square in squares.items())
        total = np.maximum(total, np.maximum.reduce([square for e, square in squares.items() if len(e) == 1]))
        with np.errstate(invalid="ignore", divide="ignore"):
            freedom_T = total**2 / sum(square**2 / freedoms[e] for e, square in squares.items())
        least = min(freedom for e, freedom in freedoms.items() if len(e) == 1)
        freedom_T = np.where(total > 0, np.maximum(freedom_T, least), least)
        return Variance(total, freedom_T, _pure(squares))

    def _freedom(self, axes: Factors) -> tuple[int, float]:
        """Return the number of clusters and the degrees of freedom of what they do beyond their lower-order effects."""
        n_used = int(np.count_nonzero(self._layout.sizes[axes]))
        levels = [len(self._layout.levels[axis]) for axis in axes]
        n_holes = int(np.prod(levels)) - n_used
        return n_used, float(np.prod([level - 1 for level in levels]) - n_holes)

    def symmetric_ends(self, level: float) -> tuple[Array, Array]:
        """Return the ends (T,) of symmetric intervals, for terms that are differences."""
        n_terms = len(self.names)
        lo, hi = symmetric(self._mean(), self._variance, level)
        return lo[:n_terms], hi[:n_terms]

    def logarithmic_ends(self, level: float) -> tuple[Array, Array]:
        """Return the ends (T,) of intervals on the logarithm, for terms that are variances, or sums of them."""
        n_terms = len(self.names)
        lo, hi = logarithmic(self._mean(), self._variance, level)
        return lo[:n_terms], hi[:n_terms]

    def ends(self, level: float) -> tuple[Array, Array]:
        """Return the lower and upper ends (T,) of the intervals for all terms."""
        mean, n_terms = self._mean(), len(self.names)
        variance = self._variance
        lo, hi = symmetric(mean, variance, level)
        log_lo, log_hi = logarithmic(mean, variance, level)
        # a net variance of the zero-one loss has no components, and can be negative
        totals = [self.names.index(name.removesuffix("_resample")) for name in self.names if name in RESAMPLE]
        lo[totals], hi[totals] = log_lo[totals], log_hi[totals]
        start = n_terms
        for group in self._groups:
            squares = slice(start, start := start + len(group))
            weights = self._estimated_in.components
            below = weights * np.where(weights > 0, mean[squares] - log_lo[squares], mean[squares] - log_hi[squares])
            above = weights * np.where(weights > 0, log_hi[squares] - mean[squares], log_lo[squares] - mean[squares])
            lo[group] = mean[group] - np.sqrt((below**2).sum(axis=1))
            hi[group] = mean[group] + np.sqrt((above**2).sum(axis=1))
        return lo[:n_terms], hi[:n_terms]


def _pure(squares: dict[Factors, Array]) -> dict[str, Array]:
    """Return what each source, and each combination of sources, adds by itself; estimates of 0 can be negative."""
    parts = {}
    for e in squares:
        name = "_".join(n for n in (CAUSES.get(tuple(a for a in e if a != TEST)), "test" if TEST in e else None) if n)
        larger = [f for f in squares if set(e) <= set(f)]
        parts[name or "test"] = sum((-1) ** (len(f) - len(e)) * squares[f] for f in larger)
    return parts


def symmetric(estimate_T: Array, variance: Variance, level: float) -> tuple[Array, Array]:
    """Return estimate ± t · standard error."""
    half = special.stdtrit(variance.freedom_T, (1 + level) / 2) * np.sqrt(variance.total_T)
    return estimate_T - half, estimate_T + half


def logarithmic(estimate_T: Array, variance: Variance, level: float) -> tuple[Array, Array]:
    """Return the same on the logarithm, where the estimate is larger than its standard error (else symmetric)."""
    lo, hi = symmetric(estimate_T, variance, level)
    error = np.sqrt(variance.total_T)
    sure = (estimate_T > 0) & (estimate_T >= error)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        factor = np.exp((hi - estimate_T) / np.where(sure, estimate_T, np.nan))
    return np.where(sure, estimate_T / factor, lo), np.where(sure, estimate_T * factor, hi)


def mean_interval(values_N: NDArray[np.float64], *, level: float) -> tuple[float, float]:
    """Return the t interval for the mean of independent values; NaN for fewer than two."""
    N = len(values_N)
    if N < 2:
        return float("nan"), float("nan")
    half = special.stdtrit(N - 1, (1 + level) / 2) * values_N.std(ddof=1) / np.sqrt(N)
    mean = float(values_N.mean())
    return mean - float(half), mean + float(half)
