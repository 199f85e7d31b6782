"""The files beside the page: exact numbers, and nothing a spreadsheet would run."""

import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest

from lab.report import page
from lab.report.exports import defused, file_names, files, to_csv
from lab.storage import Home


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("x")', "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "-nope"]
)
def test_a_cell_that_a_spreadsheet_would_run_is_defused(text):
    assert defused(text) == "'" + text
    cells = list(csv.reader(io.StringIO(to_csv(pd.DataFrame({"a": [text]})))))
    assert cells[1] == ["'" + text.replace("\r", "\n")]


@pytest.mark.parametrize("text", ["-1", "-0.5", "+2e-3", "plain", "", "a=b", "bias² + noise"])
def test_numbers_and_plain_texts_stay_as_they_are(text):
    assert defused(text) == text


def test_build_writes_the_page_and_the_tables_and_twice_the_same_bytes(made, tmp_path, monkeypatch):
    history, tables, html = made("one_trial")
    monkeypatch.setattr(page.history, "load", lambda study, *, home: history)
    path = page.build("capacity_sweep", home=Home(tmp_path)).path
    assert path == tmp_path.resolve() / "reports" / "capacity_sweep.html" and path.read_text(encoding="utf-8") == html
    names = {p.name for p in (tmp_path / "reports" / "capacity_sweep").iterdir()}
    assert names == set(files(history, tables)) == set(file_names(history, tables))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    page.build("capacity_sweep", home=Home(tmp_path))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_headings_are_defused_too():
    assert to_csv(pd.DataFrame({"=1+1": [1]})).splitlines()[0] == "'=1+1"


def test_numbers_in_csv_are_exact_and_missing_ones_are_empty():
    values = [0.1 + 0.2, -1e-17, 1 / 3, math.nan, 12345678.9]
    text = to_csv(pd.DataFrame({"x": values, "n": [1, 2, 3, 4, 5], "b": [True] * 5}))
    rows = list(csv.reader(io.StringIO(text)))[1:]
    read = [float(r[0]) if r[0] else math.nan for r in rows]
    assert np.array_equal(read, values, equal_nan=True)
    assert [r[1] for r in rows] == ["1", "2", "3", "4", "5"] and rows[0][2] == "True"


@pytest.mark.parametrize("kind", ["healthy", "one_trial", "all_diverged", "partial"])
def test_files_hold_the_tables_and_strict_json(made, kind):
    history, tables, _ = made(kind)
    written = files(history, tables)
    assert {
        "trials.csv", "capacity_curve.csv", "learning_curve.csv", "epochs.csv", "per_class.csv", "checks.csv",
        "capacity_sweep.json",
    } <= set(written)  # fmt: skip
    trials = pd.read_csv(io.StringIO(written["trials.csv"]))
    assert trials["key"].tolist() == history.trials["key"].tolist()
    pd.testing.assert_series_equal(
        trials["bias_sq"], history.trials["bias_sq"].reset_index(drop=True), check_exact=True
    )

    def refuse(constant):
        raise AssertionError(constant)

    summary = json.loads(written["capacity_sweep.json"], parse_constant=refuse)
    assert summary["verdict"] == tables.diagnosis.verdict and summary["specification"] == history.spec
    gains = [action["gain"] for action in summary["actions"] if action["gain"] is not None]
    assert all(low < value < high for value, low, high in gains) and bool(gains) == (kind != "all_diverged")
    assert gains == sorted(gains, reverse=True)  # the largest first


def test_every_file_that_the_page_links_to_is_written(made):
    import re
    from urllib.parse import unquote

    history, tables, html = made("healthy")
    linked = set(re.findall(r'href="capacity_sweep/([^"]+)"', html))
    assert {unquote(name) for name in linked} == set(files(history, tables))
