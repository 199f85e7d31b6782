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
    """Return the means over partitions, and what they would be without each cluster of replicas.

    Args:
        layout: Of all replicas.
        rows: The resamples of each partition.
        estimates: The terms of each partition by itself.
    """
    point_NT = np.mean([one.point_NT for one in estimates], axis=0)
    without = {}
    for axes in layout.clusters:
        if 0 not in axes:
            without[axes] = np.mean([one.without[axes] for one in estimates], axis=0)
            continue
        sizes = layout.sizes(axes).reshape(layout.used_DIK.shape[0], -1)
        left: Array = np.empty((*sizes.shape, *point_NT.shape))
        for index, one in zip(rows, estimates, strict=True):
            values = one.without[axes].reshape(len(index), -1, *point_NT.shape)
            used = sizes[index] > 0
            # the influence of a cluster is its part of a mean over all clusters; √ of the number of partitions undoes
            # the gain that as many independent ones would bring
            influence = (used.sum() - 1) * (values[used].mean(axis=0) - values) * np.sqrt(len(rows))
            left[index] = point_NT - np.where(used[..., None, None], influence, 0.0) / ((sizes > 0).sum() - 1)
        without[axes] = left.reshape(-1, *point_NT.shape)
    return Estimates(point_NT, without)
