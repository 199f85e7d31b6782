import dataclasses
import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lab import history, mlflow_rows, tracking
from lab.errors import StorageError
from lab.spec import Replication
from lab.tracking import Tracker
from tests import builders
from tests.trackers import STUDY, active_runs, client, home, reopen, rows, tracker

__all__ = ["client", "home", "tracker"]  # fixtures
# of MLflow's own client, which the tests use to look at what was written; lab.history does the same in mlflow_errors
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def test_a_trial_becomes_one_flat_finished_run_with_all_its_records(home, tracker, client):
    outcome = builders.write_outcome(home.spool_of(STUDY), number=3)
    run = client.get_run(tracker.publish(outcome))
    config = json.loads((outcome / "config.json").read_text())
    assert (run.info.run_name, run.info.status) == ("explore-0003", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (1_700_000_030_000, 1_700_000_034_000)
    knobs = {name: str(value) for name, value in config["config"].items()}
    plan = {name: str(value) for name, value in dataclasses.asdict(Replication(n_resamples=4, n_inits=3)).items()}
    assert run.data.params == knobs | plan | {
        "data": "digits", "seed": "0", "device": "cpu", "data_digest": config["data"]["digest"],
    }  # fmt: skip
    tags = {name: run.data.tags[name] for name in ("study", "phase", "trial", "key", "outcome", "lab.version")}
    assert tags == {
        "study": STUDY, "phase": "explore", "trial": "3", "key": "explore-0003", "outcome": "finished",
        "lab.version": "0.1.0",
    }  # fmt: skip
    [dataset] = [i.dataset for i in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("digits", config["data"]["digest"][:16])
    assert json.loads(dataset.source) == {"source": "made for tests"}
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {p.name for p in outcome.iterdir()}
    for name in names:
        assert Path(client.download_artifacts(run.info.run_id, name)).read_bytes() == (outcome / name).read_bytes()


def test_curves_have_a_point_an_epoch_and_finals_stand_at_the_last_one(home, tracker, client):
    outcome = builders.write_outcome(home.spool_of(STUDY))
    run_id = tracker.publish(outcome)
    metrics = json.loads((outcome / "metrics.json").read_text())
    curve = client.get_metric_history(run_id, "val_risk")
    assert [(m.step, m.value) for m in curve] == [(row["epoch"], row["val_risk"]) for row in metrics["epochs"]]
    assert [m.timestamp for m in curve] == sorted(m.timestamp for m in curve)
    assert client.get_run(run_id).data.metrics == pytest.approx(
        {name: value for row in metrics["epochs"] for name, value in row.items() if name != "epoch"} | metrics["final"]
    )
    [seconds] = client.get_metric_history(run_id, "seconds")
    assert (seconds.step, seconds.value) == (60, 3.5)


def test_more_than_a_thousand_metrics_are_all_published(home, tracker, client):
    outcome = builders.write_outcome(home.spool_of(STUDY), n_evaluations=45)
    run_id = tracker.publish(outcome)
    metrics = json.loads((outcome / "metrics.json").read_text())
    expected = sum(len(row) - 1 for row in metrics["epochs"])
    with sqlite3.connect(home.mlflow_db) as database:
        stored = database.execute("SELECT count(*) FROM metrics WHERE run_uuid = ?", (run_id,)).fetchone()[0]
    database.close()
    assert expected > 1000
    assert stored == expected + len(set(metrics["final"]) - set(metrics["epochs"][-1]))


def test_the_names_of_artifacts_and_of_the_folders_made_for_them_are_forced_to_the_disk(home, tracker, monkeypatch):
    outcome, folders = builders.write_outcome(home.spool_of(STUDY)), []
    monkeypatch.setattr(tracking, "sync", lambda path: folders.append((path, {file.name for file in path.iterdir()})))
    run_id = tracker.publish(outcome)
    run = home.artifacts_of(STUDY) / run_id
    files = {path.name for path in outcome.iterdir()}
    expected = [(run / "artifacts", files), (run, {"artifacts"}), (home.artifacts_of(STUDY), {run_id})]
    assert folders[: len(expected)] == expected
    folders.clear()
    other = tracker.publish(builders.write_outcome(home.spool_of(STUDY), number=1))
    assert [path.name for path, _ in folders] == ["artifacts", other, STUDY]


def test_publishing_twice_changes_nothing(home, tracker):
    outcome = builders.write_outcome(home.spool_of(STUDY))
    run_id = tracker.publish(outcome)
    before = rows(home)
    assert tracker.publish(outcome) == run_id
    again = reopen(home)
    assert again.publish(outcome) == run_id
    assert again.run_ids() == {"explore-0000": run_id}
    assert rows(home) == before


CALLS = ["create_run", "log_inputs", "write", "log_batch", "_store", "set_terminated"]


@pytest.mark.parametrize("before_or_after", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_run_cut_short_anywhere_is_completed_as_if_nothing_had_happened(
    home, tmp_path, new_home, tracker, client, monkeypatch, call, before_or_after
):
    class Killed(BaseException):
        pass

    owner = {"_store": tracker, "write": mlflow_rows}.get(call, tracker._client)
    real = getattr(owner, call)

    def killed(*args, **kwargs):
        if before_or_after == "after":
            real(*args, **kwargs)
        raise Killed

    outcome = builders.write_outcome(home.spool_of(STUDY))
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, killed)
        patch.setattr(tracker, "_writes_rows", call != "log_batch")
        with pytest.raises(Killed):
            tracker.publish(outcome)

    again = reopen(home)
    assert again.run_ids() == {} or (call, before_or_after) == ("set_terminated", "after")
    assert "RUNNING" not in {run.info.status for run in active_runs(client, again)}
    run_id = again.publish(outcome)
    [run] = active_runs(client, again)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert again.run_ids() == {"explore-0000": run_id}

    clean = new_home(tmp_path / "undisturbed")
    shutil.copytree(home.spool, clean.spool)
    undisturbed = reopen(clean)
    expected = MlflowClient(clean.mlflow_uri).get_run(undisturbed.publish(clean.outcome_of(STUDY, "explore-0000")))
    assert (run.data.params, run.data.metrics, run.data.tags) == (
        expected.data.params,
        expected.data.metrics,
        expected.data.tags,
    )
    assert (run.info.start_time, run.info.end_time) == (expected.info.start_time, expected.info.end_time)
    assert len(rows(home)["metrics"]) == len(rows(clean)["metrics"])
    assert len(history.load(STUDY, home=home).trials) == 1


def test_another_outcome_of_a_trial_replaces_the_first(home, tracker, client):
    outcome = builders.write_outcome(home.spool_of(STUDY))
    first = tracker.publish(outcome)
    shutil.rmtree(outcome)
    builders.write_outcome(home.spool_of(STUDY), seed=1, attempt=2)
    second = tracker.publish(outcome)
    assert second != first
    assert [run.info.run_id for run in active_runs(client, tracker)] == [second]
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    assert reopen(home).run_ids() == {"explore-0000": second}


def test_of_two_runs_with_one_key_the_complete_one_stays(home, tracker, client):
    outcome = builders.write_outcome(home.spool_of(STUDY))
    run_id = tracker.publish(outcome)
    for _ in range(3):
        client.create_run(tracker.experiment_id, tags={"key": "explore-0000"})
    own = client.create_run(tracker.experiment_id, run_name="a run that the user made")
    assert reopen(home).run_ids() == {"explore-0000": run_id}
    assert {run.info.run_id for run in active_runs(client, tracker)} == {run_id, own.info.run_id}


@pytest.mark.parametrize("status", ["infeasible", "failed"])
def test_a_trial_without_result_ends_failed_and_says_why(home, tracker, client, status):
    outcome = builders.write_outcome(home.spool_of(STUDY), status=status, reason="too few examples")
    run = client.get_run(tracker.publish(outcome))
    assert run.info.status == "FAILED"
    assert (run.data.tags["outcome"], run.data.tags["mlflow.note.content"]) == (status, "too few examples")
    assert run.data.params["width"] and not run.data.metrics
    assert tracker.run_ids() == {"explore-0000": run.info.run_id}


def test_numbers_that_are_not_finite_are_left_out(home, tracker, client):
    outcome = builders.write_outcome(home.spool_of(STUDY), n_diverged=2)
    metrics = json.loads((outcome / "metrics.json").read_text())
    metrics["final"] |= {"risk": float("nan"), "seconds": float("inf")}
    replace(outcome, "metrics.json", json.dumps(metrics).encode())
    run = client.get_run(tracker.publish(outcome))
    assert "seconds" not in run.data.metrics
    assert run.data.metrics["n_diverged"] == 2
    assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "diverged")


def replace(outcome, name, content):
    import hashlib

    manifest = json.loads((outcome / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (outcome / name).write_bytes(content)
    (outcome / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["curves.parquet", "metrics.json", "predictions.npz", "manifest.json"])
def test_a_damaged_outcome_is_not_published_and_the_message_names_the_file(home, tracker, client, name):
    outcome = builders.write_outcome(home.spool_of(STUDY))
    content = bytearray((outcome / name).read_bytes())
    content[len(content) // 2] ^= 0x40
    (outcome / name).write_bytes(content)
    with pytest.raises(StorageError, match=name) as caught:
        tracker.publish(outcome)
    assert "\n" not in str(caught.value)
    assert active_runs(client, tracker) == []


def test_the_experiment_explains_its_columns_and_follows_the_question(home, tracker, client):
    reopen(home)
    Tracker.open(STUDY, home=home, question="Or {does} it not?")
    experiment = client.get_experiment(tracker.experiment_id)
    assert experiment.name == STUDY
    note = experiment.tags["mlflow.note.content"]
    assert "Or {does} it not?" in note
    for column in ("bias_sq", "variance_resample", "_sd", "objective_0"):
        assert column in note


def test_the_table_of_runs_opens_with_the_searched_knobs_and_the_main_results(home, tracker, client):
    tracker.publish(builders.write_outcome(home.spool_of(STUDY)))
    view = json.loads(client.get_experiment(tracker.experiment_id).tags["mlflow.sharedViewState.lab"])
    assert {"tags.`phase`", "params.`width`", "params.`init_gain`", "metrics.`bias_sq`"} <= set(view["selectedColumns"])
    assert "params.`family`" not in view["selectedColumns"]


def test_a_publish_takes_a_fraction_of_a_second(home, tracker):
    """Of a trial as in the default study: 32 replicas, 20 evaluated epochs."""
    shape = {"replication": Replication(n_resamples=8, n_inits=4), "n_evaluations": 20}
    outcomes = [builders.write_outcome(home.spool_of(STUDY), number=n, **shape) for n in range(3)]
    seconds = []
    for outcome in outcomes:
        started = time.process_time()
        tracker.publish(outcome)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.4


def test_no_fluent_api_is_used():
    source = Path(tracking.__file__).read_text() + Path(history.__file__).read_text()
    assert "import mlflow\n" not in source and "mlflow.log" not in source and "start_run" not in source
