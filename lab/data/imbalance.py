"""Training sets of unequal classes, and what is commonly done about them.

Imbalance follows the exponential profile of the long-tailed benchmarks (Cui et al. 2019): class c has the share
∝ (its share of the pool) · ρ^(−c/(C−1)), so that the first class is ρ times as frequent as the last one. Only training
sets are unequal; the points of validation and test are those of the data set, and balanced scores show what the rare
classes lose.

How many examples a class has is a function of the configuration and the pool alone. So all training sets of a trial
are of one size, and sizes stay nested: the first m of n examples are the training set of size m.

Shape suffixes: N examples, C classes.
"""

from collections.abc import Callable

import numpy as np

from lab.data.pool import Pool
from lab.data.transforms import to_float
from lab.errors import SpecError
from lab.knobs import TrialConfig

MOST_DRAWS = 2**24  # from a scheme without an end, before the rarest class is given up
NEIGHBOURS = 5  # of SMOTE (Chawla et al. 2002)


def is_asked_for(config: TrialConfig) -> bool:
    """Return whether the classes of a training set have counts that this module decides."""
    return config.imbalance_ratio != 1 or config.sampling != "none"


def profile(counts_C: np.ndarray, ratio: float) -> np.ndarray:
    """Return what the share of each class in a training set is proportional to, from the counts of the pool."""
    steps = np.arange(len(counts_C)) / max(len(counts_C) - 1, 1)
    return counts_C * ratio**-steps


def class_sequence(weights_C: np.ndarray, n: int) -> np.ndarray:
    """Return n classes in an order whose every beginning has them in these proportions, to about one example.

    Webster's method of apportionment, which is monotone in the number of seats: class c is given its k-th place
    (k = 0, 1 …) in the order of (k + 1/2) / w_c.
    """
    most_C = np.ceil(n * weights_C / weights_C.sum()).astype(int) + 1
    keys = [(np.arange(most) + 0.5) / weight for most, weight in zip(most_C, weights_C, strict=True) if weight > 0]
    classes = np.repeat(np.flatnonzero(weights_C > 0), most_C[weights_C > 0])
    return classes[np.argsort(np.concatenate(keys), kind="stable")[:n]]


def drawn(draw: Callable[[int], Pool], available: int | None, pool_counts_C: np.ndarray, config: TrialConfig) -> Pool:
    """Return a training set of `config.n_train` examples with the profile of `config.imbalance_ratio`.

    Args:
        draw: m → the first m examples of a resample.
        available: How many there are; None if there is no end of them.
        pool_counts_C: How many examples of each class the pool has.
        config: What is asked for.

    Raises:
        SpecError: The resample has not so many examples of a class.
    """
    wanted = class_sequence(profile(pool_counts_C, config.imbalance_ratio), config.n_train)
    quota_C = np.bincount(wanted, minlength=len(pool_counts_C))
    m = 2 * config.n_train if available is None else available
    while True:
        examples = draw(m)
        lacking = np.flatnonzero(np.bincount(examples.labels, minlength=len(quota_C)) < quota_C)
        if not len(lacking):
            break
        if available is not None or m >= MOST_DRAWS:
            c = int(lacking[0])
            raise SpecError(
                f"imbalance_ratio = {config.imbalance_ratio:g}: {config.n_train} training examples take {quota_C[c]} "
                f"of class {c}, and a resample has {int((examples.labels == c).sum())} among its {m}: lower n_train, "
                "imbalance_ratio or the number of resamples"
            )
        m *= 2
    chosen = np.empty(len(wanted), dtype=np.int64)
    for label in np.unique(wanted):
        chosen[wanted == label] = np.flatnonzero(examples.labels == label)[: quota_C[label]]
    return examples.take(chosen)


def resampled(pool: Pool, sampling: str, rng: np.random.Generator) -> Pool:
    """Return a training set in which all its classes have equally many examples.

    Args:
        pool: The training set.
        sampling: "oversample" repeats examples, drawn with replacement, up to the most frequent class; "smote" puts new
            ones between neighbours of a class instead (imbalanced-learn); "undersample" leaves examples out, down to
            the rarest class; "none" changes nothing.
        rng: The stream of this resample.

    Raises:
        SpecError: A class has too few examples, or imbalanced-learn is not installed.
    """
    if sampling == "none":
        return pool
    counts = np.bincount(pool.labels)
    present = np.flatnonzero(counts)
    if sampling == "smote":
        return _smote(pool, int(counts[present].min()), rng)
    members = [np.flatnonzero(pool.labels == c) for c in present]
    if sampling == "undersample":
        least = counts[present].min()
        return pool.take(np.sort(np.concatenate([rng.permutation(inside)[:least] for inside in members])))
    most = counts.max()
    extra = [inside[rng.integers(0, len(inside), size=most - len(inside))] for inside in members]
    return pool.take(np.concatenate([np.arange(len(pool)), *extra]))


def _smote(pool: Pool, least: int, rng: np.random.Generator) -> Pool:
    try:
        from imblearn.over_sampling import SMOTE
    except ImportError:
        raise SpecError(
            "sampling 'smote' needs imbalanced-learn: pip install imbalanced-learn, or choose oversample"
        ) from None
    if least < 2:
        raise SpecError(
            "sampling 'smote' needs two examples of each class in every training set: raise n_train, "
            "or lower imbalance_ratio"
        )
    images = to_float(pool.images)
    smote = SMOTE(k_neighbors=min(NEIGHBOURS, least - 1), random_state=int(rng.integers(2**31)))
    flat, labels = smote.fit_resample(images.reshape(len(images), -1), pool.labels)
    return Pool(flat.reshape(-1, *images.shape[1:]).astype(np.float32), labels.astype(np.int64))
