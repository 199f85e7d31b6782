"""Is it better to let trials grow than to give all the same plan? python -m benchmarks.adaptive [--quick]

Learners whose variance comes mostly from the training set, mostly from the seed, from both together, or is small. Each
is measured three ways: with a trial that grows (lab.growth) until half the 95 % interval of its variance is as narrow
as asked; with a fixed grid of as many replicas as that trial came to have; and with a fixed grid of as many as the
trials of all learners had on average, which costs a study the same. Fixed grids have the shape of the lab's default
plan, two training sets a seed.

A trial that grows stops when its interval is narrow, so it stops more often where it came out too narrow by chance:
`covers` says what is left of the nominal 95 %, and `mean / truth` what that does to the estimate.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from benchmarks import records
from lab import growth
from lab.analysis.decomposition import Decomposition, decompose
from lab.growth import Shape, half_width
from lab.replication import Replication

TERM = "variance"
PER_SEED = 2  # training sets a seed, of the fixed grids: that of Replication()
ABOUT = (
    "All trials of a table are asked for the same half-width of the 95 % interval of the variance and start from 4 "
    "training sets × 4 seeds. `grows`: replicas are added until it is reached, or 64 × 64 and 1,600 replicas "
    "(synthetic) or 24 × 16 (networks). `fixed, same trial`: a grid of two training sets a seed, with as many "
    "replicas as that repetition's trial came to have. `fixed, same study`: one with the mean number over the "
    "learners of the table. Replicas, training sets, seeds and half-widths are means over n repetitions, each with "
    "training sets, seeds and test points of its own; `reached` and `covers` are shares in %, `error` is the root "
    "of the mean squared error of the variance. The standard error of a share of 95 % is 1.2 points at n = 320 and "
    "2.4 at n = 80. Truth: in closed form (synthetic), the mean of the unbiased estimates of all 24 × 16 replicas "
    "(networks)."
)

_K, _SCALE = 4, 8e-4
_BETA = 0.05 * np.array([1.0, -1.0, 1.0, -1.0])
SYNTHETIC = {  # learner → shares of the variance from training set, seed, both together; and its size
    "training set": (0.9, 0.05, 0.05, 1.0),
    "seed": (0.05, 0.9, 0.05, 1.0),
    "both": (0.3, 0.3, 0.4, 1.0),
    "little variance": (0.45, 0.45, 0.1, 0.2),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "no hidden layer": dict(depth=0, n_train=60, epochs=1, init_gain=0.1, learning_rate=0.05),
    "hidden layer of 8": dict(depth=1, width=8, n_train=400, epochs=1, init_gain=0.7, learning_rate=0.02),
}
TARGETS = {"synthetic": 0.002, "networks": 0.006}
MOST: dict[str, Shape] = {"synthetic": (64, 64), "networks": (24, 16)}
MOST_REPLICAS = {"synthetic": 1600, "networks": 384}


class Sample(NamedTuple):
    """Predictions of all replicas that a trial could have (D, I, N, C), labels (N,), posterior (N, C)."""

    p_DINC: np.ndarray
    labels_N: np.ndarray
    posterior_NC: np.ndarray


def synthetic(learner: str, seed: int, most: Shape) -> Sample:
    """Linear predictions whose weights are a mean and normal deviations by training set, by seed and by both."""
    *shares, size = SYNTHETIC[learner]
    by_d, by_i, by_both = (math.sqrt(share * size * _SCALE) for share in shares)
    rng, (D, I) = np.random.default_rng(seed), most  # noqa: E741 - the letters of the shape legend
    points = rng.uniform(-math.sqrt(3), math.sqrt(3), (120, _K))
    weights_DIK = (
        0.6 * _BETA
        + by_d * rng.standard_normal((D, 1, _K))
        + by_i * rng.standard_normal((1, I, _K))
        + by_both * rng.standard_normal((D, I, _K))
    )
    p_DIN, truth_N = np.clip(0.5 + weights_DIK @ points.T, 0, 1), 0.5 + points @ _BETA
    posterior_NC = np.stack([1 - truth_N, truth_N], axis=-1)
    return Sample(np.stack([1 - p_DIN, p_DIN], axis=-1), np.zeros(len(points), dtype=int), posterior_NC)


def synthetic_truth(learner: str) -> float:
    """Return the variance: two classes, and E x² = 1 for each of the inputs."""
    *shares, size = SYNTHETIC[learner]
    return 2 * _K * sum(shares) * size * _SCALE


def networks(learner: str, seed: int, most: Shape) -> Sample:
    """Trained networks on images of `gaussians`. The replicas of a smaller grid are the first of a larger one."""
    import torch

    from lab import training
    from lab.data import datasets
    from lab.knobs import TrialConfig

    torch.set_num_threads(1)
    config = TrialConfig(family="mlp", batch_size=20, **NETWORKS[learner])
    data = datasets.load("gaussians", seed=seed, n_validation=1, n_test=250)
    plan = Replication("fresh", *most)
    *_, last = training.fit(config, data, plan, seed=seed, n_evaluations=1)
    assert data.test.posterior is not None
    return Sample(last.probabilities_test_DINC, data.test.labels, data.test.posterior)


def judged(sample: Sample, shape: Shape, level: float | None = 0.95) -> Decomposition:
    """Return the decomposition of the first training sets and seeds of a sample."""
    d, i = shape
    return decompose(sample.p_DINC[:d, :i], sample.labels_N, posterior_NC=sample.posterior_NC, level=level)


def grow(sample: Sample, plan: Replication) -> tuple[Shape, Decomposition]:
    """Let a trial grow; return its grid, and what is estimated from it."""
    shape = (plan.n_resamples, plan.n_inits)
    while True:
        found = judged(sample, shape)
        after = growth.following(plan, shape, found)
        if isinstance(after, str):
            return shape, found
        shape = after


def fixed(kind: str, n_replicas: float) -> Shape:
    """Return the grid of about as many replicas that has `PER_SEED` training sets a seed."""
    n_inits = max(3, round(math.sqrt(n_replicas / PER_SEED)))
    return min(MOST[kind][0], max(3, round(n_replicas / n_inits))), min(MOST[kind][1], n_inits)


Row = tuple[float, float, float, float, float, float]  # D, I, value, lo, hi, reached


def _row(kind: str, shape: Shape, found: Decomposition) -> Row:
    value, lo, hi = found.terms[TERM]
    assert value is not None
    assert lo is not None
    assert hi is not None
    return (*shape, value, lo, hi, float(half_width(found, TERM) <= TARGETS[kind]))


def plan_of(kind: str) -> Replication:
    """Return how trials of these learners grow."""
    d, i = MOST[kind]
    return Replication(
        "fresh", 4, 4, target_half_width=TARGETS[kind], max_resamples=d, max_inits=i, max_replicas=MOST_REPLICAS[kind]
    )


def first_pass(kind: str, learner: str, seeds: Sequence[int]) -> list[tuple[Row, Row, float]]:
    """Return, a repetition: the trial that grew, the fixed grid of its size, and the estimate of all replicas."""
    rows = []
    for seed in seeds:
        sample = DRAWS[kind](learner, seed, MOST[kind])
        shape, found = grow(sample, plan_of(kind))
        same = fixed(kind, shape[0] * shape[1])
        whole = math.nan  # what the estimates come to on average is only asked where it has no closed form
        if kind == "networks":
            whole = judged(sample, MOST[kind], None).terms[TERM].value or math.nan
        rows.append((_row(kind, shape, found), _row(kind, same, judged(sample, same)), whole))
    return rows


def second_pass(kind: str, learner: str, shape: Shape, seeds: Sequence[int]) -> list[Row]:
    """Return, a repetition, what a fixed grid gives."""
    return [_row(kind, shape, judged(DRAWS[kind](learner, seed, shape), shape)) for seed in seeds]


DRAWS: dict[str, Callable[[str, int, Shape], Sample]] = {"synthetic": synthetic, "networks": networks}


def summary(learner: str, design: str, rows: Sequence[Row], truth: float) -> dict[str, Any]:
    """Return a row of the table."""
    d, i, value, lo, hi, reached = np.array(rows).T
    return {
        "learner": learner, "design": design, "n": len(rows), "replicas": round(float((d * i).mean()), 1),
        "training sets": round(float(d.mean()), 1), "seeds": round(float(i.mean()), 1),
        "half-width / truth": round(float((hi - lo).mean() / 2 / truth), 3),
        "reached": round(100 * float(reached.mean()), 1),
        "error / truth": round(float(np.sqrt(((value - truth) ** 2).mean()) / truth), 3),
        "mean / truth": round(float(value.mean() / truth), 3),
        "covers": round(100 * float(((lo <= truth) & (truth <= hi)).mean()), 1),
    }  # fmt: skip


def table(kind: str, n: int, pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Return the rows of one kind of learners, from n repetitions each."""
    learners: Mapping[str, Any] = SYNTHETIC if kind == "synthetic" else NETWORKS
    block = max(1, n // 8)
    blocks = [range(start, min(n, start + block)) for start in range(0, n, block)]
    jobs = {name: [pool.submit(first_pass, kind, name, seeds) for seeds in blocks] for name in learners}
    firsts = {name: [row for job in parts for row in job.result()] for name, parts in jobs.items()}
    mean_size = float(np.mean([grown[0] * grown[1] for rows in firsts.values() for grown, _, _ in rows]))
    shape = fixed(kind, mean_size)
    again = {name: [pool.submit(second_pass, kind, name, shape, seeds) for seeds in blocks] for name in learners}
    rows = []
    for name, found in firsts.items():
        truth = synthetic_truth(name) if kind == "synthetic" else float(np.mean([whole for _, _, whole in found]))
        rows.append(summary(name, "grows", [grown for grown, _, _ in found], truth))
        rows.append(summary(name, "fixed, same trial", [same for _, same, _ in found], truth))
        same_study = [row for job in again[name] for row in job.result()]
        rows.append(summary(name, "fixed, same study", same_study, truth))
    return rows


def run(n_synthetic: int, n_networks: int, n_workers: int = 2) -> dict[str, list[dict[str, Any]]]:
    """Return the tables."""
    with ProcessPoolExecutor(n_workers) as pool:
        counts = {"synthetic": n_synthetic, "networks": n_networks}
        return {
            f"{kind.capitalize()}: half-width {TARGETS[kind]:g} asked for": table(kind, n, pool)
            for kind, n in counts.items()
            if n
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few repetitions, to see that it runs; writes nothing")
    quick = parser.parse_args().quick
    facts = records.machine()
    tables = run(6, 2) if quick else run(320, 80)
    if quick:
        print(records.markdown("adaptive", ABOUT, tables, facts))
    else:
        records.write("adaptive", ABOUT, tables, facts)


if __name__ == "__main__":
    main()
