"""What is said of the coverage of intervals: it is what was measured, and it is said where it falls short."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import coverage as benchmark
from benchmarks import records
from lab import predictions_file
from lab.analysis import coverage
from lab.analysis.diagnosis import checks_table, diagnose
from lab.report import sections_more
from tests.analysis.histories import run, trials

SHORT = {
    "repetitions": 500, "learners": 2,
    "covers": {"brier": {"risk": {"4x4": [93.0, 95.0], "8x4": [91.9, 95.0]}, "bias_sq": {"4x4": [94.0, 99.6]},
                         "variance": {"4x4": [90.0, 97.0], "8x4": [89.0, 96.0]}}},
}  # fmt: skip


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(coverage, "_table", lambda: SHORT)


def test_what_the_lab_says_is_what_the_committed_benchmark_measured():
    content = json.loads((records.FOLDER / "coverage.json").read_text())
    rows = content["tables"]["Coverage of intervals"]
    assert coverage.TABLE.read_text() == benchmark.shipped(rows)
    this = {"loss": "brier", "term": "variance", "training sets": 8, "seeds": 4}
    lowest = min(row["covers at 95%"] for row in rows if this.items() <= row.items())
    assert coverage.measured("variance", 8, 4).low == lowest
    assert all(row["n"] >= 500 for row in rows)


def test_a_design_stands_under_the_largest_measured_one_that_it_contains(short):
    assert coverage.measured("risk", 5, 7) == (93.0, 95.0, 4, 4, 500)
    assert coverage.measured("risk", 100, 100) == (91.9, 95.0, 8, 4, 500)
    assert coverage.measured("risk", 8, 3) is None and coverage.measured("risk", 3, 4) is None
    assert coverage.measured("risk", 8, 4, loss="zero_one") is None


def test_it_falls_short_below_92_for_risk_and_below_90_for_a_variance(short):
    assert coverage.remark("risk", 4, 4) == coverage.remark("variance", 4, 4) == ""
    assert coverage.remark("risk", 8, 4).endswith("in 92–95 % of cases")
    assert coverage.remark("variance", 8, 4).endswith("in 89–96 % of cases")
    assert coverage.remark("bias_sq", 4, 4) == ""  # more often than wanted is not short


def test_the_report_checks_the_coverage_of_its_own_design(short):
    def check(**plan):
        table = checks_table(diagnose(trials(run(0.3, 0.05, **plan)))).set_index("name")
        return table.loc["coverage of 95 % intervals"]

    assert check(n_resamples=4)["status"] == "ok"
    assert check(n_resamples=8)["status"] == "attention"
    assert "variance 89–96 %" in check(n_resamples=8)["measured"]
    assert "grow" not in check(n_resamples=4)["note"] and "grow" in check(n_resamples=4, half_width=0.01)["note"]
    assert check(n_resamples=3)["status"] == check(n_noise_draws=3)["status"] == "not measured"


def test_the_table_of_other_losses_says_which_of_its_intervals_fall_short(monkeypatch):
    covers = {"cross_entropy": {"variance_init": {"8x4": [89.4, 95.2]}, "bias": {"8x4": [98.2, 99.6]}}}
    monkeypatch.setattr(coverage, "_table", lambda: SHORT | {"covers": covers})
    text = sections_more._short(pd.Series({"n_resamples": 8.0, "n_inits": 4.0}))
    remark = coverage.remark("variance_init", 8, 4, loss="cross_entropy")
    assert text == f" Cross-entropy, variance from the seed: {remark}."
    assert sections_more._short(pd.Series({"n_resamples": 4.0, "n_inits": 4.0})) == ""


def test_decompose_marks_the_numbers_whose_intervals_fall_short(short, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "some.npz"
    for n_inits, marked in ((4, {"risk", "variance"}), (3, set())):
        np.savez(path, probabilities=rng.dirichlet(np.ones(3), size=(8, n_inits, 20)), labels=np.zeros(20, dtype=int))
        parts = predictions_file.decompose(path)
        assert set(parts["coverage"]) == marked
        lines = predictions_file.as_text(parts).splitlines()
        assert {line.split()[0] for line in lines if line.endswith(" *")} == marked
        assert sum("measured to cover the truth" in line for line in lines) == len(marked)
    assert predictions_file.decompose(path, level=0.9)["coverage"] == {}  # of 95 % intervals alone


@pytest.mark.parametrize(("shape", "design", "says"), [
    ((2, 4), "crossed", "2 training sets"), ((4, 2), "crossed", "2 seeds"),
    ((3, 3, 2), "crossed", "2 draws of the label noise"), ((2, 3), "nested", "too few replicas"),
    ((2,), "independent", "too few replicas"), ((3, 3), "crossed", None), ((4, 3, 3), "crossed", None),
    ((3, 1), "crossed", None), ((1, 3), "crossed", None), ((3, 2), "nested", None),
])  # fmt: skip
@pytest.mark.parametrize("loss", ["brier", "cross_entropy", "zero_one"])
def test_each_number_has_an_interval_or_a_reason_for_none(shape, design, says, loss, tmp_path):
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), size=(*shape, 12))
    np.savez(tmp_path / "few.npz", probabilities=p, labels=rng.integers(3, size=12))
    parts = predictions_file.decompose(tmp_path / "few.npz", loss=loss, design=design)
    names = [key.removesuffix("_lo") for key in parts if key.endswith("_lo")]
    bare = {name for name in names if parts[name] is not None and parts[f"{name}_lo"] is None}
    assert set(parts["no_interval"]) == bare
    text = predictions_file.as_text(parts)
    assert (says in text) if says else ("three or more" not in text and "too few" not in text)
    assert parts["risk_lo"] < parts["risk"] < parts["risk_hi"]
    bias = {"brier": "bias_sq", "cross_entropy": "bias", "zero_one": "kw_bias_sq"}[loss]
    variance = "kw_variance" if loss == "zero_one" else "variance"
    assert parts[bias] + parts[variance] == pytest.approx(parts["risk"], abs=1e-10)
