"""From a run history on disk to the page, through the real reader."""

from lab.report.page import build, verdict_lines
from lab.storage import Home
from lab.tracking import Tracker
from tests.builders import write_study


def test_a_published_study_becomes_a_page_with_its_tables(tmp_path):
    from lab import history

    home = Home(tmp_path)
    tracker = Tracker.open("capacity_sweep", home=home, question="?")
    for outcome in write_study(home.spool_of("capacity_sweep"), n_explore=6, n_infeasible=1):
        tracker.publish(outcome)
    tracker.close()
    page = build("capacity_sweep", home=home)
    html = page.read_text(encoding="utf-8")
    assert "6 of 6 · 0 diverged · 1 failed" in html
    assert "partial report" not in html and 'id="data-confusion"' in html
    loaded = history.load("capacity_sweep", home=home)
    assert loaded.trials["run_id"].iloc[0] in html
    lines = verdict_lines(loaded)
    assert len(lines) == 3
    first = page.read_bytes()
    assert build("capacity_sweep", home=home).read_bytes() == first
