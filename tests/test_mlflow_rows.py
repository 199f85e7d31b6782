"""Parameters and metrics written as rows: what MLflow's own calls leave, and only where its tables are known."""

import sqlite3
from contextlib import closing

import pytest
import sqlalchemy
from mlflow.entities import Metric, Param

from lab import mlflow_rows
from lab.errors import StorageError
from lab.mlflow_store import engine_of
from tests import builders
from tests.trackers import STUDY, client, home, reopen, rows, tracker

__all__ = ["client", "home", "tracker"]  # fixtures
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
TABLES = ("params", "metrics", "latest_metrics")
PARAMS = [Param("width", "16"), Param("data", "digits"), Param("empty", "")]
METRICS = [  # the latest is the last by step, then by time, then by value, in whatever order they come
    Metric("late", 3.0, 20, 2), Metric("late", 1.0, 30, 1), Metric("late", 2.0, 10, 2),
    Metric("large", 0.5, 10, 4), Metric("large", 0.75, 10, 4), Metric("large", 0.25, 10, 4),
    Metric("once", -1e-300, 5, 0), Metric("twice", 7.0, 5, 0), Metric("twice", 7.0, 5, 0),
]  # fmt: skip


def of_run(home, run_id):
    """The rows of a run in the tables, without its id."""
    return {
        table: [tuple(value for value in row if value != run_id) for row in rows(home)[table] if run_id in row]
        for table in TABLES
    }


@pytest.mark.parametrize("params, metrics", [(PARAMS, METRICS), (PARAMS, []), ([], METRICS), ([], [])])
def test_rows_are_those_that_mlflow_leaves(home, tracker, client, params, metrics):
    ours, theirs = (client.create_run(tracker.experiment_id).info.run_id for _ in range(2))
    client.log_batch(theirs, metrics, params)
    expected = of_run(home, theirs)
    assert [len(expected[table]) for table in TABLES] == [len(params), len(metrics) and 8, len(metrics) and 4]
    for _ in range(2):  # the second time changes nothing
        mlflow_rows.write(engine_of(client), ours, params, metrics)
        assert of_run(home, ours) == expected
    assert client.get_run(ours).data.to_dictionary()["metrics"] == client.get_run(theirs).data.metrics


def test_what_mlflow_has_written_in_part_is_completed(home, tracker, client):
    whole, part = (client.create_run(tracker.experiment_id).info.run_id for _ in range(2))
    for run_id in (whole, part):
        client.log_batch(run_id, METRICS[1:2], PARAMS[:1])
    client.log_batch(whole, METRICS, PARAMS)
    mlflow_rows.write(engine_of(client), part, PARAMS, METRICS)
    assert of_run(home, part) == of_run(home, whole)


def test_a_trial_published_by_rows_is_as_one_published_by_mlflow(home, tracker):
    outcome = builders.write_outcome(home.spool_of(STUDY))
    found = {}
    for writes_rows in (True, False):
        tracker._writes_rows = writes_rows
        tracker._known.clear()
        found[writes_rows] = of_run(home, tracker.publish(outcome))
    assert found[True] == found[False]
    assert min(len(found[True][table]) for table in TABLES) > 20


def test_a_run_that_does_not_exist_gets_no_rows(home, tracker, client):
    before = rows(home)
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="FOREIGN KEY"):
        mlflow_rows.write(engine_of(client), "0" * 32, PARAMS, METRICS)
    assert rows(home) == before


@pytest.mark.parametrize("table", TABLES)
def test_tables_that_are_not_known_are_left_to_mlflow(home, tracker, client, monkeypatch, table):
    assert tracker._writes_rows
    with closing(sqlite3.connect(home.mlflow_db)) as database, database:
        database.execute(f"ALTER TABLE {table} ADD COLUMN unit VARCHAR(9)")
    again = reopen(home)
    assert not again._writes_rows
    called = []
    monkeypatch.setattr(again._client, "log_batch", lambda run_id, metrics, params: called.append(run_id))
    assert called == [again.publish(builders.write_outcome(home.spool_of(STUDY)))]


def test_a_damaged_page_is_an_error_of_one_line(home, tracker, monkeypatch):
    def damaged(*args):
        raise sqlite3.DatabaseError("database disk image is malformed\nat page 7")

    monkeypatch.setattr(mlflow_rows, "write", damaged)
    with pytest.raises(StorageError, match=r"explore-0000 could not be published: database disk image is malformed$"):
        tracker.publish(builders.write_outcome(home.spool_of(STUDY)))
    assert tracker.run_ids() == {}
