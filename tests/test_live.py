"""The live page: it follows a study, serves the report so far, and answers this machine only."""

import contextlib
import time
import urllib.error
import urllib.request

import pytest

from lab import live, search
from lab.errors import StorageError
from lab.live import Watch, serving
from lab.report.live_page import live_page
from lab.tracking import Tracker
from tests import builders
from tests.servers import free_port
from tests.waiting import LONG, until

STUDY = "capacity_sweep"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcomes")
    return builders.write_study(folder, n_explore=4)


@pytest.fixture
def project(tmp_path, new_home, monkeypatch, outcomes):
    """A study as it runs: `publish(n)` makes n trials known, to the run history and to the status."""
    home, done = new_home(tmp_path / "project"), []
    tracker = Tracker.open(STUDY, home=home, question="?")

    def publish(n):
        for outcome in outcomes[len(done) : n]:
            tracker.publish(outcome)
            done.append(outcome)

    def status(home, name):
        counts = {"finished": len(done), "diverged": 0, "infeasible": 0, "failed": 0}
        return [{"study": name, "question": "Does <it> work?", "n_planned": 4, "counts": counts, "n_unfinished": 1,
                 "in_use": len(done) < 4, "again": "", "runs": [str(p) for p in done], "n_spooled": 0}]  # fmt: skip

    monkeypatch.setattr(search, "status", status)
    monkeypatch.setattr(live, "REPORT_EVERY", 0.0)
    yield home, publish
    tracker.close()


def get(address, **headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(address, headers=headers), timeout=LONG) as answer:
        return answer.read().decode(), answer.headers


def text_of(watch, path="/"):
    return watch.page(path)[1].decode()


def test_it_begins_before_the_first_trial_and_follows_the_study(project):
    home, publish = project
    watch = Watch(STUDY, home)
    watch.look()
    assert "0 of 4" in text_of(watch) and "No trial has been measured yet" in text_of(watch)
    assert watch.page("/report.html") is None
    publish(2)
    watch.look()
    page = text_of(watch)
    assert "2 of 4: 2 finished" in page and "running" in page and "Best so far: trial" in page
    assert "Does &lt;it&gt; work?" in page and page.count("<polyline") >= 3
    first = text_of(watch, "/report.html")
    assert "2 of 4 trials are done" in first
    assert text_of(watch, f"/{STUDY}/trials.csv").count("\n") == 3
    publish(4)
    watch._next_report = 0.0
    watch.look()
    assert "finished" in text_of(watch) and text_of(watch, "/report.html") != first


@pytest.mark.parametrize(
    ("n_planned", "done", "bar", "fact"),
    [(4, 2, (4, 2), "2 of 4"), (2, 3, (3, 3), "3 of 3"), (None, 0, (1, 0), "0 of 0")],
)
def test_no_more_trials_are_done_than_there_are_and_a_bar_has_an_end(n_planned, done, bar, fact):
    status = {"study": STUDY, "n_planned": n_planned, "counts": {"finished": done}, "again": ""}
    page = live_page(status, None, report_note="")
    assert '<progress max="{}" value="{}"'.format(*bar) in page
    assert f"<dd>{fact}: " in page


def test_the_report_is_not_made_again_before_it_is_time_nor_without_news(project, monkeypatch):
    home, publish = project
    made = []
    watch = Watch(STUDY, home)
    monkeypatch.setattr(watch, "_report", lambda loaded: made.append(len(loaded.trials)))
    publish(1)
    watch.look()
    watch.look()
    assert made == [1]
    watch._next_report = time.monotonic() + 100
    publish(2)
    watch.look()
    assert made == [1] and "1 of 4" not in text_of(watch)
    watch._next_report = 0.0
    watch.look()
    assert made == [1, 2]


@pytest.fixture
def port():
    return free_port()


def when(condition):
    def holds():
        with contextlib.suppress(OSError):
            return condition()

    until(holds)


def test_it_answers_this_machine_under_its_own_name_only_and_knows_no_other_page(project, port):
    home, publish = project
    publish(2)
    with serving(STUDY, home, port) as address:
        when(lambda: "2 of 4" in get(address)[0])
        page, headers = get(address)
        assert headers["Cache-Control"] == "no-store" and "default-src &#39;none&#39;" in page
        for path, host, code in (("", "evil.example", 403), ("../mlruns/mlflow.db", f"127.0.0.1:{port}", 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                get(address + path, Host=host)
            caught.value.close()
            assert caught.value.code == code
    with pytest.raises(OSError):
        get(address)


@pytest.fixture
def locked(monkeypatch):
    """Have the study's database locked, until what is returned is called."""

    def broken(home, name):
        raise StorageError("the database is <locked>")

    whole = search.status
    monkeypatch.setattr(search, "status", broken)
    monkeypatch.setattr(live, "LOOK_EVERY", 0.1)
    return lambda: monkeypatch.setattr(search, "status", whole)


def test_an_error_of_the_study_stands_on_the_page_and_passes(project, port, locked):
    home, _ = project
    with serving(STUDY, home, port) as address:

        def said():
            try:
                return get(address)[0]
            except urllib.error.HTTPError as error:
                with error:
                    return error.read().decode()

        when(lambda: "the database is &lt;locked&gt;" in said())
        locked()
        when(lambda: "0 of 4" in said())


@pytest.mark.browser
def test_a_browser_that_comes_too_early_gets_the_page_by_itself_and_can_read_its_charts_on_a_phone(
    project, port, browser, locked
):
    home, publish = project
    publish(3)
    with serving(STUDY, home, port) as address:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(address)
        page.get_by_text("the database is <locked>").wait_for()
        locked()
        page.get_by_text("3 of 4").first.wait_for()
        boxes = page.evaluate("""() => [...document.querySelectorAll("svg.chart text")].map((t) => {
          const [box, frame] = [t.getBoundingClientRect(), t.ownerSVGElement.getBoundingClientRect()];
          return [box.height, box.left >= frame.left && box.right <= frame.right + 1 && box.bottom <= frame.bottom + 1];
        })""")
        assert len(boxes) == 8 and all(height >= 10 and inside for height, inside in boxes)
        page.close()


@pytest.mark.browser
def test_in_a_browser_the_page_renews_itself_without_a_reload(project, port, browser, monkeypatch):
    home, publish = project
    monkeypatch.setattr(live, "LOOK_EVERY", 0.2)
    publish(2)
    with serving(STUDY, home, port) as address:
        when(lambda: "2 of 4" in get(address)[0])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(address)
        page.evaluate("window.stays = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        publish(4)
        when(lambda: "4 of 4" in page.inner_text("main"))
        assert page.evaluate("window.stays") is True
        page.click("text=Report so far")
        page.locator("#verdict").wait_for(state="attached")
        page.close()
        assert errors == []
