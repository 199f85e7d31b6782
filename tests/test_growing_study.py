"""A whole study whose trials grow: what happened stands in MLflow, the run history, `status` and the report."""

import dataclasses

import pytest

from lab import history, mlflow_store, search, study, verify
from lab.report import page
from lab.spec import Choice, Replication
from tests import faults

PLAN = Replication("subsample", 3, 3, target_half_width=0.012, max_resamples=6, max_inits=5, max_replicas=20)
STUDY = dataclasses.replace(
    faults.REAL, replication=PLAN, n_trials=3, sampler="grid", space={"width": Choice(2, 8, 32)}, n_confirm=2,
    fixed=dict(epochs=8, n_train=60, learning_rate=0.02), n_test=200,
)  # fmt: skip


@pytest.fixture(scope="module")
def home(new_home):
    with faults.memory() as folder:
        home = new_home(folder)
        faults.run(home, STUDY)
        yield home


def test_the_run_history_says_how_each_trial_grew(home):
    found = history.load(faults.NAME, home=home)
    assert set(found.trials["stopped"]) <= {"reached", "cap", "test set"}
    for row in found.trials.to_dict("records"):
        grew = found.growth(row["key"])
        shapes = [(step["n_resamples"], step["n_inits"]) for step in grew["steps"]]
        assert shapes[0] == (3, 3) and shapes[-1] == (row["n_resamples"], row["n_inits"])
        assert isinstance(row["n_resamples"], int)
        assert row["n_replicas"] == row["n_resamples"] * row["n_inits"] <= 20
        assert found.predictions(row["key"]).probabilities_DINC.shape[:2] == shapes[-1]
        assert (row["half_width"] <= PLAN.target_half_width) == (row["stopped"] == "reached") == row["target_reached"]
        replicas = found.replicas[found.replicas["key"] == row["key"]]
        first = (6, 5) if row["phase"] == "confirm" else (0, 0)
        assert (replicas["resample"].min(), replicas["init"].min()) == first
    assert found.trials["n_replicas"].max() > 9
    assert len(found.phase("confirm")) == 2


def test_mlflow_has_the_numbers_of_replicas_and_the_target(home):
    client = mlflow_store.connect(home, create=False)
    experiment = client.get_experiment_by_name(faults.NAME)
    for run in mlflow_store.search_runs(client, experiment.experiment_id):
        assert int(run.data.metrics["n_resamples"]) == int(run.data.params["n_resamples"])
        assert run.data.params["target_half_width"] == "0.012"
        assert run.data.metrics["target_reached"] in (0, 1)
    assert verify.verify(faults.NAME, home=home).damage == []


def test_status_and_report_say_how_many_trials_are_as_sure_as_asked(home):
    trials = history.load(faults.NAME, home=home).phase("explore")
    n = int(trials["target_reached"].sum())
    (row,) = search.status(home)
    assert row["targets"] == {"reached": n, "trials": 3}
    assert f"{n} of 3 as sure as asked" in study._status_text(row)
    assert "up to 6 training sets, 5 seeds and 20 replicas" in row["training_sets"]
    text = page.build(faults.NAME, home=home).path.read_text()
    assert "trials as sure as asked" in text
    assert f"{n} of 3" in text
    assert "9 and up to 20" in text
