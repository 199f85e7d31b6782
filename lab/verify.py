"""`verify`: every file and record of a study, compared with its checksum and with each other.

Nothing is changed. The search state (Optuna), the run history (MLflow), the artifacts and the spool hold the same
results; whatever one of them says differently from the others is damage.
"""

import dataclasses
import io
import json
import math
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lab import history, mlflow_store, search, spool
from lab.errors import StorageError, one_line
from lab.search import Record
from lab.spool import MANIFEST
from lab.storage import Home
from lab.training.checkpoint import damage as checkpoint_damage

Run = Any  # of mlflow.entities, which only the owners of mlflow import


@dataclass
class Found:
    """What `verify` saw: how much, what is unfinished (notes), what is wrong (damage), a line each."""

    study: str
    n_records: int = 0
    n_files: int = 0
    notes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return dataclasses.asdict(self)


def verify(study: str, *, home: Home) -> Found:
    """Check a study that nobody runs at the moment.

    Raises:
        SpecError: There is no such study.
        StudyInUse: It is running.
        StorageError: A database cannot be read at all.
    """
    found = Found(study)
    for database in (home.optuna_db if home.search_uri is None else None, home.mlflow_db):
        if database is not None and database.is_file():
            _database(database, found)
    with search.records(home, study) as (spec, records):
        artifacts, runs = _runs(study, home, found)
        for key, run in runs.items():
            _run(key, run, artifacts, records.get(key), spec, found)
        waiting = _spool(study, home, found)
        _checkpoints(study, home, found)
        _search_state(records, set(runs), waiting, found)
    return found


def _database(path: Path, found: Found) -> None:
    found.n_files += 1
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            answers = [row[0] for row in database.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        answers = [str(error)]
    found.damage += [f"{path}: {one_line(answer)}" for answer in answers if answer != "ok"]


def _runs(study: str, home: Home, found: Found) -> tuple[history.Artifacts, dict[str, Run]]:
    """Return the complete runs of a study by key; report those that are not, and doubles."""
    client = mlflow_store.connect(home, create=False)
    with mlflow_store.mlflow_errors(f"the run history of {study}"):
        experiment = client.get_experiment_by_name(study)
        every = mlflow_store.search_runs(client, experiment.experiment_id) if experiment is not None else []
    found.n_records += len(every)
    for key, n in Counter(run.data.tags["key"] for run in every).items():
        if n > 1:
            found.damage.append(f"MLflow has {n} runs of {key}: run the study again, which keeps one")
    runs = {key: run for key, run in mlflow_store.by_key(every).items() if run.info.status in mlflow_store.COMPLETE}
    for run in every:
        if run.info.status not in mlflow_store.COMPLETE:
            found.notes.append(
                f"run {run.info.run_id} ({run.data.tags['key']}) is {run.info.status}: not published yet"
            )
    return history.Artifacts({key: run.info.run_id for key, run in runs.items()}, study, home), runs


def _run(
    key: str, run: Run, artifacts: history.Artifacts, record: Record | None, spec: dict[str, Any], found: Found
) -> None:
    try:
        manifest = artifacts.manifest(key)
        if artifacts.digest(key) != run.data.tags.get(mlflow_store.OUTCOME_TAG):
            raise StorageError(f"{artifacts.where(key, MANIFEST)} is not the one that was published")
        files = artifacts.read(key, list(manifest["files"]))
        found.n_files += 1 + len(files)
        for name in files:
            _parse(artifacts, key, name, files[name])
        _agrees(key, run, manifest, files)
        if record is not None:
            _agrees_with_search(key, record, manifest, files, spec)
    except StorageError as error:
        found.damage.append(str(error))


def _parse(artifacts: history.Artifacts, key: str, name: str, content: bytes) -> None:
    with artifacts.parsing(key, name):
        if name.endswith(".json"):
            json.loads(content)
        elif name.endswith(".parquet"):
            import pyarrow.parquet

            pyarrow.parquet.read_table(io.BytesIO(content))
        elif name.endswith(".npz"):
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                for array in arrays.files:
                    arrays[array]


def _agrees(key: str, run: Run, manifest: dict[str, Any], files: dict[str, bytes]) -> None:
    """Compare what MLflow shows of a run with its artifacts."""
    wrong = [] if run.data.tags.get("outcome") == manifest["status"] else ["tag outcome"]
    config = json.loads(files["config.json"])
    wrong += [f"param {k}" for k, v in config["config"].items() if run.data.params.get(k) != str(v)]
    final = _final(files)
    wrong += [f"metric {k}" for k, v in final.items() if not _same(run.data.metrics.get(k), v)]
    if wrong:
        raise StorageError(
            f"MLflow's run {run.info.run_id} of {key} differs from its artifacts in {', '.join(wrong[:4])}"
        )


def _final(files: dict[str, bytes]) -> dict[str, float]:
    """Return what was measured of a trial in the end."""
    if "metrics.json" in files:
        return json.loads(files["metrics.json"])["final"]
    return json.loads(files["pruned.json"])["metrics"] if "pruned.json" in files else {}


def _same(one: float | None, other: float | None) -> bool:
    """Return whether two records hold the same number; what is missing or not a number is the same as its like."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))


def _agrees_with_search(
    key: str, record: Record, manifest: dict[str, Any], files: dict[str, bytes], spec: dict[str, Any]
) -> None:
    """Compare what Optuna knows of an explore trial with the artifacts of its run."""
    if not record.is_done:
        return  # published, and killed before it was told: the next `run` tells it
    config = json.loads(files["config.json"])
    wrong = [] if record.outcome == manifest["status"] else ["outcome"]
    wrong += [name for name, value in record.params.items() if config["config"].get(name, value) != value]
    final = _final(files)
    objectives = [value for name, value in final.items() if re.fullmatch(r"objective_\d|pruned_objective", name)]
    is_same = len(objectives) == len(record.values) and all(map(_same, objectives, record.values))
    wrong += [] if is_same else ["objective"]
    if wrong:
        raise StorageError(f"Optuna and MLflow differ about {key}: {', '.join(wrong)}")


def _spool(study: str, home: Home, found: Found) -> set[str]:
    """Check what waits in the spool; return the keys that are whole."""
    whole = set()
    for directory in spool.pending(home, study):
        try:
            found.n_files += 1 + len(spool.read_outcome(directory).contents)
            whole.add(directory.name)
        except StorageError as error:
            found.damage.append(str(error))
    if whole:
        found.notes.append(f"{len(whole)} outcomes wait in {home.spool_of(study)}: send them with `publish`, or `run`")
    return whole


def _checkpoints(study: str, home: Home, found: Found) -> None:
    folder = home.checkpoints_of(study)
    for path in sorted(path for path in folder.rglob("*") if path.is_dir()):
        n_files, lines = checkpoint_damage(path)
        found.n_files += n_files
        found.damage += lines


def _search_state(records: dict[str, Record], published: set[str], waiting: set[str], found: Found) -> None:
    found.n_records += len(records)
    done = {key for key, record in records.items() if record.is_done}
    lost = sorted(done - published - waiting)
    if lost:
        found.damage.append(f"{len(lost)} trials are done, but neither published nor in the spool: {lost[0]} …")
    strange = sorted(key for key in published if spool.parse_key(key)[0] == "explore" and key not in records)
    if strange:
        found.damage.append(f"{len(strange)} runs of MLflow are of trials that Optuna does not know: {strange[0]} …")
    if len(records) > len(done):
        found.notes.append(f"{len(records) - len(done)} trials are under way: `run` takes them up again")
