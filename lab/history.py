"""The only reader of MLflow: the runs of a study → tidy pandas tables, each number checked against its file's sha256.

MLflow says which runs there are; the numbers come from their artifacts (config.json, metrics.json, curves.parquet …),
which hold types and all digits. With a database (the default), artifacts are read from
`mlruns/artifacts/<study>/<run id>/artifacts` below the project, wherever that has been moved to; with a tracking
server (`MLFLOW_TRACKING_URI=https://…`) they are downloaded from it.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import os
import re
import sqlite3
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lab.errors import StorageError
from lab.knobs import KNOBS, TrialConfig
from lab.spec import check_name
from lab.spool import PHASES, parse_key
from lab.storage import Home, inside, masked, refuse_network

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COMPLETE = ("FINISHED", "FAILED")  # other runs are being published, or were when the coordinator was killed
OUTCOME_TAG = "outcome_digest"  # sha256 of the manifest: tells two outcomes of one trial apart
STUDY_TAG = "lab.study"  # marks the experiments that are studies
VIEW = "lab"  # the name of the view of the MLflow UI that lab.tracking stores and lab.ui opens
_DEFAULTS = dataclasses.asdict(TrialConfig())
_PAGE = 1000  # search_runs cuts at its page size without saying so
_DTYPES = {bool: "bool", int: "int64", float: "float64", str: "object"}


class Predictions(NamedTuple):
    """Predictions of a trial's replicas on the test set: (D, I, N, C) float32, NaN where diverged; (N,); (N, C)."""

    probabilities_DINC: np.ndarray
    labels_N: np.ndarray
    posterior_NC: np.ndarray | None


class Examples(NamedTuple):
    """The hardest test images of a trial: places in the test set (K,), 8-bit images (K, channels, height, width)."""

    index_K: np.ndarray
    images_KCHW: np.ndarray


@dataclass(frozen=True)
class History:
    """The run history of a study. All tables are sorted by phase (explore, confirm, learning_curve) and number."""

    study: str
    spec: dict[str, Any]  # Study.to_dict(), of the trial that finished last
    data: dict[str, Any]  # name, digest, source, n_pool, n_validation, n_test, class_names, has_posterior, image_shape
    environment: dict[str, Any]  # of the trial that finished last
    trials: pd.DataFrame  # one row a run: key, phase, number, run_id, outcome, reason, …, knobs, final metrics, level
    epochs: pd.DataFrame  # one row a trial and evaluated epoch: key, phase, number, epoch, metrics
    replicas: pd.DataFrame  # one row a trial, epoch and replica: key, phase, number, curves.parquet
    artifacts: "Artifacts"

    def phase(self, phase: str) -> pd.DataFrame:
        """Return the trials of one phase."""
        return self.trials[self.trials["phase"] == phase].reset_index(drop=True)

    def predictions(self, key: str) -> Predictions:
        """Read the predictions of a trial.

        Raises:
            KeyError: There is no such trial.
            StorageError: It was infeasible, or the file is missing or damaged.
        """
        content = self.artifacts.read(key, ["predictions.npz"])["predictions.npz"]
        with self.artifacts.parsing(key, "predictions.npz"), np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            posterior = arrays["posterior_NC"] if "posterior_NC" in arrays else None
            return Predictions(arrays["probabilities_DINC"], arrays["labels_N"], posterior)

    def examples(self, key: str) -> Examples | None:
        """Read the images kept of a trial; None where none were: they are of the phase "confirm".

        Raises:
            KeyError: There is no such trial.
            StorageError: The file is missing or damaged.
        """
        if "examples.npz" not in self.artifacts.manifest(key)["files"]:
            return None
        content = self.artifacts.read(key, ["examples.npz"])["examples.npz"]
        with self.artifacts.parsing(key, "examples.npz"), np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return Examples(arrays["index_K"], arrays["images_KCHW"])

    def signals(self, key: str) -> pd.DataFrame:
        """Read the signal health of the layers of a trial, see `lab.analysis.signals.table`; empty if there is none."""
        from lab.analysis.signals import COLUMNS

        if "signals.parquet" not in self.artifacts.manifest(key)["files"]:
            return pd.DataFrame(columns=list(COLUMNS))
        content = self.artifacts.read(key, ["signals.parquet"])["signals.parquet"]
        with self.artifacts.parsing(key, "signals.parquet"):
            return pd.read_parquet(io.BytesIO(content))

    def decomposition(self, key: str) -> dict[str, Any]:
        """Read decomposition.json of a trial: level, final (test set), validation, epochs."""
        return self.artifacts.json(key, "decomposition.json")


