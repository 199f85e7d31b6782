"""A checkpoint is on the disk whole or not at all, and a trial that goes on from one ends with the same bits."""

import errno
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from lab import failpoints, spool
from lab.files import forget
from lab.spec import Replication, Study
from lab.storage import Home
from lab.task import Task
from lab.training import checkpoint
from lab.training.checkpoint import Checkpoints
from lab.trial import evaluate
from tests import faults

STATE = {"weights": torch.arange(6.0).reshape(2, 3), "bits": torch.tensor([float("nan"), -0.0])}
STUDY = Study(
    question="?", data="digits", fixed=dict(epochs=9, n_train=40, width=8, dropout=0.2, norm="batch", patience=3),
    replication=Replication("bootstrap", 2, 2), n_evaluations=4, n_test=40, n_validation=30,
)  # fmt: skip


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoints.arm(None)


def kept(folder, identity=None, seconds=0.0):
    notes = []
    made = Checkpoints(folder / "explore-0000", identity or {"width": 8}, notes.append, seconds)
    made.notes = notes
    return made


def write(checkpoints, n=1):
    for k in range(n):
        checkpoints.offer(lambda k=k: (STATE | {"k": torch.tensor(k)}, {"k": k, "third": 1 / 3}))


def test_what_was_written_comes_back_bit_for_bit_and_two_are_kept(tmp_path):
    write(kept(tmp_path), 5)
    found = kept(tmp_path).load()
    assert found.record == {"k": 4, "third": 1 / 3}
    assert [*found.tensors] == ["weights", "bits", "k"]
    assert found.tensors["weights"].tolist() == STATE["weights"].tolist()
    assert found.tensors["bits"].numpy().tobytes() == STATE["bits"].numpy().tobytes()
    names = sorted(path.name[:6] for path in (tmp_path / "explore-0000").iterdir())
    assert names == ["000004", "000005"]
    assert checkpoint.damage(tmp_path / "explore-0000") == (2, [])


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "link", "other"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(tmp_path, harm):
    write(kept(tmp_path), 2)
    older, newest = sorted((tmp_path / "explore-0000").iterdir())
    content = newest.read_bytes()
    if harm == "link":
        newest.unlink()
        newest.symlink_to(older)
    else:
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        new = {"flip": flipped, "cut": content[:half], "empty": b"", "other": older.read_bytes()}
        newest.write_bytes(new[harm])
    again = kept(tmp_path)
    assert again.load().record["k"] == 0
    assert len(again.notes) == 1
    assert str(newest) in again.notes[0]
    assert len(checkpoint.damage(tmp_path / "explore-0000")[1]) == 1
    older.write_bytes(b"x")
    assert kept(tmp_path).load() is None
    write(again)  # a serial that was not used before
    assert kept(tmp_path).load().record["k"] == 0


def test_a_checkpoint_of_another_configuration_is_not_used(tmp_path):
    write(kept(tmp_path))
    other = kept(tmp_path, {"width": 9})
    assert other.load() is None
    assert "another configuration" in other.notes[0]


@pytest.mark.parametrize("place", ["checkpoint.write", "checkpoint.rename"])
@pytest.mark.parametrize("action", ["kill", "enospc", "raise"])
def test_whatever_happens_as_one_is_written_the_one_before_is_whole(tmp_path, place, action):
    write(kept(tmp_path))

    def second():
        failpoints.arm(f"{place}={action}")
        write(kept(tmp_path), 2)

    code = faults.forked(second)
    assert code == {"kill": -9, "enospc": 0, "raise": faults.FIRED}[action]
    found = kept(tmp_path).load()
    assert found.record["k"] in (0, 1)
    assert checkpoint.damage(tmp_path / "explore-0000")[1] == []
    write(kept(tmp_path))
    assert not list((tmp_path / "explore-0000").glob(".*"))


def test_a_full_disk_is_said_and_training_goes_on(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(checkpoint, "write_synced", full)
    checkpoints = kept(tmp_path)
    write(checkpoints)
    [note] = checkpoints.notes
    assert "No space left on device" in note and "000001" in note  # which file
    assert list((tmp_path / "explore-0000").iterdir()) == []


def test_writing_takes_at_most_two_percent_of_the_time_however_slow_the_disk_is(tmp_path, monkeypatch):
    now, n_written = [0.0], [0]

    def slow(path, content):
        now[0] += 3.0
        n_written[0] += 1
        path.write_bytes(content)

    monkeypatch.setattr(checkpoint, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write_synced", slow)
    checkpoints = kept(tmp_path, seconds=10.0)
    while now[0] < 3000.0:
        now[0] += 0.5  # an epoch
        write(checkpoints)
    assert 15 <= n_written[0] <= 21
    assert n_written[0] * 3.0 / now[0] <= 0.021


def a_task(**changes):
    task = Task(study="toy", spec=json.loads(json.dumps(STUDY.to_dict())), phase="explore", number=0,
                config=asdict(STUDY.config({})))  # fmt: skip
    return replace(task, **changes)


def files(directory):
    contents = dict(spool.read_outcome(directory).contents)
    metrics = json.loads(contents.pop("metrics.json"))
    for clock in ("seconds", "replicas_per_second"):
        del metrics["final"][clock]
    del contents["environment.json"]
    return contents | {"metrics.json": metrics}


def test_a_trial_killed_after_every_epoch_ends_with_the_bits_of_an_undisturbed_one(tmp_path, monkeypatch):
    undisturbed = files(evaluate(a_task(), Home(tmp_path / "undisturbed")))
    monkeypatch.setenv("LAB_CHECKPOINT_SECONDS", "0")
    home = Home(tmp_path / "killed")

    def go_on():
        # the second checkpoint of this process; two epochs are done, the state of the first is on the disk
        failpoints.arm("checkpoint.rename:2=kill")
        evaluate(a_task(), home)

    n_kills = 0
    while (code := faults.forked(go_on)) != 0:
        assert code == -9
        n_kills += 1
        assert n_kills < 20
    assert n_kills >= 5
    [directory] = spool.pending(home, "toy")
    assert files(directory) == undisturbed
    assert not home.checkpoints_of("toy", "explore-0000").exists()


def test_a_trial_says_how_long_all_its_attempts_took_that_it_went_on_from(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_CHECKPOINT_SECONDS", "0")
    home = Home(tmp_path)

    def first():
        failpoints.arm("epoch:3=kill")
        evaluate(a_task(), home)

    assert faults.forked(first) == -9
    [folder] = home.checkpoints_of("toy").iterdir()
    newest = max(folder.iterdir())
    spent = json.loads(json.loads(newest.read_bytes()[8:][: int.from_bytes(newest.read_bytes()[:8], "little")])
                       ["__metadata__"]["record"])["seconds"]  # fmt: skip
    started = time.monotonic()
    outcome = spool.read_outcome(evaluate(a_task(), home))
    here = time.monotonic() - started
    assert 0 < spent < outcome.json("metrics.json")["final"]["seconds"] < spent + here


def test_checkpoints_lie_below_the_project_folder(tmp_path):
    home = Home(tmp_path)
    with pytest.raises(Exception, match="not a usable name"):
        home.checkpoints_of("toy", "../x")
    assert home.checkpoints_of("toy", "explore-0000").is_relative_to(tmp_path.resolve())
    forget(Path(tmp_path / "nothing"))
