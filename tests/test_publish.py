"""Training never waits for a tracking server, and what was not published is published later, once."""

import statistics
import threading
import time
from pathlib import Path

import pytest

from lab import interrupts, mlflow_store, search, spool, study, verify
from lab.errors import StorageError
from lab.search import publisher
from lab.search.publisher import BackgroundPublisher
from lab.storage import Home
from tests import faults, invariants
from tests.waiting import LONG, until


class Server:
    """A tracking server: away, slow, or as it should be. Its runs are kept in MLflow's database of the project.

    It is `back` after so many refusals, and answers no trial before the event `answers`.
    """

    def __init__(self, home, *, away=False, back=None):
        self.home, self.away, self.back = home, away, back
        self.answers = threading.Event()
        self.answers.set()
        self.n_calls = self.n_refused = 0

    def open(self):
        from lab.tracking import Tracker

        if self.away:
            self.n_refused += 1
            self.away = self.n_refused != self.back
            raise StorageError("the server does not answer")
        self.tracker = Tracker.open(faults.NAME, home=self.home, question="?")
        return self

    def publish(self, outcome):
        self.n_calls += 1
        self.answers.wait(LONG)
        if self.away:
            raise StorageError("the server does not answer")
        return self.tracker.publish(outcome)

    def run_ids(self):
        return self.tracker.run_ids()

    def close(self):
        self.tracker.close()


@pytest.fixture(scope="module")
def undisturbed(new_home):
    with faults.memory() as folder, faults.fake_trainer():
        home = new_home(folder / "undisturbed")
        faults.run(home)
        yield home


@pytest.fixture
def home(undisturbed, request, monkeypatch):
    home = Home(undisturbed.root.with_name(request.node.name.replace("[", "-").replace("]", "")))
    home.root.mkdir()
    monkeypatch.setattr(publisher, "REST_SECONDS", 0.2)
    return home


def serve(monkeypatch, server):
    """Have the study publish to a server."""
    from lab.search import session

    def open_publisher(study, name, home, stored):
        return BackgroundPublisher(server.open, lambda run_ids: None)

    monkeypatch.setattr(session, "_open_publisher", open_publisher)


def test_a_server_that_is_away_costs_no_trial_and_publish_sends_exactly_what_is_missing(
    home, undisturbed, monkeypatch, capsys
):
    serve(monkeypatch, Server(home, away=True))
    summary = faults.run(home)
    assert (summary.n_unpublished, summary.publish_error) == (3, "the server does not answer")
    assert summary.counts["finished"] == 2
    assert invariants.trials(home, faults.NAME) == invariants.trials(undisturbed, faults.NAME)
    assert len(spool.pending(home, faults.NAME)) == 3
    # the server is back
    assert search.publish(faults.NAME, home=home)["sent"] == ["explore-0000", "explore-0001", *confirmed(undisturbed)]
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == invariants.measured(undisturbed, faults.NAME)
    before = [path.read_bytes() for path in sorted(home.artifacts.rglob("*")) if path.is_file()]
    runs = invariants.runs(home, faults.NAME)
    # and a second time changes nothing
    monkeypatch.chdir(home.root)
    assert study.main(["publish", faults.NAME]) == 0
    assert "nothing was missing" in capsys.readouterr().err
    assert runs == invariants.runs(home, faults.NAME)
    assert before == [path.read_bytes() for path in sorted(home.artifacts.rglob("*")) if path.is_file()]


def confirmed(home):
    return [key for key in invariants.complete(home, faults.NAME) if key.startswith("confirm")]


def test_a_server_that_comes_back_midway_gets_everything(home, undisturbed, monkeypatch):
    server = Server(home, away=True, back=1)
    serve(monkeypatch, server)
    summary = faults.run(home)
    assert (summary.n_unpublished, server.n_refused) == (0, 1)
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == invariants.measured(undisturbed, faults.NAME)


