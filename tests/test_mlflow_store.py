"""The project's own MLflow database: who reads it does not hold up who writes it."""

import contextlib
import os
import signal
import sqlite3

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from lab import history, mlflow_store
from lab.storage import Home
from lab.tracking import Tracker
from tests import builders, faults


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def publish(home, number):
    tracker = Tracker.open("capacity_sweep", home=home, question="?")
    try:
        return tracker.publish(builders.write_outcome(home.spool_of("capacity_sweep"), number=number))
    finally:
        tracker.close()


def mode(home):
    with contextlib.closing(sqlite3.connect(home.mlflow_db)) as database:
        return database.execute("PRAGMA journal_mode").fetchone()[0]


def test_trials_are_published_while_another_program_reads(home):
    publish(home, 0)
    assert mode(home) == "wal"
    with contextlib.closing(sqlite3.connect(home.mlflow_db, isolation_level=None)) as viewer:
        viewer.execute("BEGIN")
        assert viewer.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        publish(home, 1)
        assert viewer.execute("SELECT count(*) FROM runs").fetchone() == (1,)  # as when it began
        viewer.execute("COMMIT")
    assert history.load("capacity_sweep", home=home).trials["number"].tolist() == [0, 1]


def test_a_database_of_an_earlier_edition_is_converted_when_nobody_reads_it(home):
    publish(home, 0)
    with contextlib.closing(sqlite3.connect(home.mlflow_db, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("BEGIN")
        database.execute("SELECT count(*) FROM runs").fetchone()
        Tracker.open("capacity_sweep", home=home, question="?").close()
        database.execute("COMMIT")
    assert mode(home) == "delete"
    publish(home, 1)
    assert mode(home) == "wal"
    assert not list(home.mlruns.glob("mlflow.db-*"))  # nothing waits beside it


@contextlib.contextmanager
def at_statement(k, what):
    """Do something before the k-th statement of any database."""
    passed = []

    def count(*_):
        passed.append(None)
        if len(passed) == k:
            what()

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def interrupted():
    raise KeyboardInterrupt


def files(home):
    return {path.name.removesuffix("-wal").removesuffix("-shm") for path in home.mlruns.iterdir() if path.is_file()}


@pytest.mark.parametrize("k", [1, 30, 100, 300])
def test_whoever_stops_the_making_of_the_tables_leaves_nothing_of_them(home, k):
    with at_statement(k, interrupted), pytest.raises(KeyboardInterrupt):
        mlflow_store.connect(home, create=True)
    assert files(home) == set()
    publish(home, 0)
    assert files(home) == {"mlflow.db"}


def test_what_a_process_that_was_killed_has_made_of_the_tables_is_removed_by_the_next_one(home):
    def what():
        with at_statement(100, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            mlflow_store.connect(home, create=True)

    assert faults.forked(what) == -signal.SIGKILL
    assert files(home) and not home.mlflow_db.exists()
    publish(home, 0)
    assert files(home) == {"mlflow.db"}


def test_nothing_of_a_database_that_was_removed_without_its_log_is_in_the_next_one(home):
    def what():
        publish(home, 0)
        Tracker.open("gone", home=home, question="?")
        os.kill(os.getpid(), signal.SIGKILL)

    assert faults.forked(what) == -signal.SIGKILL
    assert home.mlflow_db.with_name("mlflow.db-wal").stat().st_size
    home.mlflow_db.unlink()
    mlflow_store.connect(home, create=True)
    with contextlib.closing(sqlite3.connect(home.mlflow_db)) as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OperationalError("SELECT 1", {}, sqlite3.OperationalError("database or disk is full")),
            "database or disk is full",
        ),
        (sqlite3.OperationalError("disk I/O error"), "disk I/O error (is the disk full?)"),
        (ValueError("(a remark) in front"), "(a remark) in front"),
    ],
)
def test_an_error_of_a_database_is_said_in_its_own_words_alone(error, text):
    assert mlflow_store.first_line(error) == text
