"""Intervals for the estimates of `lab.analysis.decomposition`.

Two things were sampled: replicas (a training set serves a whole row of them, a seed a whole column) and test points.
Their variances are estimated apart and added:

* replicas: delete-one-resample and delete-one-seed jackknife of the unbiased estimator (Efron & Stein 1981), rows and
  columns as clusters. Their sum counts the interaction twice, which errs on the wide side;
* test points: the variance of the mean of the per-point terms.

The interval is estimate ± t · standard error, with the Satterthwaite degrees of freedom of that sum. It covers the
value that infinitely many replicas and test points from the same sources would give. A bootstrap over a few replicas
is no alternative: its variance estimates are centred low by the factor 1 − 1/R.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def jackknife_variance(leave_one_out_KT: Array) -> Array:
    """Return the jackknife variance (T,) of T estimates from their K leave-one-cluster-out values (K, T)."""
    K = len(leave_one_out_KT)
    centred = leave_one_out_KT - leave_one_out_KT.mean(axis=0)
    return (K - 1) / K * (centred**2).sum(axis=0)


def combine(
    point_T: Array, leave_one_out: Sequence[Array], per_point_NT: Array, *, level: float
) -> tuple[Array, Array]:
    """Return the lower and upper ends (T,) of intervals for T estimates.

    Args:
        point_T: The estimates.
        leave_one_out: For each way of clustering the replicas, the estimates without one cluster, (K, T).
            A way for which they are NaN (too few clusters) leaves the ends NaN.
        per_point_NT: The terms of each test point; their mean is the estimate.
        level: Of the intervals, e.g. 0.95.
    """
    N = len(per_point_NT)
    variances, freedoms = [], []
    for estimates_KT in leave_one_out:
        variances.append(jackknife_variance(estimates_KT))
        freedoms.append(len(estimates_KT) - 1)
    if N > 1:
        variances.append(per_point_NT.var(axis=0, ddof=1) / N)
        freedoms.append(N - 1)
    if not leave_one_out or not variances:
        return np.full_like(point_T, np.nan), np.full_like(point_T, np.nan)
    variance_KT, freedom_K1 = np.stack(variances), np.array(freedoms, dtype=float)[:, None]
    total_T = variance_KT.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom_T = total_T**2 / (variance_KT**2 / freedom_K1).sum(axis=0)
    freedom_T = np.where(total_T == 0, freedom_K1.min(), freedom_T)
    half_T = stats.t.ppf((1 + level) / 2, freedom_T) * np.sqrt(total_T)
    return point_T - half_T, point_T + half_T


def mean_interval(values_N: Array, *, level: float) -> tuple[float, float]:
    """Return the t interval for the mean of independent values; NaN for fewer than two."""
    N = len(values_N)
    if N < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, N - 1) * values_N.std(ddof=1) / np.sqrt(N)
    mean = float(values_N.mean())
    return mean - float(half), mean + float(half)
