"""Kills, errors and full disks at every place that matters: a study comes to the same end, and nothing counts twice."""

import contextlib
import resource
import sqlite3

import pytest

from lab import failpoints
from lab.errors import StorageError
from lab.search import database
from tests import fake_training, faults, invariants

PLACES = [name for name in failpoints.NAMES if not name.startswith("report")]
OFTEN = ("tell.attr", "publish.artifact", "spool.write")  # passed so often in a trial that every third will do


@pytest.fixture(scope="module")
def base(begun):
    """Return a copy of a project whose study has one trial of two; from here on, training is faked."""
    with faults.memory() as folder, faults.fake_trainer(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_CHECKPOINT_SECONDS", "0")
        yield faults.copy(begun, folder / "base")


@pytest.fixture(scope="module")
def undisturbed(base):
    home = faults.copy(base, base.root.with_name("undisturbed"))
    faults.run(home)
    invariants.check_finished(home, faults.NAME, 2)
    return invariants.measured(home, faults.NAME)


@pytest.fixture
def home(base, request):
    return faults.copy(base, base.root.with_name(f"case-{abs(hash(request.node.nodeid))}"))


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_any_passage_of_any_place_changes_nothing(base, undisturbed, place):
    home = faults.copy(base, base.root.with_name(place))
    n = faults.again_and_again(home, place, "kill", step=3 if place in OFTEN else 1)
    assert n >= 1, "it is never passed"
    assert invariants.measured(home, faults.NAME) == undisturbed


def test_an_error_in_training_fails_that_trial_alone_and_says_why(base, undisturbed, home):
    assert faults.injected(home, "epoch=raise") == faults.FIRED  # the run went on to its end
    invariants.check_finished(home, faults.NAME, 2)
    (trials, files), (expected, expected_files) = invariants.measured(home, faults.NAME), undisturbed
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

        codes.append(faults.forked(limited))
        assert codes[-1] in (0, 5), f"exit code {codes[-1]} with files of {size} bytes"
        invariants.check(home, faults.NAME, 2)
        size = size * 3 // 2
    assert len(codes) > 5
    invariants.check_finished(home, faults.NAME, 2)
    assert invariants.measured(home, faults.NAME) == undisturbed


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
    assert invariants.measured(home, faults.NAME) == undisturbed


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
