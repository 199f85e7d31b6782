import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from lab import history, mlflow_store
from lab.errors import SpecError, StorageError
from lab.knobs import KNOBS
from lab.spec import Replication
from lab.storage import Home
from lab.tracking import Tracker
from tests import builders

STUDY = "capacity_sweep"


@pytest.fixture(scope="module")
def published(tmp_path_factory, new_home):
    """A study of 6 explore trials (one diverged, one infeasible), a confirmation and a learning curve of 6 sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        home = new_home(tmp_path_factory.mktemp("published"))
        spool = home.spool_of(STUDY)
        paths = builders.write_study(spool, n_explore=5, n_infeasible=1)
        paths.append(builders.write_outcome(spool, number=5, n_diverged=3))
        tracker = Tracker.open(STUDY, home=home, question="Does it?")
        run_ids = {path.name: tracker.publish(path) for path in reversed(paths)}
        tracker.close()
        yield home, {path.name: path for path in paths}, run_ids


@pytest.fixture(scope="module")
def loaded(published):
    return history.load(STUDY, home=published[0])


@pytest.fixture
def copy(published, tmp_path, monkeypatch):
    """A copy of the study that a test may damage."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(published[0].root, tmp_path / "copy")
    return Home(tmp_path / "copy")


def read(path, name):
    return json.loads((path / name).read_text())


def test_trials_are_all_runs_in_order_with_what_was_published(published, loaded):
    _, paths, run_ids = published
    trials = loaded.trials
    order = [f"explore-{n:04d}" for n in range(6)] + ["confirm-0000"] + [f"learning_curve-{n:04d}" for n in range(6)]
    assert trials["key"].tolist() == order
    assert trials["run_id"].tolist() == [run_ids[key] for key in order]
    assert trials["outcome"].tolist() == ["finished"] * 4 + ["infeasible", "diverged"] + ["finished"] * 7
    for _, row in trials.iterrows():
        config, manifest = (read(paths[row["key"]], f"{name}.json") for name in ("config", "manifest"))
        assert {knob: row[knob] for knob in KNOBS} == config["config"]
        assert (row["phase"], row["number"]) == (manifest["phase"], manifest["number"])
        assert (row["started"], row["finished"]) == (manifest["started"], manifest["finished"])
        assert row["reason"] == (manifest["reason"] or "")
        if row["outcome"] != "infeasible":
            final = read(paths[row["key"]], "metrics.json")["final"]
            assert {name: row[name] for name in final} == final
            assert row["level"] == 0.95


def test_columns_have_the_types_of_their_knobs_and_missing_metrics_are_nan(loaded):
    for knob, kind in KNOBS.items():
        column = loaded.trials[knob]
        if kind is str:
            assert all(isinstance(value, str) for value in column)
        else:
            assert column.dtype == {bool: np.dtype(bool), int: np.dtype("int64"), float: np.dtype("float64")}[kind]
    infeasible = loaded.trials.set_index("key").loc["explore-0004"]
    for metric in ("risk", "bias_sq_lo", "n_replicas", "level", "objective_0"):
        assert loaded.trials[metric].dtype == np.float64
        assert np.isnan(infeasible[metric])
    assert "batch_size 64" in infeasible["reason"]


def test_epochs_and_replicas_hold_every_curve_once(published, loaded):
    _, paths, _ = published
    trained = [key for key in loaded.trials["key"] if key != "explore-0004"]
    assert loaded.epochs["key"].drop_duplicates().tolist() == trained
    assert loaded.replicas["key"].drop_duplicates().tolist() == trained
    for key in trained:
        rows = loaded.epochs[loaded.epochs["key"] == key]
        for row, point in zip(rows.to_dict("records"), read(paths[key], "metrics.json")["epochs"], strict=True):
            assert {name: row[name] for name in point} == point
        mine = loaded.replicas[loaded.replicas["key"] == key].drop(columns=["key", "phase", "number"])
        pd.testing.assert_frame_equal(mine.reset_index(drop=True), pd.read_parquet(paths[key] / "curves.parquet"))
    assert (
        loaded.replicas.columns[:4].tolist()
        == loaded.epochs.columns[:4].tolist()
        == ["key", "phase", "number", "epoch"]
    )
    assert (loaded.replicas["number"].dtype, loaded.replicas["diverged"].dtype) == (np.int64, bool)


