"""The only reader of MLflow: the runs of a study → tidy pandas tables, each number checked against its file's sha256.

MLflow says which runs there are; the numbers come from their artifacts (config.json, metrics.json, curves.parquet …),
which hold types and all digits. With a database (the default), artifacts are read from
`mlruns/artifacts/<study>/<run id>/artifacts` below the project, wherever that has been moved to; with a tracking
server (`MLFLOW_TRACKING_URI=https://…`) they are downloaded from it.
"""

import dataclasses
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lab.errors import StorageError
from lab.knobs import KNOBS, TrialConfig
from lab.mlflow_store import (
    PAGE,
    STUDY_TAG,
    complete_runs,
    connect,
    first_line,
    is_server,
    mlflow_errors,
    tracking_uri,
)
from lab.spec import check_name
from lab.spool import PHASES, parse_key
from lab.storage import Home, masked

_DEFAULTS = dataclasses.asdict(TrialConfig())
_DTYPES = {bool: "bool", int: "int64", float: "float64", str: "object"}


class Predictions(NamedTuple):
    """Predictions of a trial's replicas on the test set: (D, I, N, C) float32, NaN where diverged; (N,); (N, C).

    With K draws of the label noise they are (D, I, K, N, C).
    """

    probabilities_DINC: np.ndarray
    labels_N: np.ndarray
    posterior_NC: np.ndarray | None


class Examples(NamedTuple):
    """The hardest test images of a trial: places in the test set (K,), 8-bit images (K, channels, height, width).

    `seen_KHW` says, of convolutional networks, where they see the class that most replicas call, 0 to 255.
    """

    index_K: np.ndarray
    images_KCHW: np.ndarray
    seen_KHW: np.ndarray | None = None


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

    @property
    def asked(self) -> dict[str, str]:
        """What the command said that the stored name does not; nothing in runs of earlier editions."""
        return dict(self.environment.get("asked", {}))

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
            # runs of earlier editions hold probabilities
            stored = "log_probabilities_DINC" in arrays
            probabilities = np.exp(arrays["log_probabilities_DINC"]) if stored else arrays["probabilities_DINC"]
            return Predictions(self._crossed(key, probabilities), arrays["labels_N"], posterior)

    def _crossed(self, key: str, stored_DINC: np.ndarray) -> np.ndarray:
        """Return stored predictions with the draws of label noise on an axis of their own, if there are several."""
        found = self.trials.loc[self.trials["key"] == key]
        draws = found["n_noise_draws"].iloc[0] if "n_noise_draws" in found else 1  # runs of earlier editions have none
        if pd.isna(draws) or draws == 1:
            return stored_DINC
        D, _, N, C = stored_DINC.shape
        return stored_DINC.reshape(D, -1, int(draws), N, C)

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
            seen = arrays["seen_KHW"] if "seen_KHW" in arrays else None
            return Examples(arrays["index_K"], arrays["images_KCHW"], seen)

    def signals(self, key: str) -> pd.DataFrame:
        """Read the signal health of the layers of a trial, see `lab.analysis.signals.table`; empty if there is none."""
        from lab.analysis.signals import COLUMNS

        if "signals.parquet" not in self.artifacts.manifest(key)["files"]:
            return pd.DataFrame(columns=list(COLUMNS))
        content = self.artifacts.read(key, ["signals.parquet"])["signals.parquet"]
        with self.artifacts.parsing(key, "signals.parquet"):
            return pd.read_parquet(io.BytesIO(content))

    def growth(self, key: str) -> dict[str, Any] | None:
        """Read how a trial grew, see `lab.growth.Growth.to_dict`; None for one whose plan has no target."""
        if "growth.json" not in self.artifacts.manifest(key)["files"]:
            return None
        return self.artifacts.json(key, "growth.json")

    def decomposition(self, key: str) -> dict[str, Any]:
        """Read decomposition.json of a trial: level, final (test set), validation, epochs."""
        return self.artifacts.json(key, "decomposition.json")


