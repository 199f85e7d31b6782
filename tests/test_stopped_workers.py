"""A worker that is stopped (SIGSTOP) loses its trial to another, and what it brings when it is continued is refused."""

import json
import os
import signal
import threading
from time import monotonic

import pytest

from lab import spool
from lab.storage import Home
from lab.workers import ProcessEngine, processes
from tests import fake_worker, faults, invariants
from tests.test_workers import a_task, alive, drain, given_again, pids, workers_at
from tests.waiting import until


def wait_for(what, engine, *limit):
    def done_early(seconds):
        assert engine.next_done(seconds) is None, "a task is done too early"

    until(what, *limit, rest=done_early)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STOPPED_SECONDS", 0.5)
    engine = ProcessEngine(Home(tmp_path), 1, main=fake_worker.main)
    yield engine
    engine.close()


def stopped(engine, **trouble):
    """Submit a task, stop the worker that has it, and return the worker's number."""
    engine.submit(a_task(0, **trouble))
    [pid] = workers_at(engine, 1)
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_the_task_of_a_stopped_worker_goes_to_another_within_five_seconds(engine):
    engine.n_workers = 2
    pid = stopped(engine, held=[1, 2])
    wait_for(lambda: given_again(engine), engine, processes.STOPPED_SECONDS + 5.0)
    fake_worker.gate(engine.home, 2).touch()
    [(task, path)] = drain(engine)
    assert (task.attempt, spool.read_outcome(path).manifest["attempt"]) == (2, 2)
    assert alive(pid)  # it holds nothing that anybody waits for
    engine.close()
    assert not alive(pid)


@pytest.mark.parametrize("late", [False, True], ids=["before the other", "after the other"])
def test_the_result_of_a_worker_that_is_continued_is_refused_by_its_attempt(engine, late):
    pid = stopped(engine, held=[1, 2])
    written = engine.home.outcome_of("toy", "explore-0000")
    first, second = (fake_worker.gate(engine.home, attempt) for attempt in (1, 2))
    first.touch()  # it goes on as soon as it is continued
    if late:
        second.touch()
        [(task, path)] = drain(engine)
        os.kill(pid, signal.SIGCONT)
    else:
        wait_for(lambda: len(pids(engine.home.root)) == 2, engine)  # its place is taken
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: spool.attempt_of(written) == 1, engine)  # and its result means nothing to the engine
        second.touch()
        [(task, path)] = drain(engine)
    until(lambda: not alive(pid))  # nobody listens to it any more
    assert path == written
    assert (task.attempt, spool.read_outcome(path).manifest["attempt"]) == (2, 2)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_short_stop_costs_nothing(engine, monkeypatch):
    monkeypatch.setattr(processes, "STOPPED_SECONDS", 30.0)
    pid = stopped(engine, held=[1])
    fake_worker.gate(engine.home, 1).touch()
    assert engine.next_done(0.7) is None
    os.kill(pid, signal.SIGCONT)
    [(task, _)] = drain(engine)
    assert task.attempt == 1


def test_time_in_which_the_coordinator_is_stopped_too_does_not_count(engine, monkeypatch):
    monkeypatch.setattr(processes, "STOPPED_SECONDS", 5.0)
    pid = stopped(engine, held=[1])
    fake_worker.gate(engine.home, 1).touch()
    assert engine.next_done(0.1) is None
    monkeypatch.setattr(processes, "monotonic", lambda: monotonic() + 3600.0)  # Ctrl-Z, and fg an hour later
    assert engine.next_done(0.1) is None
    os.kill(pid, signal.SIGCONT)
    [(task, _)] = drain(engine)
    assert task.attempt == 1


def test_a_worker_that_computes_for_long_is_not_taken_for_a_stopped_one(engine):
    engine.submit(a_task(0, seconds=2.0))  # four times as long as a stopped one may be silent
    [(task, _)] = drain(engine)
    assert task.attempt == 1


def test_a_task_whose_worker_is_stopped_every_time_is_set_aside(engine):
    victims = []

    def at_work():
        return [w.process.pid for w in engine._workers if w.tasks and w.process.pid not in victims]

    with faults.fake_trainer():  # the outcome that says so describes the data set
        engine.submit(a_task(0, held=[1, 2, 3]))
        for _ in range(3):
            wait_for(at_work, engine)
            victims += at_work()
            os.kill(victims[-1], signal.SIGSTOP)
        [(_, path)] = drain(engine)
    outcome = spool.read_outcome(path)
    assert (outcome.status, outcome.manifest["attempt"]) == ("failed", 3)
    assert outcome.reason == "its worker process was lost 3 times, last by being stopped"
    assert len(set(victims)) == 3


def test_a_study_one_of_whose_workers_is_stopped_ends_as_an_undisturbed_one(begun, monkeypatch):
    study = faults.small(5)
    with faults.memory() as folder, faults.fake_trainer():
        inline, home, seen = faults.copy(begun, folder / "a"), faults.copy(begun, folder / "b"), folder / "pids"
        faults.run(inline, study)
        seen.mkdir()
        study_file = folder / "own.py"
        study_file.write_text("from tests.fake_training import fake\n")
        monkeypatch.setattr(processes, "STOPPED_SECONDS", 0.5)
        gate = folder / "gate"
        monkeypatch.setenv("LAB_FAKE_GATE", str(gate))
        monkeypatch.setenv("LAB_FAKE_PIDS", str(seen))
        victims = []

        def stop_the_first_that_trains():
            until(lambda: any(seen.iterdir()))
            victims.append(int(next(seen.iterdir()).name))
            os.kill(victims[0], signal.SIGSTOP)
            gate.touch()

        thread = threading.Thread(target=stop_the_first_that_trains, daemon=True)
        thread.start()
        faults.run(home, study, engine="process", n_workers=2, study_file=str(study_file))
        thread.join()
        invariants.check_finished(home, faults.NAME, 5)
        assert invariants.measured(home, faults.NAME) == invariants.measured(inline, faults.NAME)
        assert not alive(victims[0])
        manifests = [json.loads(path.read_text()) for path in home.artifacts.glob("*/*/artifacts/manifest.json")]
        attempts = {manifest["number"]: manifest["attempt"] for manifest in manifests if manifest["phase"] == "explore"}
        # the first session's attempts begin at 1, the second one's at 4; one trial of it was given to another worker
        assert attempts.pop(0) == 1
        assert sorted(attempts.values()) == [4, 4, 4, 5], attempts
