"""The only writer of MLflow: publishes the outcome of a trial as one flat run.

Experiment = study, run = trial. A replica's curves go into an artifact, not into child runs. Publishing is idempotent:
a run is found again by its tag `key`, its timestamps come from the outcome, and it counts only once its status says
that it is complete, so after a kill at any moment the same call finishes the same run.

With a database (the default), artifacts lie in `mlruns/artifacts/<study>/<run id>/artifacts` below the project,
wherever that has been moved to. With a tracking server (`MLFLOW_TRACKING_URI=https://…`) they are uploaded to it.
"""

import hashlib
import json
import math
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import failpoints, mlflow_rows
from lab.errors import StorageError
from lab.files import disk_errors, sync
from lab.mlflow_store import (
    COMPLETE,
    OUTCOME_TAG,
    STUDY_TAG,
    VIEW,
    artifact_folder,
    by_key,
    connect,
    engine_of,
    first_line,
    is_server,
    mlflow_errors,
    search_runs,
    tracking_uri,
)
from lab.spec import check_name
from lab.spool import MANIFEST, Outcome, read_outcome
from lab.storage import Home
from lab.syncs import Syncs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Param

MAX_ENTITIES = 1000  # of one log_batch: MLflow's limit for metrics, parameters and tags together
MAX_PARAMS = 100
TABLE = "per_class.json"
REPORT_TAG = "lab.report"  # of the run that keeps the page
REPORT_NOTE = "The report of the study: open `report.html` under Artifacts. The newest page replaces the one before."

NOTE = """**{question}**

One run a trial; its metrics are means over the trial's replicas (trainings of the same configuration on other
training sets and from other initial weights). A replica's own curves are in the artifact `curves.parquet`.

| column | meaning |
|---|---|
| `phase` (tag) | `explore`: the search · `confirm`: the best again, on data and seeds that the search never saw · `learning_curve`: the best at several training-set sizes |
| `…_risk`, `…_error`, `…_loss` | Brier score (0 to 2), error rate, cross-entropy; on train, val(idation) and test |
| `…_sd` | standard deviation over replicas |
| `…_lo`, `…_hi` | ends of the 95 % interval |
| `risk` = `noise` + `bias_sq` + `variance` | expected Brier score on the test set and its parts; without a known posterior `bias_sq` contains the noise |
| `accuracy`, `balanced_accuracy` (macro recall), `macro_precision`, `macro_f1`, `auc` (one class against the rest), `log_loss`, `ece` (calibration error), `worst_class_recall` and so on | on the test set, means over replicas; every class is in the artifact `per_class.json` |
| `variance_resample`, `_init`, `_interaction` | variance due to the training set, to the initial weights and batch order, to both together |
| `objective_0` | what the search minimises; diverged replicas count with the worst value |
| `n_diverged` | replicas left out of the means because their training diverged |
| `outcome` (tag) pruned | stopped after the first training sets, as significantly worse than the best so far: it has no parts, `pruned_objective` is its objective until then |
| status `FAILED` | infeasible configuration: the reason is in the run's description |
"""  # noqa: E501


def relocate(home: Home) -> None:
    """Tell MLflow where the artifacts are if the project folder was moved: it stores absolute paths.

    The lab itself does not need this (see `artifact_folder`), the MLflow UI does.
    """
    if not home.mlflow_db.is_file() or not home.artifacts.is_dir():
        return
    try:
        with closing(sqlite3.connect(home.mlflow_db, timeout=10)) as database, database:
            stored = database.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
            ours = {path.name for path in home.artifacts.iterdir() if path.is_dir()}
            for number, name, location in stored:
                here = _location(home, name) if name in ours else location
                if here == location:
                    continue
                database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (here, number))
                database.execute(
                    "UPDATE runs SET artifact_uri = ? || '/' || run_uuid || '/artifacts' WHERE experiment_id = ?",
                    (here, number),
                )
    except sqlite3.Error as error:
        if "no such table" not in str(error):  # a database that MLflow has not filled yet
            raise StorageError(f"the run history {home.mlflow_db} cannot be used: {first_line(error)}") from error


