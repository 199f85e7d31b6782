"""Each guard of the storage taken away on its own: a fault and the invariants see it, every time.

A mutant is the lab with one guard missing; its scenario is a fault that this guard is there for. Without the mutant the
same scenario ends as an undisturbed study, so it is the missing guard that is seen.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from lab import failpoints, spool, tracking
from lab.search import session
from lab.search.coordinator import Coordinator
from lab.search.results import Results
from lab.tracking import Tracker
from lab.training.checkpoint import Checkpoint, Checkpoints
from tests import faults, invariants
from tests.waiting import until

STALE = 1_000.0  # a number that no undisturbed study measures


# --- the guards, each taken away --------------------------------------------------------------------------------------


def publish_is_not_idempotent(patch):
    """Whatever was published before is published again, as a new run."""
    original = Tracker.publish

    def publish(tracker, directory):
        tracker._known.clear()
        return original(tracker, directory)

    patch.setattr(Tracker, "publish", publish)


def outcomes_are_written_in_place(patch):
    """The folder of an outcome has its name before its files are there."""
    patch.setattr(spool, "temporary_of", lambda path: path)


def attempts_are_not_compared(patch):
    """Of two outcomes of a trial, the one that came last counts."""
    patch.setattr(spool, "attempt_of", lambda directory: 0)


def checkpoints_are_written_in_place(patch):
    """There is one checkpoint, and a new one is written over it."""

    def write(kept, tensors, record):
        from safetensors.torch import save

        header = {"record": json.dumps(record), "names": json.dumps([*tensors])}
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, header)
        kept.folder.mkdir(parents=True, exist_ok=True)
        with (kept.folder / "checkpoint.safetensors").open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            failpoints.hit("checkpoint.rename")
            file.write(content[len(content) // 2 :])

    patch.setattr(Checkpoints, "_write", write)
    patch.setattr(Checkpoints, "load", lambda kept: parsed(kept.folder / "checkpoint.safetensors"))


def digests_of_checkpoints_are_not_compared(patch):
    """The newest checkpoint is taken whatever its bytes are."""
    patch.setattr(Checkpoints, "load", lambda kept: parsed(kept._files()[0][2]) if kept._files() else None)


def parsed(path):
    from safetensors.torch import load

    if not path.exists():
        return None
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    tensors = load(content)
    return Checkpoint({name: tensors[name] for name in json.loads(header["names"])}, json.loads(header["record"]))


def manifests_are_not_checked(patch):
    """What lies in the spool is believed."""

    def read(directory):
        manifest = json.loads((directory / spool.MANIFEST).read_text())
        return spool.Outcome(directory, manifest, {name: (directory / name).read_bytes() for name in manifest["files"]})

    patch.setattr(spool, "read_outcome", read)
    patch.setattr(tracking, "read_outcome", read)


def trials_under_way_are_forgotten(patch):
    """A trial that was asked for and not told is not taken up again."""

    def recover(coordinator):
        for directory in spool.pending(coordinator.home, coordinator.common.study):
            coordinator._take(directory)

    patch.setattr(Coordinator, "recover", recover)


def the_search_learns_first_and_the_spool_is_emptied(patch):
    """A trial is told, its outcome taken out of the spool, and only then published."""
    original = Results.settle

    def settle(results, outcome):
        elsewhere = Path(tempfile.mkdtemp(dir=outcome.directory.parent)) / outcome.key
        results._tell(outcome, None)
        shutil.move(outcome.directory, elsewhere)
        original(results, dataclasses.replace(outcome, directory=elsewhere))

    patch.setattr(Results, "settle", settle)


def runs_end_before_their_files_are_there(patch):
    """MLflow says that a run is finished while its artifacts are still to come."""
    original = Tracker._store

    def store(tracker, run_id, contents):
        tracker._client.set_terminated(run_id, "FINISHED")
        original(tracker, run_id, contents)

    patch.setattr(Tracker, "_store", store)


def temporary_files_stay(patch):
    """What a dead writer left is not removed."""
    patch.setattr(spool, "clean_temporaries", lambda home, study: 0)


def studies_are_not_locked(patch):
    """Nobody asks whether a study has a coordinator."""
    patch.setattr(session.storage, "coordinator_lock", lambda home, name: contextlib.nullcontext())


# --- the faults that they are there for -------------------------------------------------------------------------------


def ends_well(home):
    """Run the study to its end, and check it."""
    code = faults.forked(lambda: faults.run(home))
    assert code == 0, f"the next run ends with exit code {code}"
    invariants.check_finished(home, faults.NAME, 2)


def cut_short(place):
    """Return the scenario of a run that is killed at a place, and another that goes on."""

    def scenario(home):
        assert faults.injected(home, f"{place}=kill") == -signal.SIGKILL
        ends_well(home)

    return scenario


def late_result(home):
    """The result of an earlier session's worker, and a wrong one, comes after that of the trial's worker of today."""
    assert faults.injected(home, "spool.renamed=kill") == -signal.SIGKILL
    [directory] = spool.pending(home, faults.NAME)
    outcome = spool.read_outcome(directory)
    metrics = outcome.json("metrics.json")
    metrics["final"]["val_risk"] = STALE
    spool.write_outcome(
        home, faults.NAME, outcome.phase, outcome.number,
        dict(outcome.contents) | {"metrics.json": json.dumps(metrics).encode()},
        status=outcome.status, attempt=outcome.manifest["attempt"] - 1, started=0.0, finished=1.0,
    )  # fmt: skip
    ends_well(home)


def damaged_result(home):
    """A byte of an outcome changes while nobody runs: a digit of what was measured."""
    assert faults.injected(home, "spool.renamed=kill") == -signal.SIGKILL
    [directory] = spool.pending(home, faults.NAME)
    path = directory / "metrics.json"
    final = json.loads(path.read_text())["final"]
    before = f'"val_risk": {final["val_risk"]}'
    text = path.read_text()
    at = text.rindex(before) + len(before) - 1
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    ends_well(home)


def damaged_checkpoint(home):
    """A byte of the newest checkpoint changes while nobody runs: the number of evaluations that are done."""
    assert faults.injected(home, "epoch:2=kill") == -signal.SIGKILL
    newest = max(home.checkpoints_of(faults.NAME, "explore-0001").iterdir())
    content = bytearray(newest.read_bytes())
    content[content.rindex((1).to_bytes(8, "little"))] = 0
    newest.write_bytes(content)
    ends_well(home)


def two_at_once(home):
    """A second coordinator starts while the first one is at work."""
    gate = home.root / "gate"

    def held():
        os.environ["LAB_FAKE_GATE"] = str(gate)
        faults.run(home)

    first = faults.begin(held)
    try:
        until(lambda: len(invariants.trials(home, faults.NAME)) == 2)  # it has asked for its trial
        code = faults.forked(lambda: faults.run(home))
    finally:
        gate.touch()
        faults.end(first)
        gate.unlink()
    assert code == 4, f"the second coordinator ends with exit code {code}"
    ends_well(home)


OTHER = "other numbers are measured"
ENDS = "the next run ends with exit code 5"
CASES = [
    (publish_is_not_idempotent, cut_short("published"), "a trial is counted twice"),
    (outcomes_are_written_in_place, cut_short("spool.write:3"), ENDS),
    (attempts_are_not_compared, late_result, OTHER),
    (checkpoints_are_written_in_place, cut_short("checkpoint.rename:2"), OTHER),
    (digests_of_checkpoints_are_not_compared, damaged_checkpoint, OTHER),
    (manifests_are_not_checked, damaged_result, "metrics.json is damaged"),
    (trials_under_way_are_forgotten, cut_short("submit"), "RUNNING"),
    (the_search_learns_first_and_the_spool_is_emptied, cut_short("publish"), ENDS),
    (runs_end_before_their_files_are_there, cut_short("publish.artifact:3"), "artifacts/manifest.json cannot be read"),
    (temporary_files_stay, cut_short("spool.rename"), "temporary files are left"),
    (studies_are_not_locked, two_at_once, "the second coordinator ends with exit code 0"),
]


@pytest.fixture(scope="module")
def base(begun):
    """Return a project whose study has one trial of two, and what an undisturbed run of the other measures."""
    with faults.memory() as folder, faults.fake_trainer(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_CHECKPOINT_SECONDS", "0")
        undisturbed = faults.copy(begun, folder / "undisturbed")
        ends_well(undisturbed)
        yield faults.copy(begun, folder / "base"), invariants.measured(undisturbed, faults.NAME)


def seen(base, name, scenario):
    """Return what is wrong after a scenario, "" if nothing is."""
    begun, undisturbed = base
    home = faults.copy(begun, begun.root.with_name(name))
    try:
        scenario(home)
    except AssertionError as error:
        return str(error)
    return "" if invariants.measured(home, faults.NAME) == undisturbed else OTHER


@pytest.mark.parametrize("scenario", [late_result, damaged_checkpoint, damaged_result, two_at_once])
def test_with_all_guards_a_fault_costs_nothing(base, scenario):
    assert seen(base, scenario.__name__, scenario) == ""  # for kills, tests/test_faults.py says so


@pytest.mark.parametrize(("mutant", "scenario", "sign"), CASES, ids=[mutant.__name__ for mutant, *_ in CASES])
def test_what_a_guard_is_there_for_is_seen_when_it_is_missing(base, monkeypatch, mutant, scenario, sign):
    mutant(monkeypatch)
    assert sign in seen(base, mutant.__name__, scenario)
