"""Noise in the labels: injected into training labels, or drawn anew where the distribution of labels is known.

Injected noise is symmetric: a share ρ of the training labels is drawn anew, evenly from all C classes (so a share
ρ/C of them keeps its label by chance). An image of class y then has the posterior (1 − ρ)·e_y + ρ/C, known up to what
the clean labels themselves do not say. Only training labels are changed: validation and test points keep theirs, as in
the published studies, so that errors are counted against the truth. With the knob `noisy_targets` predictions are
decomposed against that posterior instead, that is, for labels with the same noise; noise and bias² then come apart.

Where the data set has a posterior of its own, `n_noise_draws` of a replication plan draws the labels of the training
set from it anew: the same images, other labels.

Shape suffixes: N examples, C classes.
"""

import dataclasses

import numpy as np

from lab.data.pool import Dataset, Pool, draw_labels
from lab.knobs import TrialConfig


def redrawn(pool: Pool, share: float, *, n_classes: int, rng: np.random.Generator, resample: bool = False) -> Pool:
    """Return the examples with a share of their labels redrawn evenly from all classes.

    Which labels are redrawn at a share is nested in which are at a larger one, and what the first m examples get does
    not depend on how many follow: trials that differ in `label_noise` or `n_train` compare in pairs.

    Args:
        pool: A training set.
        share: ρ, 0 to 1.
        n_classes: C.
        rng: The stream of this draw of the noise.
        resample: Whether to draw all labels from the pool's own posterior first, if it has one.
    """
    own, whether, which = rng.random((len(pool), 3)).T
    labels = pool.labels
    if resample and pool.posterior is not None:
        labels = draw_labels(pool.posterior, own)
    labels = np.where(whether < share, (which * n_classes).astype(np.int64), labels)
    return dataclasses.replace(pool, labels=labels)


def posterior(pool: Pool, share: float, n_classes: int) -> np.ndarray:
    """Return P(label | image) after injected noise, (N, C), from the pool's posterior, else from its labels."""
    clean_NC = np.eye(n_classes)[pool.labels] if pool.posterior is None else pool.posterior
    return (1 - share) * clean_NC + share / n_classes


def scored(dataset: Dataset, config: TrialConfig) -> Dataset:
    """Return the data set with the posterior that a trial's predictions are decomposed against."""
    if not config.noisy_targets:
        return dataset

    def mixed(part: Pool) -> Pool:
        return dataclasses.replace(part, posterior=posterior(part, config.label_noise, dataset.n_classes))

    return dataclasses.replace(
        dataset, pool=mixed(dataset.pool), validation=mixed(dataset.validation), test=mixed(dataset.test)
    )
