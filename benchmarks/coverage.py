"""How often do nominal 90 and 95 % intervals cover the truth? python -m benchmarks.coverage [--quick]

Six learners whose parts of the risk are known (benchmarks/learners.py), in all three losses. Training sets, seeds and
test points are drawn anew in every repetition, and the sizes share their draws. The range over learners goes into
lab/analysis/coverage.json, from where the report takes it.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import learners, records
from benchmarks.learners import LEARNERS, N_INITS, TERMS, Sample
from lab.analysis.decomposition import LOSSES
from lab.analysis.inputs import checked
from lab.analysis.intervals import Spread

LEVELS = (0.90, 0.95)
N_POINTS = {"brier": None, "cross_entropy": 100, "zero_one": 100}  # test points, the first of them; None for all
SIZES = ((4, 4), (8, 4), (16, 4))
BIAS_AND_VARIANCE = {
    "brier": ("bias_sq", "variance"), "cross_entropy": ("bias", "variance"), "zero_one": ("kw_bias_sq", "kw_variance")
}  # fmt: skip
COIN = ("class frequencies", "zero_one")
SHIPPED = Path(__file__).parents[1] / "lab" / "analysis" / "coverage.json"
ABOUT = (
    "Coverage in % (n repetitions; its own standard error is 1.0 point at 95 % and n = 500) and the median width of "
    "the interval over the true value. Wanted: risk and bias 95 ± 3, variances at least 90 from 8 training sets on. "
    "`above` counts the misses where the truth lies above the interval at 95 %. Parts of a variance that are less than "
    "1 % of it are left out. Zero-one loss: terms of Kohavi and Wolpert (those about a mode have no interval), and no "
    "class frequencies, whose test points are all alike: their votes are throws of a single coin."
)


def measure(learner: str, sizes: tuple[tuple[int, int], ...], first: int, n: int) -> dict[str, np.ndarray]:
    """Return, for each loss, estimate and ends of each level: (n, sizes, terms, 1 + 2·levels)."""
    rows: dict[str, list[Any]] = {loss: [] for loss in TERMS}
    for seed in range(first, first + n):
        sample = LEARNERS[learner](seed, max(D for D, _ in sizes))
        for loss in TERMS:
            rows[loss].append([_estimate(sample, loss, D, n_inits) for D, n_inits in sizes])
    return {loss: np.array(row) for loss, row in rows.items()}


def _estimate(sample: Sample, loss: str, D: int, n_inits: int) -> np.ndarray:
    """Return (terms, 1 + 2·levels): what `decompose` gives at each level, without estimating anew for each."""
    N, rules = N_POINTS[loss], LOSSES[loss]
    posterior = None if sample.posterior_NC is None else sample.posterior_NC[:N]
    predictions = checked(sample.p_DINC[:D, :n_inits, :N], sample.labels_N[:N], posterior_NC=posterior)
    names = rules.names(predictions.layout)
    spread, found = Spread(predictions.layout, names), rules.terms(predictions.points(slice(None)), predictions.layout)
    spread.add(found)
    columns = [found.point_TN.mean(axis=1), *(end for level in LEVELS for end in spread.ends(level))]
    return np.stack(columns, axis=1)[[names.index(term) for term in TERMS[loss]]]


def table(
    learner: str, loss: str, sizes: tuple[tuple[int, int], ...], results: np.ndarray, truth: dict[str, float]
) -> list[dict[str, Any]]:
    """Return one row a size and term."""
    rows = []
    for s, (D, n_inits) in enumerate(sizes):
        for t, term in enumerate(TERMS[loss]):
            whole = truth[BIAS_AND_VARIANCE[loss][1]]
            if "variance_" in term and abs(truth[term]) < 0.01 * abs(whole):
                continue
            row: dict[str, Any] = {
                "loss": loss, "learner": learner, "training sets": D, "seeds": n_inits, "term": term,
                "n": len(results),
            }  # fmt: skip
            for k, level in enumerate(LEVELS):
                lo, hi = results[:, s, t, 1 + 2 * k], results[:, s, t, 2 + 2 * k]
                row[f"covers at {level:.0%}"] = round(
                    100 * float(((lo <= truth[term]) & (truth[term] <= hi)).mean()), 1
                )
            row["above"] = round(100 * float((hi < truth[term]).mean()), 1)
            row["width / truth"] = round(float(np.median(hi - lo) / abs(truth[term])), 3)
            rows.append(row)
    return rows


def truth_of(
    learner: str, loss: str, results: np.ndarray, limits: Sequence[dict[str, dict[str, float]]]
) -> dict[str, float]:
    """Return the true terms: closed forms where there are any, else variances from large samples (`learners.limits`).

    Risk, and bias and variance together, are unbiased: they are the means over all repetitions, which have more test
    points than the large samples. So is all of the Brier score, which is used for the MLP, whose samples are smaller.
    """
    if loss == "brier" and learner in learners.CLOSED:
        return learners.CLOSED[learner]()
    means = dict(zip(TERMS[loss], results[:, -1, :, 0].mean(axis=0).tolist(), strict=True))
    if loss == "brier" and learner == "MLP":
        return means
    truth = {term: float(np.mean([one[loss][term] for one in limits])) for term in TERMS[loss]}
    bias, variance = BIAS_AND_VARIANCE[loss]
    return truth | {"risk": means["risk"], bias: means[bias] + means[variance] - truth[variance]}


def run(n: int, sizes: tuple[tuple[int, int], ...], n_truth: int, n_workers: int = 2) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    with ProcessPoolExecutor(n_workers) as pool:
        measured = {name: _blocks(pool, n, measure, name, sizes) for name in LEARNERS}
        n_large = {name: max(1, n_truth // 3) if name == "MLP" else n_truth for name in LEARNERS}
        large = {name: _blocks(pool, n, learners.limits, name) for name, n in n_large.items()}
        rows = []
        for loss in TERMS:
            for learner in LEARNERS:
                if (learner, loss) != COIN:
                    results = np.concatenate([job.result()[loss] for job in measured[learner]])
                    limits = [one for job in large[learner] for one in job.result()]
                    rows += table(learner, loss, sizes, results, truth_of(learner, loss, results, limits))
    return rows


def _blocks(pool: Executor, n: int, task: Callable[..., Any], *arguments: Any) -> list[Future[Any]]:
    """Have repetitions 0 … n − 1 done, about a tenth at a time."""
    block = max(1, n // 10)
    return [pool.submit(task, *arguments, first, min(block, n - first)) for first in range(0, n, block)]


def ranges(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the lowest and highest coverage over learners of nominal 95 %, by loss, term and size."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        sizes = found.setdefault(row["loss"], {}).setdefault(row["term"], {})
        size, covers = f"{row['training sets']}x{row['seeds']}", row["covers at 95%"]
        low, high = sizes.get(size, (covers, covers))
        sizes[size] = [min(low, covers), max(high, covers)]
    return found


def shipped(rows: Sequence[dict[str, Any]]) -> str:
    """Return the text of lab/analysis/coverage.json."""
    lines = [
        f'  "{loss}": {{\n' + ",\n".join(f'   "{t}": {json.dumps(sizes)}' for t, sizes in terms.items()) + "\n  }"
        for loss, terms in ranges(rows).items()
    ]
    counts = f' "repetitions": {min(row["n"] for row in rows)},\n "learners": {len({row["learner"] for row in rows})},'
    return "{\n" + counts + '\n "covers": {\n' + ",\n".join(lines) + "\n }\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few repetitions, to see that it runs; writes nothing")
    quick = parser.parse_args().quick
    facts = records.machine(repetitions=20 if quick else 500)
    rows = run(20, ((4, N_INITS), (8, N_INITS)), 1) if quick else run(500, SIZES, 20)
    if quick:
        print(records.markdown("coverage", ABOUT, {"Coverage of intervals": rows}, facts))
    else:
        records.write("coverage", ABOUT, {"Coverage of intervals": rows}, facts)
        SHIPPED.write_text(shipped(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
