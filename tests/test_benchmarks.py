"""Benchmarks are run here in their smallest size; what is checked is the form of what they write, never a time."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_what_a_study_costs_beside_its_training_is_written_down(tmp_path):
    # a process of its own: it trains with fakes from then on
    code = (
        "import sys; from pathlib import Path; from benchmarks import scale\n"
        "sys.exit(scale.main(['--trials', '4', '--workers', '1', '--seconds', '0.01'], Path(sys.argv[1])))"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=True, timeout=200)
    costs, overhead = json.loads((tmp_path / "scale.json").read_text())["tables"].values()
    cost = {row["what"]: row for row in costs}
    assert all(row["cost"] > 0 for row in costs)
    processor = cost["coordinator, processor time"]
    assert processor["at 10,000 trials"] == pytest.approx(10_000 * processor["cost"])
    assert cost["MLflow, metric rows"]["cost"] > 20  # a trial has more numbers than that
    assert overhead[0]["workers"] == 1 and overhead[0]["ratio"] >= 1
