"""Which commits of a SQLite database wait for the disk: of several that belong together, the one that ends them.

In a write-ahead log, a commit that is synced (`PRAGMA synchronous = FULL`, SQLite's default) takes all before it to the
disk with it: they stand before it in the same file. A commit that did not wait may be undone by a power cut, until the
next one that waits; a kill of the process does not undo it. Source:
https://www.sqlite.org/pragma.html#pragma_synchronous, https://www.sqlite.org/wal.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine


class Syncs:
    """Sets `PRAGMA synchronous` on the connections of one engine of SQLAlchemy; nothing, if there is no engine.

    Databases without a write-ahead log, and servers, are left as they are.
    """

    def __init__(self, engine: "Engine | None") -> None:
        self._engine = engine if engine is not None and engine.dialect.name == "sqlite" else None
        self._mode = "FULL"
        if self._engine is not None:
            from sqlalchemy import event

            event.listen(self._engine, "checkout", self._prepare)

    @contextmanager
    def later(self) -> Iterator[None]:
        """Let no commit in here wait for the disk. The first one after it does, and takes these with it."""
        self._mode = "NORMAL"
        try:
            yield
        finally:
            self._mode = "FULL"

    def close(self) -> None:
        """Stop; others may use the engine. A connection in its pool stays as it is."""
        if self._engine is not None:
            from sqlalchemy import event

            event.remove(self._engine, "checkout", self._prepare)
            self._engine = None

    def _prepare(self, connection: Any, record: Any, proxy: Any) -> None:
        """Set the mode of a connection that leaves the pool: no transaction is open then."""
        if record.info.get("synchronous") == self._mode:
            return
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            connection.execute(f"PRAGMA synchronous = {self._mode}")
            record.info["synchronous"] = self._mode
