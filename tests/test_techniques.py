"""README's tables of techniques: made from the table of a study, complete, and each row with a place in the code."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import techniques
from lab.analysis.interventions import COLUMNS
from lab.knobs import KNOBS
from lab.study_file import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## What each technique changed, measured")[2].partition("\n## ")[0]
STUDIES = {name: load(ROOT / "studies" / f"{name}.py") for name in ("interventions", "interventions_cnn")}


def rows_of(text):
    """The rows of Markdown tables as lists of cells, without heads."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] != "technique" and set(cells[0]) != {"-"}]


def measured_of(name):
    """What stands in the README between the marks of a study: its caption and its table."""
    return SECTION.partition(f"<!-- techniques: {name} -->")[2].partition("<!-- end -->")[0]


def number_in(cell):
    """The estimate of a cell such as "**−2.1 [−3.0, −1.2]**"."""
    return float(cell.strip("*").split(" ")[0].replace("−", "-"))


@pytest.fixture
def table():
    changes = {
        "calm_0.5": (-0.021, -0.03, -0.012),
        "ensemble_of_2_seeds": (-0.03, -0.05, -0.01),
        "odd": (0.01, -0.02, 0.04),
        "wild": (0.05, 0.02, 0.08),
    }
    rows = []
    for variant, (difference, lo, hi) in changes.items():
        shared = {"variant": variant, "n_resamples": 8, "n_inits": 4, "n_test": 100, "level": 0.95}
        for term in ("risk", "bias_sq", "variance"):
            none = variant.startswith("ensemble") and term == "bias_sq"
            ends = (0.0, np.nan, np.nan) if none else (difference, lo, hi)
            rows.append(
                shared | {"term": term, "baseline": 0.2} | dict(zip(("difference", "lo", "hi"), ends, strict=True))
            )
    rows.append({"variant": "calm_0.5", "term": "epoch_time", "value": 1.5, "lo": 0.4, "hi": 0.625, "n_timings": 5})
    rows.append({"variant": "ensemble_of_2_seeds", "term": "epoch_time", "value": 2.0, "difference": 1.0})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_a_table_is_in_the_order_of_gains_and_bold_where_chance_does_not_explain_them(table):
    knobs = {"baseline": {}, "calm_0.5": {"dropout": 0.5}, "odd": {"family": "cnn", "width": 16}, "wild": {"l1": 0.1}}
    text = techniques.markdown(table, knobs, "mlp")
    ensemble, calm, odd, wild = rows_of(text)
    assert ensemble[:3] == ["ensemble of 2 seeds", techniques.ENSEMBLE, "analysis/interventions.py"]
    assert ensemble[3:] == ["**−3.0 [−5.0, −1.0]**", "0", "−3.0 [−5.0, −1.0]", "2"]
    assert calm[:4] == ["calm", "`dropout=0.5`", "training/dropout.py", "**−2.1 [−3.0, −1.2]**"]
    assert calm[-1] == "1.50 [1.40, 1.62]"
    assert odd[1:4] == ["`family=cnn, width=16`", "models/cnn.py", "+1.0 [−2.0, +4.0]"]
    assert wild[3] == "**+5.0 [+2.0, +8.0]**"
    assert "Of 4 techniques 2 lowered the risk, 1 raised it, and of 1 it cannot be said" in text
    assert "n = 32 replicas a row (8 training sets × 4 seeds), 100 test images" in text


def test_a_table_goes_between_its_marks_and_nothing_else_changes():
    readme = "a\n<!-- techniques: one -->\nold\n<!-- end -->\nb\n<!-- techniques: two -->\nkept\n<!-- end -->\n"
    once = techniques.placed(readme, "one", "new\n")
    assert once == readme.replace("\nold\n", "\n\nnew\n\n")
    assert techniques.placed(once, "one", "new\n") == once
    with pytest.raises(ValueError, match="no table of three: put"):
        techniques.placed(readme, "three", "new")


@pytest.mark.parametrize("name", STUDIES)
def test_the_readme_has_a_row_for_every_technique_of_the_study_as_it_is_now(name):
    study = STUDIES[name]
    rows = rows_of(measured_of(name))
    ensembles = 2 if study.replication.n_inits >= 8 else 1
    wanted = sorted(
        f"`{', '.join(f'{k}={techniques._value(v)}' for k, v in knobs.items())}`"
        for knobs in list(study.variants.values())[1:]
    )
    assert sorted(row[1] for row in rows) == sorted([*wanted, *[techniques.ENSEMBLE] * ensembles])
    for row in rows:
        assert (ROOT / "lab" / row[2]).is_file()
        assert re.fullmatch(r"(\*\*)?[+−]?[\d.]+( \[.+\])?(\*\*)?", row[3])
        lo, hi = re.findall(r"[+−]?\d[\d.]*", row[3])[1:]
        if "0.0" not in (lo[1:], hi[1:]):  # such an end may lie on either side of 0
            assert row[3].startswith("**") == (lo[0] == hi[0])
    differences = [number_in(row[3]) for row in rows]
    assert differences == sorted(differences)


@pytest.mark.parametrize("name", STUDIES)
def test_the_caption_counts_the_rows_of_its_table_that_are_bold(name):
    text = measured_of(name)
    counts = re.search(r"Of (\d+) techniques (\d+) lowered the risk, (\d+) raised it, and of (\d+) it cannot", text)
    changes = [row[3] for row in rows_of(text)]
    lower, higher = (sum(change.startswith(f"**{sign}") for change in changes) for sign in "−+")
    assert [int(n) for n in counts.groups()] == [len(changes), lower, higher, len(changes) - lower - higher]


@pytest.mark.parametrize("name", STUDIES)
def test_risk_is_bias_with_noise_and_variance_in_every_row_and_of_the_baseline(name):
    text = measured_of(name)
    (baseline,) = re.findall(r"risk is ([-\d.]+), of which bias² \+ noise ([-\d.]+) and variance ([-\d.]+)", text)
    for risk, bias, variance in [baseline, *[row[3:6] for row in rows_of(text)]]:
        # each of the three is rounded by up to 0.05
        assert number_in(risk) == pytest.approx(number_in(bias) + number_in(variance), abs=0.15 + 1e-9)


def test_every_knob_stands_in_the_tables_of_the_readme():
    named = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`]+)`", SECTION))))
    assert set(KNOBS) - named == set()