class Artifacts:
    """Reads the artifact files of a study's runs; each is compared with the sha256 in its run's manifest."""

    def __init__(self, run_ids: Mapping[str, str], study: str, home: Home) -> None:
        self._run_ids = run_ids
        self._study = study
        self._home = home
        self._manifests: dict[str, dict[str, Any]] = {}

    def where(self, key: str, name: str) -> str:
        """Return what to call an artifact in a message."""
        uri = tracking_uri(self._home)
        folder = artifact_folder(self._home, self._study, self._run_ids[key])
        return f"{name} of run {self._run_ids[key]} on {masked(uri)}" if is_server(uri) else str(folder / name)

    def read(self, key: str, names: list[str]) -> dict[str, bytes]:
        """Return the content of files of the trial `key`."""
        manifest = self.manifest(key)
        for name in names:
            if name not in manifest["files"]:
                raise StorageError(f"{self.where(key, name)} does not exist: the trial is {manifest['status']}")
        contents = self._fetch(key, names)
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != manifest["files"][name]["sha256"]:
                raise StorageError(f"{self.where(key, name)} is damaged: its sha256 is not the one in manifest.json")
        return contents

    def manifest(self, key: str) -> dict[str, Any]:
        """Return the manifest of a trial."""
        if key not in self._manifests:
            content = self._fetch(key, ["manifest.json"])["manifest.json"]
            with self.parsing(key, "manifest.json"):
                manifest = json.loads(content)
                if manifest["key"] != key:
                    raise ValueError(f"it is that of {manifest['key']}")
                self._manifests[key] = manifest
        return self._manifests[key]

    def json(self, key: str, name: str) -> Any:
        """Return a JSON file of a trial."""
        content = self.read(key, [name])[name]
        with self.parsing(key, name):
            return json.loads(content)

    @contextmanager
    def parsing(self, key: str, name: str) -> Iterator[None]:
        """Name the file if its content makes no sense."""
        try:
            yield
        except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
            raise StorageError(f"{self.where(key, name)} is damaged: {one_line(error)}") from error

    def _fetch(self, key: str, names: list[str]) -> dict[str, bytes]:
        run_id = self._run_ids[key]
        if is_server(tracking_uri(self._home)):
            client = connect(self._home, create=False)
            with mlflow_errors(f"run {run_id} of {self._study}"), tempfile.TemporaryDirectory() as to:
                return {name: Path(client.download_artifacts(run_id, name, to)).read_bytes() for name in names}
        folder = artifact_folder(self._home, self._study, run_id)
        try:
            return {name: (folder / name).read_bytes() for name in names}
        except OSError as error:
            raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error


def studies(*, home: Home) -> list[str]:
    """Return the names of the studies that have a run history, sorted."""
    if tracking_uri(home) == home.mlflow_uri and not home.mlflow_db.is_file():
        return []
    client = connect(home, create=False)
    names, token = [], None
    with mlflow_errors("the run history"):
        while True:
            page = client.search_experiments(max_results=_PAGE, page_token=token)
            names += [experiment.name for experiment in page if STUDY_TAG in experiment.tags]
            token = page.token
            if not token:
                return sorted(names)


