"""From a run history on disk to the page, through the real reader."""

import json

import pytest

from lab import history, mlflow_store, study, tracking
from lab.report.page import build
from lab.tracking import Tracker
from tests.builders import write_study


@pytest.fixture(scope="module")
def published(tmp_path_factory, new_home):
    home = new_home(tmp_path_factory.mktemp("project"))
    tracker = Tracker.open("capacity_sweep", home=home, question="?")
    for outcome in write_study(home.spool_of("capacity_sweep"), n_explore=6, n_infeasible=1):
        tracker.publish(outcome)
    tracker.close()
    return home


def test_a_published_study_becomes_a_page_with_its_tables(published):
    built = build("capacity_sweep", home=published)
    html = built.path.read_text(encoding="utf-8")
    assert "6 of 6 · 0 diverged · 1 failed" in html
    assert "partial report" not in html and 'id="data-confusion"' in html and 'class="pixels"' in html
    assert history.load("capacity_sweep", home=published).trials["run_id"].iloc[0] in html
    assert len(built.verdict) == 3
    first = built.path.read_bytes()
    assert build("capacity_sweep", home=published).path.read_bytes() == first


def test_the_page_is_kept_in_mlflow_once_and_is_no_trial(published, tmp_path):
    page = tmp_path / "page.html"
    for text in ("first", "second"):
        page.write_text(text)
        run_id = tracking.keep_report("capacity_sweep", page, home=published)
    kept = published.artifacts / "capacity_sweep" / run_id / "artifacts" / "report.html"
    assert kept.read_text() == "second"
    client = mlflow_store.connect(published, create=False)
    experiment = client.get_experiment_by_name("capacity_sweep").experiment_id
    pages = [run for run in client.search_runs([experiment]) if tracking.REPORT_TAG in run.data.tags]
    assert [run.info.run_id for run in pages] == [run_id] and pages[0].info.status == "FINISHED"
    assert run_id not in set(history.load("capacity_sweep", home=published).trials["run_id"])
    assert client.list_artifacts(run_id)[0].path == "report.html"


def test_a_few_lines_of_markdown_stand_alone_on_stdout(published, monkeypatch, capsys):
    monkeypatch.chdir(published.root)
    assert study.main(["report", "capacity_sweep", "--format", "md"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("### capacity_sweep: ") and out.endswith("\n")
    assert "| bias² + noise |" in out and "Report: reports/capacity_sweep.html" in out and len(out.splitlines()) < 40
    assert study.main(["report", "capacity_sweep", "--format", "md", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["markdown"] == out


def test_a_report_is_made_even_if_mlflow_cannot_keep_it(published, monkeypatch, capsys):
    from lab.errors import StorageError

    def broken(study, page, *, home):
        raise StorageError("the server does not answer")

    monkeypatch.chdir(published.root)
    monkeypatch.setattr(tracking, "keep_report", broken)
    assert study.main(["report", "capacity_sweep"]) == 0
    assert "note: the server does not answer" in capsys.readouterr().err
