"""Parameters and metrics of a run, as rows of the tables of MLflow's SQLite database.

MLflow's own `log_batch` makes two objects of SQLAlchemy of every metric: publishing a trial of 673 metric rows took 59
ms of processor time with it and takes 23 without (studies/LOG.md). Three statements leave the same rows, which a test
compares. But the tables are MLflow's: where they are not exactly those known here, `log_batch` is what is used.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param
    from sqlalchemy import Engine

TABLES = {  # of MLflow 3.17: name, type, whether NULL is refused, place in the primary key, of each column
    "params": "key VARCHAR(250) 1 1, value VARCHAR(8000) 1 0, run_uuid VARCHAR(32) 1 2",
    "metrics": "key VARCHAR(250) 1 1, value FLOAT 1 5, timestamp BIGINT 1 2, run_uuid VARCHAR(32) 1 4,"
    " step BIGINT 1 3, is_nan BOOLEAN 1 6",
    "latest_metrics": "key VARCHAR(250) 1 1, value FLOAT 1 0, timestamp BIGINT 0 0, step BIGINT 1 0,"
    " is_nan BOOLEAN 1 0, run_uuid VARCHAR(32) 1 2",
}
PARAM = "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
POINT = "INSERT INTO metrics ({}) VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING"
LATEST = "INSERT OR REPLACE INTO latest_metrics ({}) VALUES (?, ?, ?, ?, ?, 0)"
COLUMNS = "key, value, timestamp, step, run_uuid, is_nan"


def are_known(engine: "Engine") -> bool:
    """Return whether this is a SQLite database whose tables `write` knows."""
    if engine.dialect.name != "sqlite":
        return False
    with engine.connect() as connection:
        for table, columns in TABLES.items():
            found = connection.exec_driver_sql(f"PRAGMA table_info({table})").all()
            if ", ".join(f"{c.name} {c.type} {c.notnull} {c.pk}" for c in found) != columns:
                return False
    return True


def write(engine: "Engine", run_id: str, params: "Sequence[Param]", metrics: "Sequence[Metric]") -> None:
    """Give a run its parameters and metrics, all or none; what it has already stays.

    Args:
        engine: Of a database of which `are_known` is true.
        run_id: The run.
        params: Its parameters.
        metrics: All of its metrics, finite. The latest of a name is the last by step, time and value, as in MLflow.

    Raises:
        SQLAlchemyError: The database cannot be written, or has no such run.
    """
    points = [(m.key, m.value, m.timestamp, m.step, run_id) for m in metrics]
    by_time = sorted(points, key=lambda point: (point[3], point[2], point[1]))
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")  # as MLflow has it: no rows without a run
        for statement, rows in (
            (PARAM, [(param.key, param.value, run_id) for param in params]),
            (POINT.format(COLUMNS), points),
            (LATEST.format(COLUMNS), list({point[0]: point for point in by_time}.values())),
        ):
            if rows:
                connection.exec_driver_sql(statement, rows)
