import json
import os
import signal

import pytest

from lab import interrupts, spool, workers
from lab.errors import StorageError
from lab.progress import Progress
from lab.storage import Home
from lab.workers.inline import InlineEngine
from tests.search.kills import booby_trap, killed_everywhere
from tests.toys import Boom, FakeTracker, run, runs, state, toy


@pytest.mark.parametrize(
    ("sampler", "objective", "first", "skip"),
    [("qmc", "val_risk", 1, 3), ("random", "val_error", 2, 11), ("grid", "val_risk", 3, 13), ("tpe", "val_risk", 4, 9),
     ("tpe", ("bias_sq", "variance"), 3, 13), ("gp", "val_risk", 4, 19), ("nsga2", ("bias_sq", "variance"), 4, 13),
     ("cmaes", "val_risk", 4, 13)],
)  # fmt: skip
def test_a_kill_at_any_step_costs_nothing_and_changes_nothing(tmp_path, monkeypatch, sampler, objective, first, skip):
    # two rounds of the study are done in peace, so that samplers that learn have begun to; the third is killed
    study = toy(sampler=sampler, objective=objective, n_trials=12, round_size=6)
    rows = killed_everywhere(study, 14, tmp_path, monkeypatch, first, skip)
    assert [row[1] for row in rows] == ["COMPLETE"] * 14


def test_killed_again_and_again_a_study_still_ends_as_if_undisturbed(tmp_path, monkeypatch):
    study = toy(n_trials=5)
    undisturbed, home = Home(tmp_path / "undisturbed"), Home(tmp_path / "killed")
    run(study, undisturbed)
    n_kills = 0
    while n_kills < 200:
        with monkeypatch.context() as patch:
            booby_trap(patch, 9)
            try:
                run(study, home)
            except Boom:
                n_kills += 1
            else:
                break
    assert 5 < n_kills < 200
    assert state(home) == state(undisturbed)


def test_a_damaged_outcome_in_the_spool_is_named_and_trained_again(tmp_path, monkeypatch, capsys):
    study = toy(n_trials=2)
    undisturbed, home = Home(tmp_path / "undisturbed"), Home(tmp_path / "killed")
    run(study, undisturbed)
    with monkeypatch.context() as patch:
        patch.setattr(FakeTracker, "publish", lambda *args: (_ for _ in ()).throw(Boom()))
        with pytest.raises(Boom):
            run(study, home)
    [directory] = spool.pending(home, "toy")
    content = bytearray((directory / "metrics.json").read_bytes())
    content[40] ^= 1
    (directory / "metrics.json").write_bytes(content)
    run(study, home)
    assert "explore-0000/metrics.json is not what was written" in capsys.readouterr().err
    assert state(home) == state(undisturbed)


def test_an_outcome_of_another_configuration_is_not_published(home, monkeypatch):
    study = toy(n_trials=2)
    with monkeypatch.context() as patch:
        patch.setattr(FakeTracker, "publish", lambda *args: (_ for _ in ()).throw(Boom()))
        with pytest.raises(Boom):
            run(study, home)
    [directory] = spool.pending(home, "toy")
    outcome = spool.read_outcome(directory)
    config = outcome.json("config.json")
    config["config"]["width"] += 1
    spool.remove_outcome(directory)
    files = dict(outcome.contents) | {"config.json": json.dumps(config).encode()}
    spool.write_outcome(home, "toy", "explore", 0, files, status="finished", started=0.0, finished=1.0)
    with pytest.raises(StorageError, match="another study or configuration"):
        run(study, home)
    assert runs(home) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("place", "n_kept"), [("done", 1), ("tick", 0)])
def test_a_signal_whose_exception_python_drops_ends_a_run_all_the_same(tmp_path, monkeypatch, number, place, n_kept):
    study, home, undisturbed = toy(), Home(tmp_path / "signalled"), Home(tmp_path / "undisturbed")
    n_all, own, dropped = run(study, undisturbed).n_trained, getattr(Progress, place), []
    monkeypatch.setattr("sys.unraisablehook", lambda what: dropped.append(what.exc_type))

    class Swallowing:
        def __del__(self):
            os.kill(os.getpid(), number)
            for _ in range(1000):
                pass  # the handler runs between two of these

    def first(progress, **what):
        monkeypatch.setattr(Progress, place, own)
        own(progress, **what)
        Swallowing()

    def without_ticks(home, *, device, tick):  # as workers are, which the coordinator hears from when they are done
        return InlineEngine(home, device=device)

    if place == "done":
        monkeypatch.setattr(workers, "InlineEngine", without_ticks)
    monkeypatch.setattr(Progress, place, first)
    with pytest.raises(KeyboardInterrupt), interrupts.heeded():
        run(study, home)
    assert len(dropped) == 1
    assert run(study, home).n_trained == n_all - n_kept
    assert state(home) == state(undisturbed)
