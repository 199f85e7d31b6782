"""Optuna's database: a SQLite file of the project, or PostgreSQL for several machines. The same code serves both."""

import contextlib
import os
import platform
import sqlite3
from collections.abc import Iterator

import optuna
from sqlalchemy import Connection, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from lab import storage
from lab.errors import SpecError, StorageError, StudyInUse
from lab.mlflow_store import first_line
from lab.seeds import text_key
from lab.storage import Home

optuna.logging.set_verbosity(optuna.logging.WARNING)

CONNECT_SECONDS = 60  # how long SQLite waits for another study's coordinator to finish writing
ANSWER_SECONDS = 10  # how long PostgreSQL may take to accept a connection


@contextlib.contextmanager
def optuna_errors(home: Home) -> Iterator[None]:
    """Turn an error of Optuna's database into a StorageError of one line, without passwords."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        raise StorageError(f"the search state {home.search_name} cannot be used: {first_line(cause)}") from error


def open_database(home: Home) -> optuna.storages.RDBStorage:
    """Open Optuna's database; make it if there is none.

    Raises:
        SpecError: The address is no database, or its driver is not installed.
        StorageError: The database does not answer, or is damaged.
    """
    # Optuna fills in its own version with str.format
    uri = home.optuna_uri.replace("{", "{{").replace("}", "}}")
    with storage.setup_lock(home), optuna_errors(home):
        if home.search_uri is not None:
            return _open_server(uri, home)
        storage.refuse_network(home.optuna_db)
        # A write-ahead log is as durable with one sync a commit as the default journal with several: 4 ms a commit
        # instead of 16 on a busy disk (medians of 300 by turns). And a dashboard that reads does not block the
        # coordinator. Which commits wait for the disk, lab.syncs says.
        with contextlib.closing(sqlite3.connect(home.optuna_db, timeout=CONNECT_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        return optuna.storages.RDBStorage(uri, engine_kwargs={"connect_args": {"timeout": CONNECT_SECONDS}})


def _open_server(uri: str, home: Home) -> optuna.storages.RDBStorage:
    # a connection that the server has dropped is noticed and replaced before it is used
    options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": ANSWER_SECONDS}}
    try:
        return optuna.storages.RDBStorage(uri, engine_kwargs=options)
    except (ArgumentError, NoSuchModuleError) as error:
        raise SpecError(
            f"--storage {home.search_name}: {first_line(error)}: give postgresql://USER@HOST/NAME"
        ) from None
    except ImportError as error:
        raise SpecError(
            f"--storage {home.search_name}: its driver is missing ({first_line(error)}): "
            "python -m pip install 'psycopg[binary]'"
        ) from None


def close(database: optuna.storages.RDBStorage) -> None:
    """Close its connections."""
    database.remove_session()
    database.engine.dispose()


@contextlib.contextmanager
def study_lock(database: optuna.storages.RDBStorage, name: str) -> Iterator[None]:
    """Hold a study on a database server: coordinators on other machines do not see this one's lock file.

    The lock belongs to a connection, so the server frees it when its holder dies. SQLite needs none: its file is on
    this machine, where `lab.storage.coordinator_lock` is seen.

    Raises:
        StudyInUse: Another process holds it; the message names its host and pid.
    """
    if database.engine.dialect.name != "postgresql":
        yield
        return
    # two 32-bit halves, as pg_locks shows them; their own connection, in autocommit, so that no transaction stays open
    key = text_key(f"lab study {name}")
    halves = {"high": (key >> 32) - 2**31, "low": (key & 0xFFFFFFFF) - 2**31}
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text("SELECT set_config('application_name', :who, false)"), {"who": f"lab {platform.node()} {os.getpid()}"}
        )
        if not connection.execute(text("SELECT pg_try_advisory_lock(:high, :low)"), halves).scalar():
            raise StudyInUse(f"study {name} is in use by {_holder(connection, halves)}: wait until it ends, or stop it")
        try:
            yield
        finally:
            with contextlib.suppress(SQLAlchemyError):  # a server that is gone has freed it
                connection.execute(text("SELECT pg_advisory_unlock(:high, :low)"), halves)


def _holder(connection: Connection, halves: dict[str, int]) -> str:
    query = """
        SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.classid = :high_oid AND l.objid = :low_oid
    """  # pg_locks shows the halves as unsigned numbers
    oids = {"high_oid": halves["high"] % 2**32, "low_oid": halves["low"] % 2**32}
    who = (connection.execute(text(query), oids).scalar() or "").split()
    return f"process {who[2]} on {who[1]}" if len(who) == 3 and who[0] == "lab" else "another process"
