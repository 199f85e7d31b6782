"""Where things lie on disk, and who may write them.

`Home` names every path. `coordinator_lock` lets one coordinator at a time work on a study. Outcomes of trials pass
from workers to the coordinator through lab.spool. How a file is written whole or not at all: lab.files.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import SpecError, StorageError, StudyInUse
from lab.files import atomic_write_text, disk_errors
from lab.spec import check_name

MASK = "***"  # what stands for a user name or a password that is not printed
MASK_NOTE = f"{MASK} stands for a user or password, not printed here: fill it in, or set LAB_STORAGE to the address"


@dataclass(frozen=True)
class Home:
    """The folder that holds mlruns/ (generated records) and reports/ (generated pages); by default the working one."""

    root: Path = Path(".")
    search_uri: str | None = None  # of a database server that keeps Optuna's studies instead of `optuna_db`

    @classmethod
    def here(cls, search_uri: str | None = None) -> "Home":
        """Return the working folder, with the search state at this address or at the one in LAB_STORAGE, if any.

        An address as printed commands have it, `masked`, is completed from LAB_STORAGE.

        Raises:
            SpecError: The address is not one of a PostgreSQL server, or is masked and LAB_STORAGE is of another.
        """
        known = os.environ.get("LAB_STORAGE", "").strip()
        uri = (search_uri or "").strip() or known or None
        if uri is not None and MASK in uri and uri == masked(uri):
            if masked(known) != uri or known == uri:
                raise SpecError(f"--storage {masked(uri)}: {MASK_NOTE}")
            uri = known
        if uri is not None and not re.match(r"postgresql(\+\w+)?://", uri):
            raise SpecError(f"--storage {masked(uri)}: give postgresql://USER@HOST/NAME, or leave it out for mlruns/")
        return cls(search_uri=uri)

    @property
    def mlruns(self) -> Path:
        """Databases, artifacts, spool and locks."""
        return self.root.resolve() / "mlruns"

    @property
    def mlflow_db(self) -> Path:
        """The SQLite file of MLflow."""
        return self.mlruns / "mlflow.db"

    @property
    def optuna_db(self) -> Path:
        """The SQLite file of Optuna."""
        return self.mlruns / "optuna.db"

    @property
    def mlflow_uri(self) -> str:
        """The SQLAlchemy address of `mlflow_db`."""
        return _sqlite_uri(self.mlflow_db)

    @property
    def optuna_uri(self) -> str:
        """The SQLAlchemy address of Optuna's database, with its password if it has one."""
        return self.search_uri or _sqlite_uri(self.optuna_db)

    @property
    def search_name(self) -> str:
        """What to call Optuna's database in a message: no user, no password."""
        return str(self.optuna_db) if self.search_uri is None else masked(self.search_uri)

    @property
    def artifacts(self) -> Path:
        """The root of MLflow's artifacts."""
        return self.mlruns / "artifacts"

    @property
    def spool(self) -> Path:
        """The root of the outcomes that wait to be published."""
        return self.mlruns / "spool"

    @property
    def locks(self) -> Path:
        """The root of the lock files."""
        return self.mlruns / "locks"

    @property
    def reports(self) -> Path:
        """The root of the pages and their tables."""
        return self.root.resolve() / "reports"

    def artifacts_of(self, study: str) -> Path:
        """Return the artifact folder of a study."""
        return inside(self.artifacts, check_name(study, "study"))

    def spool_of(self, study: str) -> Path:
        """Return the folder of a study's outcomes that wait to be published."""
        return inside(self.spool, check_name(study, "study"))

    def outcome_of(self, study: str, key: str) -> Path:
        """Return the folder of one outcome in the spool."""
        check_name(key, "outcome")
        return inside(self.spool_of(study), key)

    def checkpoints_of(self, study: str, key: str | None = None) -> Path:
        """Return the folder of a study's checkpoints, or of one trial's."""
        folder = inside(self.mlruns / "checkpoints", check_name(study, "study"))
        return folder if key is None else inside(folder, check_name(key, "outcome"))

    def report_of(self, study: str) -> Path:
        """Return the page of a study."""
        return inside(self.reports, check_name(study, "study") + ".html")


def _sqlite_uri(path: Path) -> str:
    # SQLAlchemy from 2.1 on decodes the path; what it would take for an escape or for the end of the path is escaped
    return "sqlite:///" + path.as_posix().replace("%", "%25").replace("?", "%3F")


def masked(text: str) -> str:
    """Return a text without the user names and passwords of the addresses in it, before the host or as options."""
    return re.sub(r"([?&](?:user|\w*password)=)[^&\s]*", rf"\1{MASK}", re.sub(r"://\S*@", f"://{MASK}@", text))


STILL_SECONDS = 120.0  # see `made_once`
NETWORK_FILE_SYSTEMS = frozenset(
    ["afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "nfs",
     "nfs4", "smb3", "smbfs"]
)  # fmt: skip