def test_the_next_run_publishes_what_the_last_one_could_not_and_trains_nothing_twice(home, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        serve(patch, Server(home, away=True))
        faults.run(home)
    summary = faults.run(home)
    assert summary.n_trained == 0
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == invariants.measured(undisturbed, faults.NAME)


def test_an_unpublished_outcome_that_was_damaged_is_trained_again(home, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        serve(patch, Server(home, away=True))
        faults.run(home)
    path = spool.pending(home, faults.NAME)[1] / "metrics.json"
    path.write_bytes(path.read_bytes()[:-9])
    done = search.publish(faults.NAME, home=home)
    assert len(done["damaged"]) == 1
    assert str(path) in done["damaged"][0]
    assert any(str(path) in line for line in verify.verify(faults.NAME, home=home).damage)
    assert faults.run(home).n_trained == 1
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == invariants.measured(undisturbed, faults.NAME)


def test_an_unpublished_outcome_that_was_damaged_is_not_forgotten_by_a_run_that_trains_nothing(
    home, undisturbed, monkeypatch
):
    with monkeypatch.context() as patch:
        serve(patch, Server(home, away=True))
        faults.run(home)
        path = spool.pending(home, faults.NAME)[1] / "metrics.json"
        path.write_bytes(path.read_bytes()[:-9])
    faults.run(home, time_limit=0.0)
    assert faults.run(home).n_trained == 1
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == invariants.measured(undisturbed, faults.NAME)


def test_a_slow_server_slows_training_by_less_than_two_percent(home):
    server = Server(home)
    server.answers.clear()
    took = []
    background = BackgroundPublisher(server.open, lambda run_ids: None)
    try:
        for k in range(50):
            started = time.thread_time()
            background.publish(Path(f"/nowhere/explore-{k:04d}"))
            assert background.published() == []  # nothing of this waited for an answer: there was none
            took.append(time.thread_time() - started)
        assert statistics.median(took) < 0.02 * 0.1  # of a training of a tenth of a second
        until(lambda: server.n_calls == 1)
    finally:
        server.answers.set()
        background.close()


def test_a_server_that_is_away_is_asked_now_and_then_only(home, monkeypatch):
    server, clock, rest = Server(home), [0.0], publisher.REST_SECONDS
    monkeypatch.setattr(publisher, "monotonic", lambda: clock[0])
    background = BackgroundPublisher(server.open, lambda run_ids: None)
    background.publish(Path("/nowhere/explore-0000"))
    until(lambda: background.error)  # its files are not there
    server.away = True
    for n_more in range(1, 5):
        clock[0] += rest + 0.01
        rest *= 2
        before = server.n_calls
        for _ in range(50):
            background.publish(Path("/nowhere/explore-0000"))
        until(lambda before=before: server.n_calls > before)
        until(background._todo.empty)
        assert server.n_calls == 1 + n_more
    background.close()


def test_who_waits_for_a_server_at_the_end_is_interrupted_also_if_python_dropped_the_exception(home, monkeypatch):
    server = Server(home)
    answers = threading.Event()
    background = BackgroundPublisher(server.open, lambda run_ids: answers.wait(LONG))
    background.publish(Path("/nowhere/explore-0000"))
    monkeypatch.setattr(interrupts, "_came", [interrupts.Terminated])
    with pytest.raises(interrupts.Terminated):
        background.finish()
    answers.set()
    background.close()


def test_a_history_of_another_study_ends_the_run(home):
    def check(run_ids):
        raise StorageError("they do not belong together")

    background = BackgroundPublisher(Server(home).open, check)
    background.publish(Path("/nowhere/explore-0000"))
    background.finish()
    with pytest.raises(StorageError, match="belong together"):
        background.published()
    background.close()


def test_the_command_line_says_what_is_not_published_and_how_to_send_it(home, monkeypatch, capsys):
    (home.root / "studies").mkdir()
    (home.root / "studies" / f"{faults.NAME}.py").write_text("from tests.faults import STUDY\n")
    monkeypatch.chdir(home.root)
    serve(monkeypatch, Server(home, away=True))
    assert study.main(["run", faults.NAME, "--engine", "inline"]) == 5
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: 3 trials of toy are measured, but not published (the server does not answer)")
    assert error.endswith("python -m lab.study publish toy")
    monkeypatch.undo()
    assert mlflow_store.is_server("https://x")


def test_no_trial_begins_after_the_time_limit_and_the_next_run_goes_on(home, undisturbed):
    summary = faults.run(home, time_limit=0.0)
    assert (summary.n_waiting, summary.confirmed) == (2, None)
    summary = faults.run(home)
    assert summary.n_waiting == 0
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == invariants.measured(undisturbed, faults.NAME)
