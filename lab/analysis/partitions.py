"""Several partitions of one pool into disjoint training sets: estimates within each partition, averaged.

Training sets of different partitions overlap, so pairs of replicas are compared within a partition only, and the terms
are the means over partitions. The partitions cut up the same pool, so they are not independent either; how much a
further one adds is not known, and the intervals take the safe end: they are as wide as if it added nothing.

Shape suffixes: D resamples, I inits, K label-noise draws, N test points, T terms, Z clusters of replicas.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.analysis.inputs import as_array
from lab.analysis.layout import Array, Estimates, Layout


def rows_of(partition_D: ArrayLike, layout: Layout) -> list[NDArray[np.int64]]:
    """Return the resamples of each partition.

    Raises:
        ValueError: There is not one number a resample, or partitions are of different sizes or of a single resample.
    """
    D = layout.used_DIK.shape[0]
    partition = as_array(partition_D, "partition")
    if partition.shape != (D,):
        raise ValueError(f"partition has shape {partition.shape}: give one number for each of the {D} resamples")
    rows = [np.flatnonzero(partition == p) for p in np.unique(partition)]
    sizes = sorted({len(one) for one in rows})
    if len(sizes) > 1 or sizes[0] < 2:
        raise ValueError(f"partitions have {', '.join(map(str, sizes))} resamples: give all the same number, 2 or more")
    return rows


def averaged(layout: Layout, rows: Sequence[NDArray[np.int64]], estimates: Sequence[Estimates]) -> Estimates:
    """Return the means over partitions, and what changes without each cluster of replicas.

    Args:
        layout: Of all replicas.
        rows: The resamples of each partition.
        estimates: The terms of each partition by itself.
    """
    without = {}
    for axes in layout.clusters:
        if 0 not in axes:
            without[axes] = np.mean([one.without[axes] for one in estimates], axis=0)
            continue
        sizes = layout.sizes[axes].reshape(layout.used_DIK.shape[0], -1)
        n_parts, _, n_points = estimates[0].without[axes].shape
        left: Array = np.empty((n_parts, *sizes.shape, n_points))
        for index, one in zip(rows, estimates, strict=True):
            values = one.without[axes].reshape(n_parts, *sizes[index].shape, n_points)
            used = sizes[index] > 0
            # the influence of a cluster is its part of a mean over all clusters; √ of the number of partitions undoes
            # the gain that as many independent ones would bring
            influence = (used.sum() - 1) * (values[:, used].mean(axis=1)[:, None, None] - values) * np.sqrt(len(rows))
            left[:, index] = np.where(used[..., None], influence, 0.0) / (1 - (sizes > 0).sum())
        without[axes] = left.reshape(n_parts, -1, n_points)
    point_TN = np.mean([one.point_TN for one in estimates], axis=0)
    return Estimates(point_TN, without, estimates[0].weights_TP)