def _location(home: Home, study: str) -> str:
    return (home.artifacts / study).resolve().as_uri()  # as a URI, because MLflow cuts plain paths at a "#"


class Tracker:
    """Publishes the outcomes of one study. Made by `Tracker.open`, in the coordinator only."""

    def __init__(self, client: "MlflowClient", experiment_id: str, study: str, home: Home) -> None:
        self._client = client
        self._study = study
        self._home = home
        self._server = is_server(tracking_uri(home))
        self.experiment_id = experiment_id
        self._view = ""
        self._known: dict[str, tuple[str, str, str]] = {}  # key → run id, status, digest of the outcome
        self._engine = engine_of(client)
        self._writes_rows = self._engine is not None and mlflow_rows.are_known(self._engine)
        self._syncs = Syncs(self._engine)

    @classmethod
    def open(cls, study_name: str, *, home: Home, question: str) -> "Tracker":
        """Open the run history of a study; create the database and the experiment if they do not exist yet.

        Raises:
            StorageError: The database or the server cannot be used, or the experiment was deleted in MLflow.
        """
        check_name(study_name, "study")
        relocate(home)
        client = connect(home, create=True)
        with mlflow_errors(f"run history of {study_name}"):
            experiment_id = _experiment(client, study_name, home, NOTE.format(question=question))
            tracker = cls(client, experiment_id, study_name, home)
            tracker._tidy()
        return tracker

    def _tidy(self) -> None:
        """Learn which runs exist; delete duplicates; leave none RUNNING that a killed coordinator has left so."""
        from mlflow.entities import RunStatus

        runs = search_runs(self._client, self.experiment_id)
        chosen = by_key(runs)
        for run in runs:
            if run.info.run_id != chosen[run.data.tags["key"]].info.run_id:
                self._client.delete_run(run.info.run_id)
            elif run.info.status not in COMPLETE:
                killed = RunStatus.to_string(RunStatus.KILLED)
                self._client.set_terminated(run.info.run_id, killed, end_time=run.info.start_time)
        for key, run in chosen.items():
            self._known[key] = (run.info.run_id, run.info.status, run.data.tags.get(OUTCOME_TAG, ""))

    def publish(self, outcome_dir: Path) -> str:
        """Publish the outcome of a trial and return the id of its run.

        The same outcome again changes nothing, or completes the run if it was cut short. Another outcome of the same
        trial (trained again, because the first was lost before the search learnt of it) replaces it.

        Raises:
            StorageError: A file of the outcome is damaged, or MLflow cannot be written. Nothing counts then; the
                outcome can be published later.
        """
        outcome = read_outcome(outcome_dir)
        key, manifest = outcome.key, outcome.manifest
        record = (json.dumps(dict(manifest), indent=1) + "\n").encode()
        digest = hashlib.sha256(record).hexdigest()
        run_id, status, published = self._known.get(key, ("", "", ""))
        if published == digest and status in COMPLETE:
            return run_id
        with mlflow_errors(f"{self._study}: {key} could not be published"):
            failpoints.hit("publish")
            if run_id and published != digest:
                self._client.delete_run(run_id)
                run_id = ""
            if not run_id:  # before its artifacts, for good: none may be left that no run has
                run = self._client.create_run(
                    self.experiment_id, _milliseconds(manifest["started"]), _tags(outcome, digest), key
                )
                run_id = run.info.run_id
                self._known[key] = (run_id, "RUNNING", digest)
                failpoints.hit("publish.run")
            with self._syncs.later():  # the end of the run waits for the disk, and takes all this with it
                self._fill(run_id, outcome)
                self._store(run_id, replace(outcome, contents={**outcome.contents, MANIFEST: record}))
            status = "FINISHED" if outcome.status in ("finished", "diverged", "pruned") else "FAILED"
            failpoints.hit("publish.end")
            self._client.set_terminated(run_id, status, end_time=_milliseconds(manifest["finished"]))
        self._known[key] = (run_id, status, digest)
        failpoints.hit("published")
        return run_id

    def _fill(self, run_id: str, outcome: Outcome) -> None:
        config = outcome.json("config.json")
        view = _view(config["spec"])
        if view != self._view:
            self._client.set_experiment_tag(self.experiment_id, f"mlflow.sharedViewState.{VIEW}", view)
            self._view = view
        self._client.log_inputs(run_id, [_dataset_input(config["data"])])
        params = _params(config)
        metrics = list(_metrics(outcome)) if {"metrics.json", "pruned.json"} & outcome.contents.keys() else []
        if self._engine is not None and self._writes_rows:
            failpoints.hit("publish.metrics")
            mlflow_rows.write(self._engine, run_id, params, metrics)
            return
        while params or metrics:
            some, params = params[:MAX_PARAMS], params[MAX_PARAMS:]
            room = MAX_ENTITIES - len(some)
            failpoints.hit("publish.metrics")
            self._client.log_batch(run_id, metrics[:room], some)
            metrics = metrics[room:]

    def _store(self, run_id: str, outcome: Outcome) -> None:
        if self._server:
            with tempfile.TemporaryDirectory() as folder:
                _write(Path(folder), outcome.contents)
                self._client.log_artifacts(run_id, folder)
        else:
            with disk_errors(f"{self._study}: the artifacts of run {run_id} could not be stored"):
                _write(artifact_folder(self._home, self._study, run_id), outcome.contents, outcome.directory)

    def run_ids(self) -> dict[str, str]:
        """Return key → run id of all trials whose run is complete."""
        return {key: run_id for key, (run_id, status, _) in self._known.items() if status in COMPLETE}

    def close(self) -> None:
        """Release the connections to the database."""
        self._syncs.close()
        if self._engine is not None:
            self._engine.dispose()


