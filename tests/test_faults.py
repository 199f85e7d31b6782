"""Kills, errors and full disks at every place that matters: a study comes to the same end, and nothing counts twice."""

import contextlib
import dataclasses
import functools
import json
import resource
import signal
import sqlite3

import numpy as np
import pytest

from lab import failpoints, spool, trial
from lab.errors import StorageError
from lab.search import database
from lab.storage import Home
from lab.task import Task
from tests import fake_training, faults, invariants

PLACES = [name for name in failpoints.NAMES if not name.startswith("report")]
IN_TRAINING = ("epoch", "checkpoint.write", "checkpoint.rename")  # an error there is the trial's
OFTEN = ("tell.attr", "publish.artifact", "spool.write", "checkpoint.write")  # passed several times in a trial


@pytest.fixture(scope="module")
def base(begun):
    """Return a copy of a project whose study has one trial of two; from here on, training is faked."""
    with faults.memory() as folder, faults.fake_trainer(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_CHECKPOINT_SECONDS", "0")
        yield faults.copy(begun, folder / "base")


@pytest.fixture(scope="module")
def undisturbed(base):
    """Return n_trials → what an undisturbed study of that size measures."""

    @functools.cache
    def measured(n_trials):
        home = faults.copy(base, base.root.with_name(f"undisturbed-{n_trials}"))
        faults.run(home, faults.small(n_trials))
        invariants.check_finished(home, faults.NAME, n_trials)
        return invariants.measured(home, faults.NAME)

    return measured


@pytest.fixture
def home(base, request):
    return faults.copy(base, base.root.with_name(f"case-{abs(hash(request.node.nodeid))}"))


# --- a whole study ----------------------------------------------------------------------------------------------------


POINTS = {
    "kill": [f"{place}:{k}" for k in (1, 2, 3, 4) for place in PLACES if k == 1 or place in OFTEN],
    "raise": [f"{p}:{k}" for k in (1, 2, 3, 4) for p in PLACES if p not in IN_TRAINING and (k == 1 or p in OFTEN)],
    "enospc": [
        f"{p}:{k}" for k in (1, 2, 3, 4) for p in PLACES if not p.startswith("checkpoint") and (k == 1 or p in OFTEN)
    ],
}


@pytest.mark.parametrize("action", POINTS)
def test_a_study_disturbed_at_one_place_after_the_other_ends_as_an_undisturbed_one(undisturbed, home, action):
    n_trials = 14  # as many as are done on the way, and some
    for point in POINTS[action]:
        code = faults.injected(home, f"{point}={action}", faults.small(n_trials))
        assert code in faults.CODES[action], f"{point}={action} ended with exit code {code}"
        invariants.check(home, faults.NAME, n_trials)
    faults.run(home, faults.small(n_trials))
    invariants.check_finished(home, faults.NAME, n_trials)
    assert invariants.measured(home, faults.NAME) == undisturbed(n_trials)


@pytest.mark.parametrize("place", ["checkpoint.write", "checkpoint.rename"])
def test_a_checkpoint_for_which_the_disk_has_no_room_is_done_without(undisturbed, home, place):
    assert faults.injected(home, f"{place}=enospc") == faults.FIRED  # the run went on to its end
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == undisturbed(2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_a_random_time_ends_a_run_at_once_and_changes_nothing(base, undisturbed, home, monkeypatch, number):
    monkeypatch.setenv("LAB_FAKE_SECONDS", "0.1")
    rng, codes = np.random.default_rng(int(number)), []
    while not codes or codes[-1] != 0:
        after = float(rng.uniform(0.0, 0.1 + 0.1 * len(codes)))  # later and later, so that it comes to an end
        codes.append(faults.signalled(home, number, after))
        invariants.check(home, faults.NAME, 2)
    assert set(codes[:-1]) == {{signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]}
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == undisturbed(2)


# --- one trial, in its worker -----------------------------------------------------------------------------------------


@pytest.fixture
def task():
    study = faults.small(2)
    return Task(
        study=faults.NAME, spec=json.loads(json.dumps(study.to_dict())), phase="explore", number=1,
        config=dataclasses.asdict(study.config({name: domain.at(0.5) for name, domain in study.space.items()})),
    )  # fmt: skip


def outcome_of(home, task):
    """Return what the spool holds of a trial: its files, without clocks; None if it has no outcome."""
    directory = home.outcome_of(task.study, task.key)
    if not directory.exists():
        return None
    contents = dict(spool.read_outcome(directory).contents)
    final = json.loads(contents.pop("metrics.json"))["final"]
    contents["final"] = {name: value for name, value in final.items() if name not in invariants.CLOCKS}
    return contents


@pytest.mark.parametrize("action", ["kill", "enospc"])
@pytest.mark.parametrize("first", [1, 2, 3, 5, 8])
def test_a_worker_disturbed_at_any_passage_and_later_and_later_leaves_a_whole_outcome_or_none(
    tmp_path, home, task, action, first
):
    """From the `first` passage of any place on, until an attempt is not disturbed; each goes on from the one before."""
    whole = Home(tmp_path)
    trial.evaluate(task, whole)
    expected = outcome_of(whole, task)
    assert expected is not None

    def work(k):
        point = failpoints.arm(f"*:{k}={action}")
        trial.evaluate(task, home)
        if point.fired:
            raise failpoints.Injected("and the outcome was written all the same")

    k = first
    while (code := faults.counted(faults.forked(functools.partial(work, k)))) != 0:
        assert code in faults.CODES[action], f"*:{k}={action} ended with exit code {code}"
        assert outcome_of(home, task) in (None, expected)
        k += 1
    assert k > 9, "a trial passes more places than that"
    assert outcome_of(home, task) == expected
    spool.clean_temporaries(home, task.study)  # as the coordinator does
    assert [path.name for path in home.spool_of(task.study).iterdir()] == [task.key]
    assert not any(home.checkpoints_of(task.study).iterdir())


def test_an_error_in_training_fails_that_trial_alone_and_says_why(base, undisturbed, home):
    assert faults.injected(home, "epoch=raise") == faults.FIRED  # the run went on to its end
    invariants.check_finished(home, faults.NAME, 2)
    (trials, files), (expected, expected_files) = invariants.measured(home, faults.NAME), undisturbed(2)
    assert (trials[1][0], trials[1][3]) == ("FAIL", "failed")
    assert trials[0] == expected[0]
    assert {key: digest for key, digest in files.items() if key[0] == "explore-0000"}.items() <= expected_files.items()


# --- disks and databases ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_disk_that_takes_no_more_than_so_many_bytes_a_file_is_one_line_and_the_next_run_goes_on(undisturbed, home):
    codes = []
    size = 600
    while not codes or codes[-1] != 0:

        def limited(size=size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            faults.run(home)

        codes.append(faults.counted(faults.forked(limited)))
        assert codes[-1] in (0, 5), f"exit code {codes[-1]} with files of {size} bytes"
        invariants.check(home, faults.NAME, 2)
        size = size * 3 // 2
    assert len(codes) > 5
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == undisturbed(2)


@pytest.mark.parametrize("name", ["optuna_db", "mlflow_db"])
def test_a_locked_database_is_said_and_the_next_run_goes_on(undisturbed, home, monkeypatch, name):
    with monkeypatch.context() as patch, contextlib.closing(sqlite3.connect(getattr(home, name))) as other:
        patch.setattr(database, "CONNECT_SECONDS", 0.2)
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE in_the_way (x)")
        with pytest.raises(StorageError, match="locked"):
            faults.run(home)
        other.rollback()
    faults.run(home)
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == undisturbed(2)


@pytest.mark.parametrize("error", [MemoryError(), "torch"])
def test_a_trial_that_needs_more_memory_than_there_is_fails_alone(home, monkeypatch, error):
    import torch

    from lab import training

    raised = torch.OutOfMemoryError("CUDA out of memory") if error == "torch" else error

    def greedy(config, *args, first_resample=0, **options):
        if first_resample == 0:
            raise raised
        return fake_training.fit(config, *args, first_resample=first_resample, **options)

    monkeypatch.setattr(training, "fit", greedy)
    summary = faults.run(home)
    assert (summary.counts["finished"], summary.counts["failed"]) == (1, 1)
    invariants.check_finished(home, faults.NAME, 2)


@pytest.mark.parametrize("place", ["report.write", "report.rename"])
@pytest.mark.parametrize("action", ["kill", "enospc"])
def test_a_report_that_could_not_be_written_leaves_the_one_before(base, home, place, action):
    from lab.report import page

    before = page.build(faults.NAME, home=home).path.read_bytes()
    faults.run(home)

    def build():
        failpoints.arm(f"{place}:9={action}")
        page.build(faults.NAME, home=home)

    assert faults.forked(build) == {"kill": -9, "enospc": 5}[action]
    assert home.report_of(faults.NAME).read_bytes() == before
    assert page.build(faults.NAME, home=home).path.read_bytes() != before
    assert not [path for path in home.reports.rglob("*.partial")]


def test_at_least_two_hundred_faults_were_injected_into_faked_training(request):
    mine = [item for item in request.session.items if item.path == request.path]
    if len(mine) < 10:
        pytest.skip("only some tests of this file were run")
    assert faults.INJECTED["faked"] >= 200