def test_spec_data_and_environment_are_those_of_the_newest_trial(published, loaded):
    config = read(published[1]["explore-0005"], "config.json")
    assert loaded.spec == config["spec"]
    assert loaded.data == config["data"] | {"image_shape": [1, 8, 8]}
    assert loaded.environment["torch"] == "2.11.0"
    assert loaded.phase("confirm")["key"].tolist() == ["confirm-0000"]
    assert len(loaded.phase("explore")) == len(loaded.phase("learning_curve")) == 6


def test_predictions_and_decompositions_are_read_when_asked_for(published, loaded):
    _, paths, _ = published
    predictions = loaded.predictions("explore-0005")
    with np.load(paths["explore-0005"] / "predictions.npz") as stored:
        np.testing.assert_array_equal(predictions.probabilities_DINC, stored["probabilities_DINC"])
        np.testing.assert_array_equal(predictions.labels_N, stored["labels_N"])
    assert predictions.probabilities_DINC.shape == (4, 3, 40, 3)
    assert np.isnan(predictions.probabilities_DINC).any(axis=(2, 3)).sum() == 3
    assert predictions.posterior_NC is None
    assert loaded.decomposition("confirm-0000") == read(paths["confirm-0000"], "decomposition.json")
    with pytest.raises(StorageError, match=r"predictions\.npz does not exist: the trial is infeasible"):
        loaded.predictions("explore-0004")
    with pytest.raises(KeyError):
        loaded.predictions("explore-0099")


def test_images_are_read_where_they_were_kept(published, loaded):
    _, paths, _ = published
    assert loaded.examples("explore-0005") is None
    kept = loaded.examples("confirm-0000")
    with np.load(paths["confirm-0000"] / "examples.npz") as stored:
        np.testing.assert_array_equal(kept.images_KCHW, stored["images_KCHW"])
        np.testing.assert_array_equal(kept.index_K, stored["index_K"])


def test_a_known_posterior_is_read(copy):
    posterior_NC = np.full((40, 3), 1 / 3)
    outcome = builders.write_outcome(copy.spool_of("other"), study="other", posterior_NC=posterior_NC)
    tracker = Tracker.open("other", home=copy, question="?")
    tracker.publish(outcome)
    tracker.close()
    found = history.load("other", home=copy)
    np.testing.assert_array_equal(found.predictions("explore-0000").posterior_NC, posterior_NC)
    assert found.trials["noise"].item() == pytest.approx(2 / 3)
    assert history.studies(home=copy) == [STUDY, "other"]


def test_a_study_of_infeasible_trials_only_has_empty_curves(copy):
    tracker = Tracker.open("none", home=copy, question="?")
    tracker.publish(builders.write_outcome(copy.spool_of("none"), study="none", status="infeasible"))
    tracker.close()
    found = history.load("none", home=copy)
    assert (len(found.trials), len(found.epochs), len(found.replicas)) == (1, 0, 0)
    assert {"key", "phase", "epoch"} <= set(found.epochs) & set(found.replicas)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize(
    "name", ["manifest.json", "config.json", "metrics.json", "decomposition.json", "curves.parquet"]
)
def test_a_damaged_artifact_is_named(copy, published, name, damage):
    path = mlflow_store.artifact_folder(copy, STUDY, published[2]["confirm-0000"]) / name
    break_file(path, damage)
    with pytest.raises(StorageError) as caught:
        history.load(STUDY, home=copy)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_predictions_are_named_when_they_are_read(copy, published, damage):
    path = mlflow_store.artifact_folder(copy, STUDY, published[2]["confirm-0000"]) / "predictions.npz"
    break_file(path, damage)
    found = history.load(STUDY, home=copy)
    with pytest.raises(StorageError) as caught:
        found.predictions("confirm-0000")
    assert str(path) in str(caught.value)
    assert found.predictions("explore-0000").labels_N.shape == (40,)


def break_file(path, damage):
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[0] ^= 0x10
        path.write_bytes(content)


