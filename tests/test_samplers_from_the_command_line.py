"""Every sampler from the command line to the report, over a space in which a knob depends on another."""

import csv
import math
from pathlib import Path

import pytest

from lab import study
from lab.spec import SAMPLERS

FILE = '''
"""Which of two families errs less?"""
from lab.spec import Choice, Float, Int, Replication, Study

STUDY = Study(
    question="Which of two families errs less?",
    data="digits",
    space=dict(
        family=Choice("mlp", "cnn"),
        depth=Int(1, 2, when={{"family": "mlp"}}),
        norm=Choice("none", "batch", when={{"family": "cnn"}}),
        learning_rate=Float(1e-3, 1e-1, log=True, n_grid=2),
        dropout=Float(0.0, 0.4, n_grid=2),
    ),
    fixed=dict(width=8, epochs=3, n_train=40),
    replication=Replication("disjoint", 2, 2),
    sampler="{sampler}",
    n_trials=12,
    learning_curve=(),
)
'''


def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, *flags: str) -> list[dict[str, str]]:
    """Run such a study in small and return its trials as the CSV beside the report has them."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"by_{sampler}.py"
    file.write_text(FILE.format(sampler=sampler))
    here = ["--engine", "inline", "--device", "cpu"]
    assert study.main(["run", str(file), "--smoke", *here, *flags]) == 0
    assert (tmp_path / "reports" / f"by_{sampler},smoke.html").stat().st_size > 100_000
    with (tmp_path / "reports" / f"by_{sampler},smoke" / "trials.csv").open() as rows:
        return [row for row in csv.DictReader(rows) if row["phase"] == "explore"]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_small_run_with_every_sampler_ends_in_a_report_and_keeps_its_conditions(tmp_path, monkeypatch, sampler):
    n_trials = 16 if sampler == "grid" else 8  # a grid goes through one family after the other
    rows = ran(tmp_path, monkeypatch, sampler, "--trials", str(n_trials))
    assert len(rows) == n_trials
    assert {row["outcome"] for row in rows} == {"finished"}
    assert {row["family"] for row in rows} == {"mlp", "cnn"}
    for row in rows:
        assert 0.999e-3 <= float(row["learning_rate"]) <= 0.1001
        assert math.isfinite(float(row["risk"]))
        assert (row["depth"] == "2") if row["family"] == "cnn" else (row["norm"] == "none")  # out of force: its default
    distinct = {(row["family"], row["depth"], row["norm"], row["learning_rate"], row["dropout"]) for row in rows}
    assert len(distinct) == (16 if sampler == "grid" else 8)
