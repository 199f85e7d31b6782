"""Training sets: which examples a replica gets.

Five schemes (science: Geman et al. 1992; Yang et al. 2020; Breiman 1996 for the bootstrap):

* `fresh`: drawn anew from a generator. The real thing.
* `disjoint`: blocks of a partition of the pool. Unbiased, at sizes up to pool / D.
* `subsample`: without replacement, each on its own. Any two overlap, so part of the variance is missed.
* `bootstrap`: with replacement, each on its own. About 63 % distinct examples at the size of the pool.
* `seeds`: one training set for all replicas. Shows what the seed does; what the data do is booked as bias².

Stratified training sets have the pool's shares of the classes, to one example a class; of every size.

Training set number `index` is a function of (data set, scheme, seed, index) alone, and nested in its size: the first
m examples of the training set of size n are the training set of size m. So a learning curve grows the same sets.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from lab.data import imbalance, label_noise
from lab.data.pool import Dataset, Pool
from lab.errors import SpecError
from lab.knobs import TrialConfig
from lab.replication import SCHEMES, Replication
from lab.seeds import generator


def training_sets(
    config: TrialConfig,
    dataset: Dataset,
    replication: Replication,
    *,
    seed: int,
    first_resample: int = 0,
    first_noise: int = 0,
) -> list[Pool]:
    """Return the training sets of a trial, all of one size.

    They have the imbalance, the label noise and the sampling that the configuration asks for. One a resample; with
    K = `n_noise_draws` > 1, K a resample, one after another: the same images, other labels. The noise then comes from
    the streams `first_noise` to `first_noise` + K − 1, the same for every resample: draw k is crossed with resample and
    seed, and lands on whatever examples stand at its positions. Otherwise each resample has a noise of its own, which
    counts as part of drawing it.

    Raises:
        SpecError: The data set cannot give them.
    """
    if (config.label_noise or replication.n_noise_draws > 1) and config.sampling != "none":
        raise SpecError(
            "label_noise with sampling: noisy labels make the sizes of balanced training sets differ: choose one"
        )
    sets, crossed = [], replication.n_noise_draws > 1
    for d in range(first_resample, first_resample + replication.n_resamples):
        draw = partial(
            draw_resample, dataset, replication.scheme, n_blocks=replication.n_blocks, seed=seed, index=d,
            stratified=replication.stratified,
        )  # fmt: skip
        if imbalance.is_asked_for(config):
            drawn = _imbalanced(config, dataset, replication, draw)
            drawn = imbalance.resampled(drawn, config.sampling, generator(seed, "rebalance", d))
        else:
            drawn = draw(n_train=config.n_train)
        for k in range(replication.n_noise_draws):
            rng = generator(seed, "label_noise", first_noise + k if crossed else d)
            noisy = label_noise.redrawn(
                drawn, config.label_noise, n_classes=dataset.n_classes, rng=rng, resample=crossed
            )
            sets.append(noisy if crossed or config.label_noise else drawn)
    return sets


def _imbalanced(config: TrialConfig, dataset: Dataset, replication: Replication, draw: Callable[..., Pool]) -> Pool:
    n_pool = len(dataset.pool)
    ends = {"fresh": None, "bootstrap": None, "disjoint": n_pool // replication.n_blocks}
    counts_C = np.bincount(dataset.pool.labels, minlength=dataset.n_classes)
    return imbalance.drawn(lambda m: draw(n_train=m), ends.get(replication.scheme, n_pool), counts_C, config)


def draw_resample(
    dataset: Dataset, scheme: str, *, n_train: int, n_blocks: int, seed: int, index: int, stratified: bool = False
) -> Pool:
    """Return training set number `index`.

    Args:
        dataset: Where the examples come from.
        scheme: One of `lab.replication.SCHEMES`.
        n_train: Its size.
        n_blocks: Blocks of one partition of the pool (`disjoint` only): replication.n_blocks. The indices
            k·n_blocks to (k+1)·n_blocks − 1 are the blocks of partition k, and partitions are independent.
        seed: The study seed.
        index: Which one, counted through all phases of a study.
        stratified: Whether it has the pool's shares of the classes.

    Raises:
        SpecError: The data set cannot give such a training set.
    """
    check_scheme(dataset, scheme, n_train=n_train, n_resamples=n_blocks)
    if index < 0:
        raise ValueError(f"training set number {index}: give 0 or more")
    n_pool = len(dataset.pool)
    if scheme == "disjoint":
        partition, block = divmod(index, n_blocks)
        start = block * (n_pool // n_blocks)
        order = _order(dataset.pool, generator(seed, "resample", partition), stratified)
        return dataset.pool.take(order[start : start + n_train])
    rng = generator(seed, "resample", index)
    if scheme == "fresh":
        assert dataset.draw is not None
        return dataset.draw(n_train, rng)
    if scheme in ("subsample", "seeds"):
        return dataset.pool.take(_order(dataset.pool, rng, stratified)[:n_train])
    if stratified:
        return dataset.pool.take(_stratified_bootstrap(dataset.pool.labels, n_train, rng))
    return dataset.pool.take(rng.integers(0, n_pool, size=n_train))


def _order(pool: Pool, rng: np.random.Generator, stratified: bool) -> np.ndarray:
    return stratified_order(pool.labels, rng) if stratified else rng.permutation(len(pool))


def stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of the examples in which any m neighbours hold each class in its share, to one example.

    Systematic sampling: the examples of a class, shuffled, are spread evenly over [0, 1) from a random start.
    """
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(position, kind="stable")


