"""Commits that belong together: the last one waits for the disk, and those before it do not."""

import sqlalchemy

from lab import spool
from lab.search import database as databases
from lab.search import ledger
from lab.search.publisher import DirectPublisher
from lab.search.results import Results
from lab.search.trials import ask
from lab.syncs import Syncs
from tests import builders
from tests.toys import toy
from tests.trackers import STUDY, home, tracker

__all__ = ["home", "tracker"]  # fixtures
NORMAL, FULL = 1, 2


def commits(engine):
    """A list that gets, for each commit from now on that may have written, the mode of its connection."""
    found = []

    @sqlalchemy.event.listens_for(engine, "commit")
    def committed(connection):
        if connection.connection.dbapi_connection.in_transaction:
            found.append(connection.connection.dbapi_connection.execute("PRAGMA synchronous").fetchone()[0])

    return found


def test_a_trial_waits_for_the_disk_when_it_ends_not_for_each_of_its_parts(home, tracker):
    published = commits(tracker._engine)
    database = databases.open_database(home)
    told = commits(database.engine)
    study = toy(sampler="qmc")
    stored = ledger.open_study(database, study, STUDY, "digest", "sets")
    syncs = Syncs(database.engine)
    for number in range(2):
        ask(stored, study, number)
        assert told[-1] == FULL
        results = Results(study, stored, DirectPublisher(tracker), syncs)
        published.clear(), told.clear()
        results.settle(spool.read_outcome(builders.write_outcome(home.spool_of(STUDY), number=number)))
        assert published[0] == FULL  # the run, before it has artifacts
        for modes in (published[1:], told):
            assert len(modes) > 2
            assert set(modes[:-1]) == {NORMAL} and modes[-1] == FULL, modes
    databases.close(database)


def engine(path, mode):
    made = sqlalchemy.create_engine(f"sqlite:///{path}")
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x INT)")
    with made.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA journal_mode = {mode}")
    return made


def insert(made):
    with made.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")


def test_without_a_write_ahead_log_every_commit_waits(tmp_path):
    found = {}
    for mode in ("WAL", "DELETE"):
        made = engine(tmp_path / mode, mode)
        found[mode] = commits(made)
        with Syncs(made).later():
            insert(made)
        insert(made)
        made.dispose()
    assert found == {"WAL": [NORMAL, FULL], "DELETE": [FULL, FULL]}


def test_an_error_in_between_and_the_end_of_it_leave_commits_that_wait(tmp_path):
    made = engine(tmp_path / "x", "WAL")
    modes = commits(made)
    syncs = Syncs(made)
    try:
        with syncs.later():
            raise KeyError
    except KeyError:
        insert(made)
    syncs.close()
    with syncs.later():
        insert(made)
    made.dispose()
    assert modes == [FULL, FULL]


def test_without_a_database_there_is_nothing_to_decide():
    syncs = Syncs(None)
    with syncs.later():
        pass
    syncs.close()
