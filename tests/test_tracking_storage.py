"""Where MLflow keeps what is tracked: its database, the folder of artifacts, and what can be wrong with them."""

import os
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy
from mlflow import MlflowClient

from lab import history
from lab.errors import SpecError, StorageError
from lab.storage import Home
from lab.tracking import Tracker
from tests import builders
from tests.trackers import STUDY, active_runs, client, home, reopen, tracker

__all__ = ["client", "home", "tracker"]  # fixtures
# of MLflow's own client, which the tests use to look at what was written; lab.history does the same in mlflow_errors
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(home, tracker, client):
    client.delete_experiment(tracker.experiment_id)
    with pytest.raises(StorageError, match=f"deleted in MLflow.*--experiment-id {tracker.experiment_id}"):
        reopen(home)


def test_a_file_that_is_no_database_is_one_line_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home(tmp_path)
    home.artifacts.mkdir(parents=True)
    home.mlflow_db.write_bytes(b"not a database" * 1000)
    for action in (lambda: reopen(home), lambda: history.load(STUDY, home=home), lambda: history.studies(home=home)):
        with pytest.raises(StorageError, match=r"mlflow\.db.*not a database") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_locked_database_is_one_line_and_the_outcome_can_be_published_later(home, tracker, client, capfd):
    def impatient(connection, cursor, statement, parameters, context, many):
        return statement.replace("busy_timeout = 20000", "busy_timeout = 50"), parameters

    engine = tracker._client._tracking_client.store.engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", impatient, retval=True)
    outcome = builders.write_outcome(home.spool_of(STUDY))
    with sqlite3.connect(home.mlflow_db) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"explore-0000 could not be published: .*database is locked"):
            tracker.publish(outcome)
        other.rollback()
    other.close()
    assert tracker.run_ids() == {}
    assert capfd.readouterr() == ("", "")
    assert reopen(home).publish(outcome)
    assert len(active_runs(client, tracker)) == 1


def test_a_moved_project_finds_its_artifacts_again(home, tracker):
    first = tracker.publish(builders.write_outcome(home.spool_of(STUDY)))
    tracker.close()
    moved = Home(home.root.with_name("moved #1, ü"))
    home.root.rename(moved.root)
    assert history.load(STUDY, home=moved).predictions("explore-0000").labels_N.shape == (40,)
    again = reopen(moved)
    second = again.publish(builders.write_outcome(moved.spool_of(STUDY), number=1))
    client = MlflowClient(moved.mlflow_uri)
    for run_id in (first, second):
        assert client.get_run(run_id).info.artifact_uri.startswith(moved.root.as_uri())
        assert "curves.parquet" in {file.path for file in client.list_artifacts(run_id)}
    assert not home.root.exists()


def test_a_hostile_study_name_touches_nothing(home):
    for name in ("../x", "a/b", "", "a\nb"):
        with pytest.raises(SpecError):
            Tracker.open(name, home=home, question="?")
    assert not home.artifacts.exists()


def test_telemetry_is_off_before_mlflow_is_imported(tmp_path):
    code = (
        "import os, sys; import lab.tracking, lab.history; assert 'mlflow' not in sys.modules\n"
        "from lab.storage import Home; from pathlib import Path\n"
        "import lab.history as h; h.connect(Home(Path(sys.argv[1])), create=True)\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled; assert is_telemetry_disabled()\n"
        "from mlflow.telemetry import get_telemetry_client; assert get_telemetry_client() is None\n"
    )
    silent = {"CI", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_TRACKING_URI"}
    env = {name: value for name, value in os.environ.items() if name not in silent}
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=env, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
