"""studies/robustness.py and studies/tune.py: small runs end in a report, with what each of them is about."""

import csv
from pathlib import Path

import pytest

from lab import study

STUDIES = Path(__file__).parent.parent / "studies"


def smoke(name, tmp_path, monkeypatch, n_trials, *settings):
    """Run a study in small and return the rows of its trials.csv."""
    monkeypatch.chdir(tmp_path)
    flags = ["--smoke", "--trials", str(n_trials), "--engine", "inline", "--device", "cpu"]
    changes = [word for setting in settings for word in ("--set", setting)]
    assert study.main(["run", str(STUDIES / f"{name}.py"), *flags, *changes]) == 0
    with (tmp_path / "reports" / ",".join([name, *settings, "smoke"]) / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_robustness_measures_the_parts_of_the_error_under_attack_and_at_each_severity(tmp_path, monkeypatch):
    rows = smoke("robustness", tmp_path, monkeypatch, 2)
    explored = {row["variant"]: row for row in rows if row["phase"] == "explore"}
    assert list(explored) == ["baseline", "fgsm_0.05"]
    for row in explored.values():
        for condition in (
            *(f"attacked_{k}" for k in range(1, 5)),
            *(f"corrupted_{severity}" for severity in range(1, 6)),
        ):
            parts = float(row[f"{condition}_bias_sq"]) + float(row[f"{condition}_variance"])
            assert parts == pytest.approx(float(row[f"{condition}_risk"]), abs=1e-9)
            assert float(row[f"{condition}_risk"]) > float(row["risk"])
    page = (tmp_path / "reports" / "robustness,smoke.html").read_text()
    assert "Risk and its parts by the severity of the corruption “gaussian noise”" in page
    assert "Risk and its parts by the strength of the attack" in page


@pytest.mark.slow
def test_tuning_searches_a_knob_only_in_the_family_that_has_it_and_confirms_the_best(tmp_path, monkeypatch):
    rows = smoke("tune", tmp_path, monkeypatch, 6, "epochs=2", "n_train=40")
    explored = [row for row in rows if row["phase"] == "explore"]
    assert {row["family"] for row in explored} == {"mlp", "cnn"}
    for row in explored:
        if row["family"] == "mlp":
            assert row["convolutions"] == "1"
        else:
            assert row["width"] == "64"
    (confirmed,) = [row for row in rows if row["phase"] == "confirm"]
    best = min(explored, key=lambda row: float(row["val_risk"]))
    assert confirmed["number"] == best["number"]