def load(study: str, *, home: Home) -> History:
    """Read the run history of a study.

    Raises:
        StorageError: There is none, or a file of it is missing or damaged.
    """
    check_name(study, "study")
    client = connect(home, create=False)
    with mlflow_errors(f"the run history of {study}"):
        experiment = client.get_experiment_by_name(study)
        runs = by_key(search_runs(client, experiment.experiment_id)) if experiment is not None else {}
    run_ids = {key: run.info.run_id for key, run in runs.items() if run.info.status in COMPLETE}
    if not run_ids:
        known = ", ".join(studies(home=home)) or "none"
        raise StorageError(f"study {study} has no finished trial yet: run it first (studies with a history: {known})")
    return _tables(study, Artifacts(run_ids, study, home), run_ids)


def _tables(study: str, artifacts: Artifacts, run_ids: Mapping[str, str]) -> History:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    curves: list[Any] = []
    newest: tuple[float, dict[str, Any], dict[str, Any]] = (-np.inf, {}, {})
    for key in sorted(run_ids, key=lambda key: (PHASES.index(parse_key(key)[0]), parse_key(key)[1])):
        manifest = artifacts.manifest(key)
        config = artifacts.json(key, "config.json")
        name = {"key": key, "phase": manifest["phase"], "number": manifest["number"]}
        with artifacts.parsing(key, "config.json"):
            row = name | {"run_id": run_ids[key], "outcome": manifest["status"]}
            row |= {"reason": manifest["reason"] or ""}
            row |= {field: manifest[field] for field in ("attempt", "started", "finished")}
            row |= {"variant": config["variant"]} if config.get("variant") else {}
            # a run from before there was a knob was trained with what is now its default
            row |= {knob: config["config"].get(knob, default) for knob, default in _DEFAULTS.items()}
            row |= config["replication"] | {"seed": config["seed"], "data_digest": config["data"]["digest"]}
        if "metrics.json" in manifest["files"]:
            metrics = artifacts.json(key, "metrics.json")
            with artifacts.parsing(key, "metrics.json"):
                row |= {metric: float(value) for metric, value in metrics["final"].items()}
                epochs += [name | point for point in metrics["epochs"]]
            row["level"] = artifacts.json(key, "decomposition.json")["level"]
            content = artifacts.read(key, ["curves.parquet"])["curves.parquet"]
            with artifacts.parsing(key, "curves.parquet"):
                curves.append((name, pq.read_table(io.BytesIO(content))))
        rows.append(row)
        if manifest["finished"] > newest[0]:
            newest = (manifest["finished"], config, artifacts.json(key, "environment.json"))
    _, config, environment = newest
    # pa.concat_tables, then pandas once: ten times faster than a DataFrame a trial
    replicas = pa.concat_tables([t for _, t in curves], promote_options="default").to_pandas() if curves else None
    return History(
        study=study,
        spec=config["spec"],
        data=config["data"] | {"image_shape": config["image_shape"]},
        environment=environment,
        trials=_typed(pd.DataFrame(rows)),
        epochs=pd.DataFrame(epochs, columns=None if epochs else ["key", "phase", "number", "epoch"]),
        replicas=_named(replicas, [(n, t.num_rows) for n, t in curves]),
        artifacts=artifacts,
    )


def _typed(trials: pd.DataFrame) -> pd.DataFrame:
    types = {knob: _DTYPES[kind] for knob, kind in KNOBS.items() if kind is not str}
    return trials.astype(types)


def _named(replicas: pd.DataFrame | None, counts: list[tuple[dict[str, Any], int]]) -> pd.DataFrame:
    if replicas is None:
        return pd.DataFrame(columns=["key", "phase", "number", "epoch", "replica", "resample", "init", "diverged"])
    repeats = [n for _, n in counts]
    for position, field in enumerate(("key", "phase", "number")):
        values = pd.Series([name[field] for name, _ in counts])
        replicas.insert(position, field, values.repeat(repeats).reset_index(drop=True))
    return replicas


# --- MLflow; also used by lab.tracking and lab.ui ---------------------------------------------------------------------


