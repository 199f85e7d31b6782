"""How often do nominal 90 and 95 % intervals cover the truth? python -m benchmarks.coverage [--quick]

Four learners whose parts of the risk are known: class frequencies with a random prior and a ridge regression with a
random start (both in closed form, no interaction), ridge on random ReLU features and a small MLP on `gaussians` (both
with an interaction; their truth is the mean of the unbiased estimates themselves over many draws). Training sets, seeds
and test points are drawn anew in every repetition, D = 4, 8, 16 training sets × 4 seeds.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from benchmarks import records
from lab.analysis.decomposition import decompose

TERMS = ("risk", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction")
LEVELS = (0.90, 0.95)
N_INITS = 4
ABOUT = (
    "Coverage in % (n repetitions; its own standard error is 1.0 point at 95 % and n = 500) and the median width of "
    "the interval over the true value. Wanted: risk and bias² 95 ± 3, variances at least 90 from 8 training sets on. "
    "`above` counts the misses where the truth lies above the interval at 95 %. Ridge and class frequencies have no "
    "interaction. 4 seeds throughout."
)


class Sample(NamedTuple):
    """Predictions (D, I, N, C), labels (N,) and the posterior (N, C) if it is known."""

    p_DINC: np.ndarray
    labels_N: np.ndarray
    posterior_NC: np.ndarray | None


def class_frequency(seed: int, D: int) -> Sample:
    """Relative frequencies of 20 labels and 6 pseudo-labels that the seed deals out; the posterior is not told."""
    rng = np.random.default_rng(seed)
    counts, prior = rng.multinomial(20, [0.5, 0.3, 0.2], size=D), 6 * rng.dirichlet([2, 2, 2], size=N_INITS)
    p_DIC = (counts[:, None] + prior) / 26
    return Sample(np.repeat(p_DIC[:, :, None], 300, axis=2), rng.choice(3, size=300, p=[0.5, 0.3, 0.2]), None)


def class_frequency_truth() -> dict[str, float]:
    pi, mean_prior = np.array([0.5, 0.3, 0.2]), 2.0
    resample = 20 * (pi * (1 - pi)).sum() / 26**2
    init = 36 * (1 / 3 * 2 / 3 * 3 / 7) / 26**2  # Dirichlet(2, 2, 2): variance m(1 − m)/7 with m = 1/3, three times
    bias = 1 - (pi**2).sum() + (((mean_prior - 6 * pi) / 26) ** 2).sum()
    return _parts(bias, resample, init)


_RIDGE = np.random.default_rng(7)
_X, _BETA = _RIDGE.standard_normal((30, 4)), _RIDGE.standard_normal(4)
_A = np.linalg.inv(_X.T @ _X + 5.0 * np.eye(4))
_SCALE, _SIGMA, _START = 0.05, 0.5, 0.6  # of predictions, of the noise in y, of the random start


def ridge(seed: int, D: int) -> Sample:
    """Ridge towards a random start, on a fixed design: p = ½ + 0.05·x'β̂, at random x."""
    rng = np.random.default_rng(seed)
    y, start = _X @ _BETA + _SIGMA * rng.standard_normal((D, 30)), _START * rng.standard_normal((N_INITS, 4))
    points = rng.standard_normal((200, 4))
    fitted = (y @ _X @ _A)[:, None] + 5.0 * start @ _A
    return _two_classes(0.5 + _SCALE * fitted @ points.T, 0.5 + _SCALE * points @ _BETA)


def ridge_truth() -> dict[str, float]:
    bias = 2 * _SCALE**2 * ((5.0 * _A @ _BETA) ** 2).sum()
    resample = 2 * _SCALE**2 * _SIGMA**2 * ((_A @ _X.T) ** 2).sum()
    init = 2 * _SCALE**2 * (5.0 * _START) ** 2 * (_A**2).sum()
    return _parts(bias, resample, init, noise=0.5 - 2 * _SCALE**2 * (_BETA**2).sum())


def random_feature(seed: int, D: int, n_inits: int = N_INITS) -> Sample:
    """Ridge on 30 random ReLU features of 40 examples of tanh(x'β) + noise, in 6 dimensions."""
    beta, rng = np.random.default_rng(3).standard_normal(6), np.random.default_rng(seed)
    x, w = rng.standard_normal((D, 40, 6)), rng.standard_normal((n_inits, 6, 30)) / np.sqrt(6)
    y, points = np.tanh(x @ beta) + 0.3 * rng.standard_normal((D, 40)), rng.standard_normal((200, 6))
    z = np.maximum(np.einsum("dnk,ikp->dinp", x, w), 0)
    gram = z.swapaxes(-1, -2) @ z + 0.3 * np.eye(30)
    weights = np.linalg.solve(gram, np.einsum("dinp,dn->dip", z, y)[..., None])[..., 0]
    fitted = np.einsum("inp,dip->din", np.maximum(np.einsum("nk,ikp->inp", points, w), 0), weights)
    return _two_classes(0.5 + _SCALE * fitted, 0.5 + _SCALE * np.tanh(points @ beta))


