"""Fixtures of what MLflow holds: project folders whose database is made, trackers on them, and their rows."""

import shutil
import sqlite3

import pytest
from mlflow import MlflowClient

from lab.storage import Home
from lab.tracking import Tracker

STUDY = "capacity_sweep"


@pytest.fixture
def new_home(tmp_path, empty_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(name):
        home = Home(tmp_path / name)
        home.mlruns.mkdir(parents=True)
        shutil.copy(empty_database, home.mlflow_db)
        return home

    return make


@pytest.fixture
def home(new_home):
    return new_home("a project")


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
