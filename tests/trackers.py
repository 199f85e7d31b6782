"""Fixtures of what MLflow holds: project folders whose database is made, trackers on them, and their rows."""

import sqlite3

import pytest
from mlflow import MlflowClient

from lab.tracking import Tracker

STUDY = "capacity_sweep"


@pytest.fixture
def home(tmp_path, new_home, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return new_home(tmp_path / "a project")


@pytest.fixture
def tracker(home):
    tracker = Tracker.open(STUDY, home=home, question="Does it?")
    yield tracker
    tracker.close()


@pytest.fixture
def client(home):
    return MlflowClient(home.mlflow_uri)


def reopen(home):
    return Tracker.open(STUDY, home=home, question="Does it?")


def rows(home):
    """All that MLflow holds, as rows of its tables."""
    tables = ["experiments", "experiment_tags", "runs", "tags", "params", "metrics", "latest_metrics", "datasets"]
    with sqlite3.connect(home.mlflow_db) as database:
        found = {t: sorted(database.execute(f"SELECT * FROM {t}").fetchall(), key=repr) for t in [*tables, "inputs"]}
    database.close()
    return found


def active_runs(client, tracker):
    return client.search_runs([tracker.experiment_id])