def network_file_system(path: Path, mounts: str) -> str | None:
    """Return the type of the network file system that a path lies on, None if it is a local one.

    Args:
        path: An absolute path.
        mounts: The text of /proc/mounts.
    """
    found = (Path("/"), "")
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        if path.is_relative_to(place) and len(place.parts) >= len(found[0].parts):  # a later mount hides an earlier one
            found = (place, fields[2])
    return found[1] if found[1] in NETWORK_FILE_SYSTEMS else None


def refuse_network(database: Path) -> None:
    """Refuse a SQLite file on a network file system: locks are not kept there, and databases are damaged.

    Source: https://www.sqlite.org/howtocorrupt.html, section 2.1. Only Linux says what is mounted where.

    Raises:
        StorageError: The file would lie on one.
    """
    mounts = Path("/proc/mounts")
    kind = network_file_system(database.resolve(), mounts.read_text()) if mounts.exists() else None
    if kind is not None:
        raise StorageError(
            f"{database} would lie on a network file system ({kind}), where SQLite databases get damaged: run in a "
            "local folder, or use servers (--storage postgresql://… and MLFLOW_TRACKING_URI)"
        )


def inside(root: Path, name: str) -> Path:
    """Return root/name; refuse a path that leaves the root, or that a symbolic link leads elsewhere.

    Raises:
        StorageError: It does.
    """
    path = root / name
    if path.parent != root or path.resolve() != root.resolve() / name:
        raise StorageError(f"{path} leads out of {root}: remove the symbolic link, or use another name")
    return path


# --- locks ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def coordinator_lock(home: Home, study: str) -> Iterator[None]:
    """Hold a study: while the context is open, no other process can coordinate it. The system frees a dead holder's.

    Raises:
        StudyInUse: Another process holds it; the message names its pid.
    """
    from filelock import FileLock, Timeout

    pid_file = inside(home.locks, check_name(study, "study") + ".pid")
    with disk_errors(f"cannot lock study {study}"):
        home.locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(inside(home.locks, study + ".lock"))
        try:
            # `status` takes the lock for an instant to see whether it is free, and may be held up just then
            lock.acquire(timeout=3.0, poll_interval=0.05)
        except Timeout:
            pid = holder(home, study)
            who = f"process {pid}" if pid else "another process"
            raise StudyInUse(f"study {study} is in use by {who}: wait until it ends, or stop it") from None
    try:
        for left in home.locks.glob(f".{pid_file.name}.*.tmp"):  # by a holder that was killed as it wrote
            left.unlink(missing_ok=True)
        atomic_write_text(pid_file, f"{os.getpid()}\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            pid_file.unlink()
        lock.release()


def holder(home: Home, study: str) -> int | None:
    """Return the pid that the holder of a study's lock wrote down, None if nothing is written."""
    # a file of its own: some systems forbid reading a locked file
    try:
        return int(inside(home.locks, check_name(study, "study") + ".pid").read_text())
    except (OSError, ValueError):
        return None


def in_use(home: Home, study: str) -> bool:
    """Return whether a living coordinator holds the study."""
    from filelock import FileLock, Timeout

    path = inside(home.locks, check_name(study, "study") + ".lock")
    if not path.exists():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


@contextlib.contextmanager
def setup_lock(home: Home) -> Iterator[None]:
    """Hold the making of the databases: several coordinators that make one file at once damage each other's."""
    from filelock import FileLock, Timeout

    with disk_errors("cannot lock the databases"):
        home.locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home.locks / "databases.lock")
        try:
            lock.acquire(timeout=120)
        except Timeout:
            raise StorageError("the databases are being made by another process for 2 minutes: stop it") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def made_once(home: Home, name: str) -> Iterator[Callable[[], None]]:
    """Hold the making of something that several workers need: the others wait, and then find it.

    Gives a function that the maker calls as it goes on. Who waits and sees no sign of it for `STILL_SECONDS` (the maker
    is stopped, or in a long step) makes it too: that is to give the same, and to end with a step that can be repeated.
    """
    from filelock import FileLock, Timeout

    with disk_errors(f"cannot lock {name}"):
        home.locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(inside(home.locks, check_name(name, "lock") + ".lock"))
        sign = inside(home.locks, name + ".sign")
    last, since = _stamp(sign), time.monotonic()
    while not lock.is_locked:
        with disk_errors(f"cannot lock {name}"), contextlib.suppress(Timeout):
            lock.acquire(timeout=min(1.0, STILL_SECONDS), poll_interval=0.05)
        if _stamp(sign) != last:
            last, since = _stamp(sign), time.monotonic()
        if not lock.is_locked and time.monotonic() - since > STILL_SECONDS:
            break
    try:
        yield sign.touch
    finally:
        if lock.is_locked:
            sign.unlink(missing_ok=True)
        lock.release()


def _stamp(path: Path) -> int:
    """Return when a file was changed, 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