def _stratified_bootstrap(labels: np.ndarray, n_train: int, rng: np.random.Generator) -> np.ndarray:
    """Return n_train indices drawn with replacement; the classes follow each other as in a stratified order."""
    pattern = labels[stratified_order(labels, rng)]
    members = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    wanted = pattern[np.arange(n_train) % len(labels)]
    u = rng.random(n_train)
    return np.array([members[label][int(x * len(members[label]))] for label, x in zip(wanted, u, strict=True)])


def check_plan(dataset: Dataset, replication: Replication, *, n_train: int) -> None:
    """Check that the data set can give all the training sets of `n_train` examples that a trial can come to have.

    Raises:
        SpecError: It cannot; the message says what would fit.
    """
    n_most, n_pool = replication.n_blocks, len(dataset.pool)
    if replication.grows and replication.scheme == "disjoint" and n_train * n_most > n_pool >= n_train:
        raise SpecError(
            f"replication: up to {n_most} disjoint training sets of n_train = {n_train} need {n_most * n_train} "
            f"examples, and the pool of {dataset.name} has {n_pool}: lower n_train to {n_pool // n_most} or less, or "
            f"max_resamples to {n_pool // n_train}, or choose the scheme subsample"
        )
    check_scheme(dataset, replication.scheme, n_train=n_train, n_resamples=n_most)


def check_scheme(dataset: Dataset, scheme: str, *, n_train: int, n_resamples: int) -> None:
    """Check that the data set can give `n_resamples` training sets of `n_train` examples.

    Raises:
        SpecError: It cannot; the message says what would fit.
    """
    n_pool = len(dataset.pool)
    if scheme not in SCHEMES:
        raise SpecError(f"replication: scheme {scheme!r} is unknown: choose one of {', '.join(SCHEMES)}")
    if n_train < 1 or n_resamples < 1:
        raise SpecError(f"replication: {n_resamples} training sets of {n_train} examples: give 1 or more of both")
    if scheme == "fresh" and dataset.draw is None:
        raise SpecError(
            f"replication: scheme 'fresh' needs a generator, and {dataset.name} is a fixed set of examples: "
            "choose disjoint, subsample or bootstrap, or the data set gaussians"
        )
    if scheme == "disjoint" and n_train > n_pool // n_resamples:
        most, sets = n_pool // n_resamples, n_pool // n_train
        hint = f"lower n_train to {most} or less" if most else f"lower n_resamples to {n_pool} or less"
        raise SpecError(
            f"replication: {n_resamples} disjoint training sets of n_train = {n_train} need {n_resamples * n_train} "
            f"examples, and the pool of {dataset.name} has {n_pool}: {hint}"
            + (f", or n_resamples to {sets}" if most and sets >= 2 else "")
            + ", or choose the scheme subsample, in the study file or by --set scheme=subsample"
        )
    if scheme in ("subsample", "seeds") and n_train > n_pool:
        raise SpecError(
            f"replication: n_train = {n_train} examples without replacement, and the pool of {dataset.name} "
            f"has {n_pool}: lower n_train to {n_pool} or less"
        )


