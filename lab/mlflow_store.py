"""How MLflow is reached: addresses, the client, its errors, its runs; for the modules that own MLflow."""

import contextlib
import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import StorageError
from lab.files import disk_errors, sync, temporary_of
from lab.spec import check_name
from lab.storage import Home, inside, masked, refuse_network

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from sqlalchemy import Engine

COMPLETE = ("FINISHED", "FAILED")  # other runs are being published, or were when the coordinator was killed
OUTCOME_TAG = "outcome_digest"  # sha256 of the manifest: tells two outcomes of one trial apart
STUDY_TAG = "lab.study"  # marks the experiments that are studies
VIEW = "lab"  # the name of the view of the MLflow UI that lab.tracking stores and lab.ui opens
PAGE = 1000  # search_runs cuts at its page size without saying so


def prepare_environment() -> None:
    """Switch off what MLflow does beside its work. It reads these variables when it is imported."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}
    quiet |= {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    # a dead tracking server would block a single call for 4 min: the 7 retries of MLflow wait 4, 8, 16 … s between them
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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says what is wrong, without passwords."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    said = [line for line in lines if not line.startswith("(raised as a result of")]  # SQLAlchemy: where, not what
    text = masked(" ".join((said or lines)[0].split()))
    text = re.sub(r"^\([\w.]+Error\) ", "", text)  # SQLAlchemy: the class of the driver's error
    if text == "disk I/O error":  # SQLite, where no room is left for what it keeps beside a database
        text += " (is the disk full?)"
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
    except (MlflowException, SQLAlchemyError, sqlite3.Error, CommandError, OSError) as error:
        raise StorageError(f"{what}: {first_line(error)}") from error


def connect(home: Home, *, create: bool) -> "MlflowClient":
    """Return a client of the run history; with `create`, make a missing database (in the coordinator only).

    Raises:
        StorageError: There is no database, it is damaged, or the server does not answer.
    """
    uri = tracking_uri(home)
    if create and uri == home.mlflow_uri and not home.mlflow_db.is_file():
        _make(home)
    if uri.startswith("sqlite:///"):
        _check_sqlite(home.mlflow_db if uri == home.mlflow_uri else Path(uri.removeprefix("sqlite:///")), create)
    client = _client(uri)
    if uri == home.mlflow_uri:
        remove_stray(home)
    return client


def _client(uri: str) -> "MlflowClient":
    prepare_environment()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # MLflow announces every table that it creates
        logging.getLogger(name).setLevel(logging.WARNING)
    # it prints a page for an error that it raises as well
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with mlflow_errors(f"the run history {masked(uri)} cannot be opened"):
        return MlflowClient(tracking_uri=uri)


def _make(home: Home) -> None:
    """Make the project's database under another name, which then becomes its own.

    MLflow takes seconds for its tables, and cannot go on with a part of them, as Ctrl-C or a full disk would leave it
    (3.17.2: "table logged_models already exists").
    """
    path = home.mlflow_db
    temporary = temporary_of(path)
    _forget_parts(path)
    try:
        _check_sqlite(temporary, create=True)
        engine = engine_of(_client(home.mlflow_uri.removesuffix(path.name) + temporary.name))
        if engine is not None:
            engine.dispose()
        with disk_errors(f"the run history {path} cannot be made"):
            with closing(sqlite3.connect(temporary)) as database:  # else a part of them lies in a file beside it
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for kind in ("-wal", "-shm"):  # of one that somebody has removed: SQLite would read it into this one
                path.with_name(path.name + kind).unlink(missing_ok=True)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        _forget_parts(path)


def _forget_parts(path: Path) -> None:
    """Remove what is left of a database that was being made, also by a process that was killed."""
    for left in path.parent.glob(f".{path.name}.*.tmp*"):
        left.unlink(missing_ok=True)


def engine_of(client: "MlflowClient") -> "Engine | None":
    """Return the engine of a client's database; None of a tracking server, or where MLflow keeps it elsewhere."""
    tracking = getattr(client, "_tracking_client", None)  # MLflow has no public way
    return getattr(getattr(tracking, "store", None), "engine", None)


def remove_stray(home: Home) -> None:
    """Remove the empty folder that MLflow makes beside a project whose path holds a % or a ?.

    It takes the escaped path of its database for the path (3.17.2, store/db/utils.py).
    """
    stray = Path(home.mlflow_uri.removeprefix("sqlite:///")).parent
    if stray != home.mlflow_db.parent:
        with contextlib.suppress(OSError):
            os.removedirs(stray)  # and its parents, as far as they are empty


def _check_sqlite(path: Path, create: bool) -> None:
    # MLflow would try 10 times in 100 s, with a page of warnings, when a database cannot be opened
    if create:
        refuse_network(path)
    elif not path.is_file():
        raise StorageError(f"no run history in {path}: run a study first (python -m lab.study run NAME)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=10)) as database:
            database.execute("PRAGMA schema_version").fetchone()
            if create:
                # As in lab.search.database. On a busy disk a trial of 160 metrics then took 0.08 s instead of 0.24, and
                # 34 ms of processor time instead of 49 (means of 20, 2 shared cores of an Intel Xeon).
                with contextlib.suppress(sqlite3.OperationalError):  # somebody reads just now: the next run does it
                    database.execute("PRAGMA journal_mode = WAL")
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"the run history {path} cannot be opened: {first_line(error)}") from error


def complete_runs(study: str, *, home: Home) -> dict[str, str]:
    """Return key → run id of the complete runs of a study, as `by_key` chooses them; empty if there are none.

    The project's own database is asked with one query: MLflow's search reads every metric of every run as well, which
    was half of the time of reading a history.

    Raises:
        StorageError: The run history cannot be read.
    """
    if tracking_uri(home) == home.mlflow_uri:
        _check_sqlite(home.mlflow_db, create=False)
        try:
            with closing(sqlite3.connect(home.mlflow_db, timeout=10)) as database:
                rows = database.execute(_RUNS, (study,)).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the run history of {study}: {first_line(error)}") from error
    else:
        client = connect(home, create=False)
        with mlflow_errors(f"the run history of {study}"):
            experiment = client.get_experiment_by_name(study)
            runs = [] if experiment is None else search_runs(client, experiment.experiment_id)
        rows = [(run.data.tags["key"], run.info.run_id, run.info.status) for run in runs]
    found: dict[str, str] = {}
    for key, run_id, status in sorted(rows, key=lambda row: row[1]):
        if status in COMPLETE:
            found.setdefault(key, run_id)
    return found


_RUNS = """
    SELECT tags.value, runs.run_uuid, runs.status
    FROM experiments JOIN runs USING (experiment_id) JOIN tags USING (run_uuid)
    WHERE experiments.name = ? AND runs.lifecycle_stage = 'active' AND tags.key = 'key'
"""


def search_runs(client: "MlflowClient", experiment_id: str) -> list["Run"]:
    """Return all runs of an experiment that the lab has made (they have a tag `key`), complete or not."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=PAGE, page_token=token)
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