def test_an_array_that_needs_pickle_is_refused(copy, published):
    import hashlib

    folder = mlflow_store.artifact_folder(copy, STUDY, published[2]["confirm-0000"])
    np.savez(folder / "predictions.npz", probabilities_DINC=np.array([print], dtype=object), labels_N=np.zeros(1))
    manifest = read(folder, "manifest.json")
    content = (folder / "predictions.npz").read_bytes()
    manifest["files"]["predictions.npz"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match=r"predictions\.npz is damaged: .*pickle"):
        history.load(STUDY, home=copy).predictions("confirm-0000")


def test_half_published_runs_do_not_count(copy, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    tracker = Tracker.open(STUDY, home=copy, question="?")
    monkeypatch.setattr(tracker, "_fill", killed)
    with pytest.raises(Killed):
        tracker.publish(builders.write_outcome(copy.spool_of(STUDY), number=50))
    tracker.close()
    assert len(history.load(STUDY, home=copy).trials) == 13


def test_the_query_of_the_database_chooses_the_runs_that_mlflows_own_search_shows(copy, published, monkeypatch):
    """Two runs of one trial, a deleted one and a half-published one among them; the search pages by five runs."""
    tracker, client = Tracker.open(STUDY, home=copy, question="?"), mlflow_store.connect(copy, create=False)
    twice = client.create_run(tracker.experiment_id, tags={"key": "explore-0001"}).info.run_id
    client.set_terminated(twice, "FINISHED")
    client.delete_run(published[2]["explore-0002"])
    client.create_run(tracker.experiment_id, tags={"key": "explore-0099"})
    tracker.close()
    monkeypatch.setattr(mlflow_store, "PAGE", 5)
    asked = mlflow_store.complete_runs(STUDY, home=copy)
    runs = mlflow_store.by_key(mlflow_store.search_runs(client, tracker.experiment_id))
    complete = {key: run.info.run_id for key, run in runs.items() if run.info.status in mlflow_store.COMPLETE}
    assert asked == complete
    assert len(asked) == 12 and not {"explore-0002", "explore-0099"} & set(asked)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy.mlflow_db.parent}/./{copy.mlflow_db.name}")
    assert mlflow_store.complete_runs(STUDY, home=copy) == asked  # through MLflow, as with a server


def test_a_run_whose_folder_is_a_link_is_not_read(copy, published, tmp_path):
    folder = copy.artifacts_of(STUDY) / published[2]["explore-0000"]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="remove the symbolic link"):
        history.load(STUDY, home=copy)


def test_errors_say_what_to_do(tmp_path, copy):
    nothing = Home(tmp_path / "nothing")
    assert history.studies(home=nothing) == []
    with pytest.raises(StorageError, match="run a study first"):
        history.load(STUDY, home=nothing)
    assert not nothing.root.exists()
    assert history.studies(home=copy) == [STUDY]
    with pytest.raises(StorageError, match=f"study unknown has no finished trial.*{STUDY}"):
        history.load("unknown", home=copy)
    Tracker.open("empty", home=copy, question="?").close()
    with pytest.raises(StorageError, match="study empty has no finished trial"):
        history.load("empty", home=copy)
    with pytest.raises(SpecError):
        history.load("../x", home=copy)


def test_a_study_of_47_runs_is_read_in_under_two_seconds(copy):
    """With 32 replicas and 20 evaluated epochs."""
    outcome = builders.write_outcome(
        copy.spool_of("large"), study="large", replication=Replication(n_resamples=8, n_inits=4), n_evaluations=20
    )
    tracker = Tracker.open("large", home=copy, question="?")
    for number in range(47):
        outcome = outcome.rename(outcome.with_name(f"explore-{number:04d}"))
        manifest = read(outcome, "manifest.json") | {"number": number, "key": outcome.name}
        (outcome / "manifest.json").write_text(json.dumps(manifest))
        tracker.publish(outcome)
    tracker.close()
    started = time.process_time()
    found = history.load("large", home=copy)
    assert time.process_time() - started < 2
    assert (len(found.trials), len(found.replicas)) == (47, 47 * len(found.epochs.groupby("epoch")) * 32)