def distinct_share(n_train: int, n_pool: int) -> float:
    """Return the expected share of distinct examples in a bootstrap training set, N·(1 − (1 − 1/N)ᵐ) / m."""
    if n_pool == 1:
        return 1 / n_train
    return float(-n_pool * math.expm1(n_train * math.log1p(-1 / n_pool)) / n_train)


def describe(replication: Replication, *, n_train: int, n_pool: int) -> str:
    """Return a few sentences for `run`, `status` and the report: what a plan estimates, and what it cannot show."""
    scheme = _describe_scheme(replication, n_train, n_pool)
    if replication.n_partitions > 1:
        scheme += (
            f" {replication.n_partitions} partitions are averaged; training sets of different partitions share "
            f"examples, so only those of one partition are compared."
        )
    if replication.stratified:
        scheme += (
            " Each has the pool's shares of the classes, so what the shares would add to the variance is left out."
        )
    if replication.n_noise_draws > 1:
        scheme += (
            f" Each is used with {replication.n_noise_draws} independent draws of its label noise, "
            "so that the variance which the noise causes shows apart."
        )
    if replication.grows:
        scheme += (
            f" Training sets and seeds are added to a trial until the interval of its {replication.target_term} is "
            f"within ± {replication.target_half_width:g}, up to {replication.max_resamples} training sets, "
            f"{replication.max_inits} seeds and {replication.max_replicas} replicas. As that happens sooner where the "
            "estimate came out low by chance, intervals cover somewhat less than they say (benchmarks/adaptive.md)."
        )
    return scheme


def _describe_scheme(replication: Replication, n_train: int, n_pool: int) -> str:
    scheme, n_blocks = replication.scheme, replication.n_blocks
    sets = f"{replication.n_resamples} training sets of {n_train:,} examples"
    if scheme == "fresh":
        return (
            f"{sets} are drawn anew from the generator, so they share nothing and the variance is that of the whole "
            f"process of drawing and training at n = {n_train:,}."
        )
    if scheme == "disjoint":
        each = f", {n_blocks} to a partition" if replication.n_partitions > 1 else ""
        return (
            f"{sets} are disjoint blocks of a pool of {n_pool:,}{each}, so the variance estimate is unbiased at this "
            f"size. It holds for n = {n_train:,}: {n_blocks} blocks of more than {n_pool // n_blocks:,} do not "
            "fit into the pool."
        )
    if scheme == "seeds":
        return (
            f"All replicas share one training set of {n_train:,} examples, and only their seeds differ. So the "
            "variance is that from the seed; what another training set would change is booked as bias²."
        )
    fraction = n_train / n_pool
    if scheme == "subsample" and n_train == n_pool:
        return (
            f"{sets} are all the whole pool (m/N = 1.00), so none of the variance from sampling is captured: "
            "it is booked as bias², and only that from initialisation shows."
        )
    if scheme == "subsample":
        return (
            f"{sets} are each drawn without replacement from a pool of {n_pool:,} (m/N = {fraction:.2f}), so any "
            f"two share {n_train * fraction:,.0f} examples on average. About 1 − m/N = {1 - fraction:.0%} of the "
            "variance from sampling is captured, and the rest is booked as bias²."
        )
    share = distinct_share(n_train, n_pool)
    return (
        f"{sets} are each drawn with replacement from a pool of {n_pool:,}: {share:.0%} of the examples of one are "
        "distinct on average, and duplicates count more than once. So it shows the variance of training on "
        f"reweighted examples of this pool, not that of {n_train:,} new ones."
    )
