"""A toy study, its search without training and without MLflow, and what it leaves: for the tests of `lab.search`."""

import json
import os
import tempfile
from pathlib import Path

import optuna
import pytest

from lab import files, search, spool
from lab.search import database as databases
from lab.spec import Choice, Float, Int, Replication, Study
from lab.storage import Home
from tests import fake_training

SPACE = {
    "learning_rate": Float(1e-4, 1.0, log=True),
    "width": Int(4, 64, log=True),
    "dropout": Float(0.0, 0.5),
    "activation": Choice("relu", "tanh", "gelu"),
}


def toy(**changes):
    fields = dict(
        question="Is it a toy?", data="fake", space=SPACE, fixed=dict(epochs=3, n_train=40),
        replication=Replication("disjoint", 3, 3), n_trials=4, learning_curve=(1.0, 0.5),
    )  # fmt: skip
    return Study(**(fields | changes))


class FakeTracker:
    """Keeps runs as files, as lab.tracking keeps them in MLflow."""

    def __init__(self, folder):
        self.folder = folder

    @classmethod
    def open(cls, study_name, *, home, question):
        folder = home.mlruns / "fake_runs" / study_name
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def publish(self, outcome_dir):
        outcome = spool.read_outcome(outcome_dir)
        names = [name for name in ("config.json", "metrics.json") if name in outcome.contents]
        run = {"run_id": f"run-{outcome.key}", "status": outcome.status, "reason": outcome.reason}
        run |= {name.removesuffix(".json"): outcome.json(name) for name in names}
        for clock in ("seconds", "replicas_per_second"):
            run.get("metrics", {}).get("final", {}).pop(clock, None)
        files.atomic_write_text(self.folder / f"{outcome.key}.json", json.dumps(run))
        return run["run_id"]

    def run_ids(self):
        return {path.stem: f"run-{path.stem}" for path in self.folder.glob("*.json")}

    def close(self):
        pass


@pytest.fixture(autouse=True)
def faked(monkeypatch):
    from lab import tracking, training
    from lab.data import datasets

    monkeypatch.setattr(tracking, "Tracker", FakeTracker)
    monkeypatch.setattr(training, "fit", fake_training.fit)
    monkeypatch.setattr(training, "count_parameters", fake_training.count_parameters)
    monkeypatch.setitem(datasets.DATASETS, "fake", fake_training.dataset)


@pytest.fixture(scope="module")
def memory():
    """A folder in memory, where there is one: a sync of SQLite costs more here than all else together."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(memory):
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


class Boom(BaseException):
    """A kill: nothing catches it."""


def run(study, home, name="toy", **options):
    return search.run(study, name, home=home, **({"engine": "inline", "device": "cpu"} | options))


def stored(home, name="toy"):
    database = databases.open_database(home)
    try:
        return optuna.load_study(storage=database, study_name=name).get_trials()
    finally:
        databases.close(database)


def runs(home, name="toy"):
    return {p.stem: json.loads(p.read_text()) for p in sorted((home.mlruns / "fake_runs" / name).glob("*.json"))}


def state(home, name="toy"):
    """Return all that an interruption must not change."""
    return [(t.number, t.state.name, t.values, t.params) for t in stored(home, name)], runs(home, name)