def prepare_environment() -> None:
    """Switch off what MLflow does beside its work. It reads these variables when it is imported."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}
    quiet |= {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    # a dead tracking server would block a single call for 248 s with MLflow's 7 retries of 120 s
    brisk = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    for name, value in (quiet | brisk).items():
        os.environ.setdefault(name, value)


def tracking_uri(home: Home) -> str:
    """Return where the run history is kept: `MLFLOW_TRACKING_URI` if set, else the database of the project.

    Raises:
        StorageError: The variable names neither a database nor a server.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or home.mlflow_uri
    if not re.match(r"(https?|sqlite|postgresql|mysql|mssql)(\+\w+)?://", uri):
        raise StorageError(f"MLFLOW_TRACKING_URI = {masked(uri)!r} is not usable: give http(s)://… or a database")
    return uri


def is_server(uri: str) -> bool:
    """Return whether a tracking URI is a tracking server (and not a database)."""
    return uri.startswith("http")


def artifact_folder(home: Home, study: str, run_id: str) -> Path:
    """Return where the artifacts of a run lie, unless a tracking server keeps them."""
    return inside(home.artifacts_of(study), check_name(run_id, "run")) / "artifacts"


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, without passwords."""
    text = masked(" ".join((str(error).strip() or type(error).__name__).splitlines()[0].split()))
    return text if len(text) <= 300 else text[:299] + "…"


@contextmanager
def mlflow_errors(what: str) -> Iterator[None]:
    """Call MLflow in here: what it, its database or its server raise becomes a `StorageError` of one line."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SADeprecationWarning, SQLAlchemyError

    try:
        with warnings.catch_warnings():
            # MLflow 3.17 uses a loader that SQLAlchemy 2.1 calls deprecated
            warnings.filterwarnings("ignore", "The ``noload`` loader strategy", SADeprecationWarning)
            yield
    except (MlflowException, SQLAlchemyError, CommandError, OSError) as error:
        raise StorageError(f"{what}: {one_line(error)}") from error


def connect(home: Home, *, create: bool) -> "MlflowClient":
    """Return a client of the run history; with `create`, make a missing database (in the coordinator only).

    Raises:
        StorageError: There is no database, it is damaged, or the server does not answer.
    """
    uri = tracking_uri(home)
    if uri.startswith("sqlite:///"):
        _check_sqlite(home.mlflow_db if uri == home.mlflow_uri else Path(uri.removeprefix("sqlite:///")), create)
    prepare_environment()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # MLflow announces every table that it creates
        logging.getLogger(name).setLevel(logging.WARNING)
    # it prints a page for an error that it raises as well
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with mlflow_errors(f"the run history {masked(uri)} cannot be opened"):
        client = MlflowClient(tracking_uri=uri)
    if uri == home.mlflow_uri:
        remove_stray(home)
    return client


def remove_stray(home: Home) -> None:
    """Remove the empty folder that MLflow makes beside a project whose path holds a % or a ?.

    It takes the escaped path of its database for the path (3.17.2, store/db/utils.py).
    """
    stray = Path(home.mlflow_uri.removeprefix("sqlite:///")).parent
    if stray != home.mlflow_db.parent:
        with contextlib.suppress(OSError):
            os.removedirs(stray)  # and its parents, as far as they are empty


def _check_sqlite(path: Path, create: bool) -> None:
    # MLflow would retry for 100 s, with a page of warnings, when a database cannot be opened
    if create:
        refuse_network(path)
    elif not path.is_file():
        raise StorageError(f"no run history in {path}: run a study first (python -m lab.study run NAME)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=10)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"the run history {path} cannot be opened: {one_line(error)}") from error


def search_runs(client: "MlflowClient", experiment_id: str) -> list["Run"]:
    """Return all runs of an experiment that the lab has made (they have a tag `key`), complete or not."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=_PAGE, page_token=token)
        runs += [run for run in page if "key" in run.data.tags]
        token = page.token
        if not token:
            return runs


def by_key(runs: Iterable["Run"]) -> dict[str, "Run"]:
    """Return one run a key; of several, a complete one, and of those the one with the first id."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.info.status not in COMPLETE, run.info.run_id)):
        found.setdefault(run.data.tags["key"], run)
    return found