class Artifacts:
    """Reads the artifact files of a study's runs; each is compared with the sha256 in its run's manifest."""

    def __init__(self, run_ids: Mapping[str, str], study: str, home: Home) -> None:
        self._run_ids = run_ids
        self._study = study
        self._home = home
        self._uri = tracking_uri(home)
        self._manifests: dict[str, dict[str, Any]] = {}
        self._digests: dict[str, str] = {}
        self._of_study = home.artifacts_of(study)  # once: it follows links

    def where(self, key: str, name: str) -> str:
        """Return what to call an artifact in a message."""
        if is_server(self._uri):
            return f"{name} of run {self._run_ids[key]} on {masked(self._uri)}"
        return str(self._folder(key) / name)

    def _folder(self, key: str) -> Path:
        folder = self._of_study / check_name(self._run_ids[key], "run")
        if folder.is_symlink():
            raise StorageError(f"{folder} leads out of {self._of_study}: remove the symbolic link")
        return folder / "artifacts"

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
                self._manifests[key], self._digests[key] = manifest, hashlib.sha256(content).hexdigest()
        return self._manifests[key]

    def digest(self, key: str) -> str:
        """Return the sha256 of the manifest of a trial, as it lies there."""
        self.manifest(key)
        return self._digests[key]

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
            raise StorageError(f"{self.where(key, name)} is damaged: {first_line(error)}") from error

    def _fetch(self, key: str, names: list[str]) -> dict[str, bytes]:
        run_id = self._run_ids[key]
        if is_server(self._uri):
            client = connect(self._home, create=False)
            with mlflow_errors(f"run {run_id} of {self._study}"), tempfile.TemporaryDirectory() as to:
                return {name: Path(client.download_artifacts(run_id, name, to)).read_bytes() for name in names}
        folder = self._folder(key)
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
            page = client.search_experiments(max_results=PAGE, page_token=token)
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
    run_ids = complete_runs(study, home=home)
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
            row |= {"n_starts": config["n_starts"]} if "n_starts" in config else {}
            row |= {"n_confirm": config["spec"]["n_confirm"]} if "n_confirm" in config["spec"] else {}
            row |= config["replication"] | {"seed": config["seed"], "data_digest": config["data"]["digest"]}
        if "metrics.json" in manifest["files"]:
            metrics = artifacts.json(key, "metrics.json")
            with artifacts.parsing(key, "metrics.json"):
                # what the plan says as well (how many training sets and seeds) is a whole number there
                row |= {name: float(value) for name, value in metrics["final"].items() if name not in row}
                epochs += [name | point for point in metrics["epochs"]]
            if "growth.json" in manifest["files"]:
                row["stopped"] = artifacts.json(key, "growth.json")["stopped"]
            row["level"] = artifacts.json(key, "decomposition.json")["level"]
            content = artifacts.read(key, ["curves.parquet"])["curves.parquet"]
            with artifacts.parsing(key, "curves.parquet"):
                # not pq.read_table, which takes the file for a data set of many, nor threads: twice the processor time
                file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
                curves.append((name, file.read(use_threads=False)))
        if "pruned.json" in manifest["files"]:
            row |= artifacts.json(key, "pruned.json")["metrics"]
        rows.append(row)
        if manifest["finished"] > newest[0]:
            newest = (manifest["finished"], config, artifacts.json(key, "environment.json"))
    _, config, environment = newest
    # pa.concat_tables, then pandas once: a DataFrame a trial took 18 times as long (studies/LOG.md)
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
    return trials.astype(types).copy()  # in one piece: pandas warns of a column added to a frame of many pieces


def _named(replicas: pd.DataFrame | None, counts: list[tuple[dict[str, Any], int]]) -> pd.DataFrame:
    if replicas is None:
        return pd.DataFrame(columns=["key", "phase", "number", "epoch", "replica", "resample", "init", "diverged"])
    repeats = [n for _, n in counts]
    for position, field in enumerate(("key", "phase", "number")):
        values = pd.Series([name[field] for name, _ in counts])
        replicas.insert(position, field, values.repeat(repeats).reset_index(drop=True))
    return replicas