def mlp(seed: int, D: int) -> Sample:
    """A trained network: one hidden layer of 16, 8 epochs on 100 images of `gaussians`, posterior known."""
    import torch

    from lab import training
    from lab.data import datasets
    from lab.knobs import TrialConfig
    from lab.spec import Replication

    torch.set_num_threads(1)
    config = TrialConfig(
        family="mlp", depth=1, width=16, epochs=8, n_train=100, batch_size=25, learning_rate=0.02
    )  # fmt: skip
    data = datasets.load("gaussians", seed=seed, n_validation=1, n_test=150)
    plan = Replication(scheme="fresh", n_resamples=D, n_inits=N_INITS)
    *_, last = training.fit(config, data, plan, seed=seed, n_evaluations=1)
    return Sample(last.probabilities_test_DINC, data.test.labels, data.test.posterior)


def _two_classes(p: np.ndarray, truth_N: np.ndarray) -> Sample:
    truth_N = np.clip(truth_N, 0, 1)
    labels = np.zeros(len(truth_N), dtype=int)
    return Sample(np.stack([1 - p, p], axis=-1), labels, np.stack([1 - truth_N, truth_N], axis=-1))


def _parts(bias: float, resample: float, init: float, noise: float = 0.0) -> dict[str, float]:
    values = (noise + bias + resample + init, bias, resample + init, resample, init, 0.0)
    return dict(zip(TERMS, map(float, values), strict=True))


def _random_feature_truth(n: int) -> dict[str, float]:
    draws = [random_feature(10**6 + k, 40, 40) for k in range(n)]
    found = [decompose(*s[:2], posterior_NC=s.posterior_NC, level=None) for s in draws]
    return {term: float(np.mean([getattr(one, term) for one in found])) for term in TERMS}


LEARNERS: dict[str, Callable[[int, int], Sample]] = {
    "class frequencies": class_frequency, "ridge": ridge, "random features": random_feature, "MLP": mlp
}  # fmt: skip


def measure(learner: str, sizes: tuple[int, ...], first: int, n: int) -> list[list[list[list[float]]]]:
    """Return estimate and ends of each level, by repetition, size and term: (n, sizes, terms, 1 + 2·levels).

    The trials of different sizes share their draws: the smaller ones are the first rows of the largest.
    """
    rows = []
    for seed in range(first, first + n):
        sample = LEARNERS[learner](seed, max(sizes))
        row = []
        for size in sizes:
            found = [
                decompose(sample.p_DINC[:size], sample.labels_N, posterior_NC=sample.posterior_NC, level=level)
                for level in LEVELS
            ]
            row.append([[found[0].terms[t].value, *(e for one in found for e in one.terms[t][1:])] for t in TERMS])
        rows.append(row)
    return rows  # type: ignore[return-value]


def table(learner: str, sizes: tuple[int, ...], results: np.ndarray, truth: dict[str, float]) -> list[dict[str, Any]]:
    rows = []
    for s, size in enumerate(sizes):
        for t, term in enumerate(TERMS):
            if abs(truth[term]) < 1e-12:
                continue  # additive learners have no interaction, and their estimate of it is 0 but for rounding
            row: dict[str, Any] = {"learner": learner, "training sets": size, "term": term, "n": len(results)}
            for k, level in enumerate(LEVELS):
                lo, hi = results[:, s, t, 1 + 2 * k], results[:, s, t, 2 + 2 * k]
                row[f"covers at {level:.0%}"] = round(
                    100 * float(((lo <= truth[term]) & (truth[term] <= hi)).mean()), 1
                )
            row["above"] = round(100 * float((hi < truth[term]).mean()), 1)
            row["width / truth"] = round(float(np.median(hi - lo) / abs(truth[term])), 3)
            rows.append(row)
    return rows


def run(n: int, sizes: tuple[int, ...], n_truth: int, n_workers: int = 2) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    block = max(1, n // 10)
    with ProcessPoolExecutor(n_workers) as pool:
        jobs = {
            learner: [
                pool.submit(measure, learner, sizes, first, min(block, n - first)) for first in range(0, n, block)
            ]
            for learner in LEARNERS
        }
        truth_of_features = pool.submit(_random_feature_truth, n_truth)
        found = {learner: np.array([row for job in parts for row in job.result()]) for learner, parts in jobs.items()}
        truths = {"class frequencies": class_frequency_truth(), "ridge": ridge_truth()}
        truths["random features"] = truth_of_features.result()
    truths["MLP"] = dict(zip(TERMS, found["MLP"][:, -1, :, 0].mean(axis=0).tolist(), strict=True))
    return [row for learner in LEARNERS for row in table(learner, sizes, found[learner], truths[learner])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few repetitions, to see that it runs; writes nothing")
    quick = parser.parse_args().quick
    facts = records.machine(repetitions=20 if quick else 500)
    rows = run(20, (4, 8), 3) if quick else run(500, (4, 8, 16), 60)
    if quick:
        print(records.markdown("coverage", ABOUT, {"Coverage of intervals": rows}, facts))
    else:
        records.write("coverage", ABOUT, {"Coverage of intervals": rows}, facts)


if __name__ == "__main__":
    main()
