"""Benchmarks are run here in their smallest size; what is checked is the form of what they write, never a time."""

import json
import re

import numpy as np
import pytest

from benchmarks import faults as faults_benchmark
from benchmarks import records, scale
from tests import faults

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


def test_a_round_is_begun_only_if_one_as_long_as_the_longest_fits(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(records.time, "monotonic", lambda: clock[0])
    lengths, begun = [3.0, 5.0, 1.0, 2.0, 1.0], []
    for number in records.rounds(16.5):
        begun.append(clock[0])
        clock[0] += lengths[number]
    assert begun == [0.0, 3.0, 8.0, 9.0, 11.0]  # 12 + 5 is more than that
    assert list(records.rounds(0.0)) == [0]


@pytest.mark.slow
def test_what_a_study_costs_beside_its_training_is_written_down(tmp_path):
    words = ["--trials", "4", "--workers", "1", "--seconds", "0.01"]
    assert faults.forked(lambda: scale.main(words, tmp_path)) == 0  # a fork, as it trains with fakes from then on
    costs, opened, overhead = json.loads((tmp_path / "scale.json").read_text())["tables"].values()
    cost = {row["what"]: row for row in costs}
    assert all(row["cost"] > 0 for row in costs)
    assert [row["trials"] for row in opened] == [4] and all(value > 0 for value in opened[0].values())
    processor = cost["coordinator, processor time"]
    assert processor["at 10,000 trials"] == pytest.approx(10_000 * processor["cost"])
    assert cost["MLflow, metric rows"]["cost"] > 20  # a trial has more numbers than that
    assert overhead[0]["workers"] == 1
    assert overhead[0]["ratio"] == pytest.approx(overhead[0]["wall s"] / overhead[0]["ideal s"])


@pytest.mark.slow
@pytest.mark.browser
def test_the_pages_of_a_study_are_opened_in_a_browser_until_they_show_it(browser, tmp_path):
    words = ["--trials", "8", "--small", "--workers", "--browser"]
    assert faults.forked(lambda: scale.main(words, tmp_path)) == 0
    _, [opened], _ = json.loads((tmp_path / "scale.json").read_text())["tables"].values()
    assert all(opened[f"{name} s"] > 0 for name in ("ui", *scale.DRAWN))


@pytest.mark.slow
def test_random_faults_are_injected_and_written_down(tmp_path):
    assert faults_benchmark.main(["--n", "3", "--seed", "1"], tmp_path) == 0
    [rows] = json.loads((tmp_path / "faults.json").read_text())["tables"].values()
    found = {row["fault"]: row for row in rows}
    assert found.pop("all")["injected"] == sum(row["injected"] for row in found.values()) >= 3
    assert all(row["violations"] == 0 for row in rows)
    with pytest.raises(SystemExit, match="seed 1 already"):
        faults_benchmark.main(["--n", "3", "--seed", "1", "--add"], tmp_path)
    record = json.loads((tmp_path / "faults.json").read_text())
    record["machine"]["lab"].insert(0, "another")  # as in a record that was merged by hand
    record["about"] = "Two states of the code."
    (tmp_path / "faults.json").write_text(json.dumps(record))
    assert faults_benchmark.main(["--n", "2", "--seed", "2", "--add"], tmp_path) == 0
    record = json.loads((tmp_path / "faults.json").read_text())
    assert record["machine"]["lab"][0] == "another" and record["about"] == "Two states of the code."
    more = {row["fault"]: row["injected"] for row in record["tables"]["Faults"]}
    assert record["machine"]["seeds"] == [1, 2] and more["all"] >= 2 + sum(row["injected"] for row in found.values())
    assert all(more[kind] >= row["injected"] for kind, row in found.items())
    content = (tmp_path / "faults.json").read_text()
    (tmp_path / "faults.json").write_text(content.replace(record["machine"]["lab"][1], "0" * 12))
    with pytest.raises(SystemExit, match="another edition"):
        faults_benchmark.main(["--n", "2", "--seed", "3", "--add"], tmp_path)


def test_a_study_that_measures_something_else_after_a_fault_is_a_violation(begun, tmp_path, capsys):
    with faults.fake_trainer():
        campaign = faults_benchmark.Campaign(np.random.default_rng(0), tmp_path, begun, undisturbed=None)
        study = campaign.begin()
        while not campaign.disturb(study):
            pass
    assert campaign.violations.total() == 1
    assert "VIOLATION after" in capsys.readouterr().err
