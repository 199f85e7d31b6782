"""Benchmarks are run here in their smallest size; what is checked is the form of what they write, never a time."""

import json
import re

from benchmarks import records

ROWS = [
    {"case": "a", "seconds": 0.123456, "n": 3, "limit": None},
    {"case": "b", "seconds": 12345.6, "n": 4, "limit": 1.0},
]


def test_a_record_holds_what_was_measured_on_what_and_when(tmp_path):
    records.write("speed", "Two cases.", {"Cases": ROWS}, records.machine(gpu="none"), tmp_path)
    content = json.loads((tmp_path / "speed.json").read_text())
    assert content["tables"]["Cases"] == ROWS
    assert content["machine"]["gpu"] == "none" and content["machine"]["n_cpus"] >= 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", content["machine"]["date"])
    page = (tmp_path / "speed.md").read_text()
    assert "python -m benchmarks.speed" in page and content["machine"]["date"] in page
    assert (
        "| case | seconds | n | limit |\n| --- | --- | --- | --- |\n| a | 0.1235 | 3 |  |\n| b | 1.235e+04 | 4 | 1 |"
        in page
    )