def keep_report(study: str, page: Path, *, home: Home) -> str:
    """Keep the page of a report as artifact `report.html` of the study's run "report"; return the id of that run.

    The MLflow UI shows the page there. The run has no tag `key`, so it is no trial: nothing reads it back.

    Raises:
        StorageError: The run history cannot be written.
    """
    client = connect(home, create=False)
    with mlflow_errors(f"the report of {study} could not be kept in MLflow"):
        experiment = client.get_experiment_by_name(study)
        assert experiment is not None  # the report was made from it
        found = client.search_runs([experiment.experiment_id], f"tags.`{REPORT_TAG}` = 'html'", max_results=1)
        if found:
            run_id = found[0].info.run_id
        else:
            tags = {REPORT_TAG: "html", "study": study, "mlflow.note.content": REPORT_NOTE}
            run_id = client.create_run(experiment.experiment_id, tags=tags, run_name="report").info.run_id
        if is_server(tracking_uri(home)):
            with tempfile.TemporaryDirectory() as folder:
                _write(Path(folder), {"report.html": page.read_bytes()})
                client.log_artifacts(run_id, folder)
        else:
            with disk_errors(f"the report of {study} could not be kept in MLflow"):
                _write(artifact_folder(home, study, run_id), {"report.html": page.read_bytes()})
        client.set_terminated(run_id, "FINISHED")
    return run_id


def _experiment(client: "MlflowClient", study: str, home: Home, note: str) -> str:
    stored = client.get_experiment_by_name(study)
    if stored is not None and stored.lifecycle_stage != "active":
        raise StorageError(
            f"the experiment {study} was deleted in MLflow: restore it"
            f" (mlflow experiments restore --experiment-id {stored.experiment_id}) or give the study another name"
        )
    # the kind decides which tabs the MLflow UI opens; without it, it guesses and asks
    tags = {
        "mlflow.note.content": note,
        "mlflow.experimentKind": "custom_model_development",
        STUDY_TAG: study,
    }
    if stored is None:
        local = None if is_server(tracking_uri(home)) else _location(home, study)
        return client.create_experiment(study, artifact_location=local, tags=tags)
    for name, value in tags.items():
        if stored.tags.get(name) != value:
            client.set_experiment_tag(stored.experiment_id, name, value)
    return stored.experiment_id


