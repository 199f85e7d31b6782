"""Comparing studies: in pairs where everything is common, and saying why where it is not."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from lab import study
from lab.analysis.decomposition import decompose
from lab.errors import SpecError
from lab.report import compare
from lab.storage import Home
from lab.tracking import Tracker
from tests import builders
from tests.report.test_page import Outline, without_bundle


def publish(home, name, **options):
    tracker = Tracker.open(name, home=home, question="Is it better?")
    for path in builders.write_study(home.spool_of(name), study=name, n_explore=2, **options):
        tracker.publish(path)
    tracker.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory, new_home):
    """Studies a and b share everything but the width; c has another training-set size, d another data set."""
    home = new_home(tmp_path_factory.mktemp("project"))
    spec = builders.study_spec(n_trials=2)
    wider = dataclasses.replace(spec, space={k: d for k, d in spec.space.items() if k != "width"},
                                fixed={**spec.fixed, "width": 200})  # fmt: skip
    publish(home, "a", spec=spec)
    publish(home, "b", spec=wider)
    publish(home, "c", spec=dataclasses.replace(spec, fixed={**spec.fixed, "n_train": 100}))
    publish(home, "d", spec=dataclasses.replace(spec, data="gaussians"))
    return home


def side(project, name):
    return compare._side(name, project)


def test_studies_with_everything_in_common_are_compared_in_pairs(project):
    a, b = side(project, "a"), side(project, "b")
    found = compare.compare(a, b)
    assert found.unlike == ()
    parts = [decompose(*s.history.predictions(str(s.row["key"]))[:2]) for s in (a, b)]
    for row in found.table.to_dict("records"):
        assert row["difference"] == pytest.approx(getattr(parts[1], row["term"]) - getattr(parts[0], row["term"]))
        assert row["lo"] < row["difference"] < row["hi"]
    paired = found.table.set_index("term").loc["risk"]
    apart = sum((getattr(p, "risk_hi") - getattr(p, "risk_lo")) ** 2 for p in parts) ** 0.5  # noqa: B009
    assert paired["hi"] - paired["lo"] < apart


def test_an_answer_gives_size_and_interval_in_the_direction_that_it_names(project):
    first, other = side(project, "a"), side(project, "b")
    rows = {"risk": (0.02, 0.01, 0.03), "bias_sq": (-0.02, -0.03, -0.01), "variance": (-0.001, -0.01, 0.01)}
    table = pd.DataFrame([{"term": t, "difference": d, "lo": lo, "hi": hi} for t, (d, lo, hi) in rows.items()])
    assert compare._answer(first, compare.Comparison(other, table, ())) == (
        "b against a: risk is higher by 0.0200 [0.0100, 0.0300]; bias² + noise is lower by 0.0200 [0.0100, 0.0300]; "
        "variance cannot be told apart (−0.00100 [−0.01000, 0.01000])."
    )


@pytest.mark.parametrize(("other", "why"), [("c", "training examples (150 and 100)"), ("d", "data")])
def test_studies_that_differ_in_more_are_not_paired_and_the_page_says_in_what(project, other, why):
    found = compare.compare(side(project, "a"), side(project, other))
    assert any(why in text for text in found.unlike)
    a, b = side(project, "a").row, side(project, other).row
    risk = found.table.set_index("term").loc["risk"]
    half = np.hypot(a["risk_hi"] - a["risk"], b["risk"] - b["risk_lo"])
    assert risk["difference"] - risk["lo"] == pytest.approx(half)
    html = without_bundle(compare.render(side(project, "a"), [found], "x.csv"))
    assert f"{other} differs in" in html and "Not in pairs: 1 study was not measured on the training sets" in html
    assert f"<li>{other}: Does variance rise" in html  # a study's name is no word to capitalise


def test_a_page_of_three_studies_has_a_forest_with_a_row_each(project):
    built = compare.build(["a", "b", "c"], home=project)
    html = built.path.read_text(encoding="utf-8")
    assert built.path.name == "compare-a+b+c.html" and len(built.answers) == 2
    outline = Outline(without_bundle(html))
    assert [attrs["id"] for attrs, _ in outline.all("section")] == [
        "differences", "comparable", "each", "words", "reproduce",
    ]  # fmt: skip
    assert [a["data-figure"] for a, _ in outline.all("div") if "data-figure" in a] == ["data-differences"]
    table = pd.read_csv(built.path.with_suffix(".csv"))
    assert set(table["study"]) == {"b", "c"} and set(table["term"]) == set(compare.TERMS)
    assert compare.build(["a", "b", "c"], home=project).path.read_text(encoding="utf-8") == html


def test_the_knobs_that_differ_are_named(project):
    html = compare.render(side(project, "a"), [compare.compare(side(project, "a"), side(project, "b"))], "x.csv")
    width = builders.random_config(builders.study_spec(n_trials=2), 0).width
    assert f"width {width} → 200" in html


def test_from_the_command_line_with_markdown(project, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    assert study.main(["report", "a", "b", "--format", "md"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("### b minus a") and "| b | risk |" in captured.out
    assert "| b | bias² + noise |" in captured.out and "bias_sq" not in captured.out  # the noise is not known
    assert re.search(r"^a: .*; risk 0\.\d+.*, 12 replicas on \d+ test images\.$", captured.out, re.M)
    assert re.search(r"^b: (not )?in pairs", captured.out, re.M)
    assert "report:  reports/compare-a+b.html" in captured.err
    assert study.main(["report", "a", "a"]) == 2


def test_long_lists_of_names_give_a_usable_file_name():
    names = [f"capacity_sweep,data=fashion_mnist,width={k}" for k in range(20)]
    assert len(compare.digest(names)) <= 80 and compare.digest(names) != compare.digest(names[::-1])
    with pytest.raises(SpecError, match="two or more"):
        compare.build(["a"], home=Home())