def _write(folder: Path, contents: Mapping[str, bytes], spooled: Path | None = None) -> None:
    """Write files so that they survive a power cut: the outcome in the spool is removed after this.

    The files of `spooled`, an outcome's directory, are on the disk already: they are linked, where that can be.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        failpoints.hit("publish.artifact")
        if spooled is not None and name != MANIFEST and _linked(spooled / name, folder / name):
            continue
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for path in (folder, *(new.parent for new in made)):  # a file is lost if its name is
        sync(path)


def _linked(file: Path, name: Path) -> bool:
    """Give a file a second name, which replaces whatever has it; False where that cannot be, as on another disk."""
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:
        return False
    return True


def _view(spec: Mapping[str, Any]) -> str:
    """Return the view of the MLflow UI's table of runs that `lab.ui` opens: the searched knobs and the main results.

    It is what the UI itself stores for "share view"; without it, the table has neither parameters nor metrics.
    """
    columns = [
        "tags.`phase`",
        *(f"params.`{knob}`" for knob in (["variant"] if spec.get("variants") else spec["space"])),
    ]
    columns += [f"metrics.`{name}`" for name in ("val_risk", "train_error", "bias_sq", "variance", "n_parameters")]
    return json.dumps({"orderByKey": "attributes.start_time", "orderByAsc": True, "selectedColumns": columns})


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _tags(outcome: Outcome, digest: str) -> dict[str, str]:
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    environment = outcome.json("environment.json") if "environment.json" in outcome.contents else {}
    tags = {
        "study": outcome.manifest["study"],
        "phase": outcome.phase,
        "trial": str(outcome.number),
        "key": outcome.key,
        "outcome": outcome.status,
        OUTCOME_TAG: digest,
        "lab.version": environment.get("lab"),
        "mlflow.note.content": outcome.reason,
        "mlflow.source.name": "lab.study",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": environment.get("git_commit"),
    }
    if TABLE in outcome.contents:  # what MLflow's own log_table leaves, so that its UI shows the file as a table
        tags[MLFLOW_LOGGED_ARTIFACTS] = json.dumps([{"path": TABLE, "type": "table"}])
    return {name: value for name, value in tags.items() if value}


def _params(config: Mapping[str, Any]) -> "list[Param]":
    from mlflow.entities import Param

    data = config["data"]
    other = {"data": data["name"], "data_digest": data["digest"], "seed": config["seed"], "device": config["device"]}
    other |= {name: config[name] for name in ("variant", "weights_digest", "n_starts") if config.get(name)}
    return [Param(name, str(value)) for name, value in (config["config"] | config["replication"] | other).items()]


def _metrics(outcome: Outcome) -> "Iterator[Metric]":
    """Yield the metrics of a trial; their times are spread evenly over the trial, so they are the same every time."""
    from mlflow.entities import Metric

    if outcome.status == "pruned":
        metrics = {"final": outcome.json("pruned.json")["metrics"], "epochs": []}
    else:
        metrics = outcome.json("metrics.json")
    epochs = metrics["epochs"]
    last = epochs[-1]["epoch"] if epochs else 0
    started, finished = outcome.manifest["started"], outcome.manifest["finished"]
    for row in epochs:
        time = _milliseconds(started + (finished - started) * (row["epoch"] / last if last else 1.0))
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                yield Metric(name, float(value), time, row["epoch"])
    for name, value in metrics["final"].items():
        same = epochs and math.isclose(epochs[-1].get(name, math.nan), value, rel_tol=1e-9, abs_tol=1e-12)
        if math.isfinite(value) and not same:
            # a millisecond after the curve: if a curve has the same name, MLflow shows this as its last value
            yield Metric(name, float(value), _milliseconds(finished) + 1, last)


def _dataset_input(data: Mapping[str, Any]) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    counts = {f"n_{part}": data[f"n_{part}"] for part in ("pool", "validation", "test")}
    dataset = Dataset(
        name=data["name"],
        digest=data["digest"][:16],  # MLflow allows 36 characters; the param data_digest has all of them
        source_type="code",
        source=json.dumps({"source": data["source"]}),
        profile=json.dumps(counts | {"n_classes": len(data["class_names"])}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
