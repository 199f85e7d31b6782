"""Files that are written whole or not at all, and what is left of those that were not."""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from lab.errors import StorageError

OLD_SECONDS = 3600.0  # see `sweep`


@contextlib.contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn an error of the disk or the file system into a StorageError of one line."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StorageError(f"{doing}: {error.strerror or error}{where}") from error


def sync(path: Path) -> None:
    """Force a file or a folder to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and force it to the disk."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def forget(folder: Path) -> None:
    """Remove a folder that is not needed any more. What cannot be removed now, the next run removes."""
    shutil.rmtree(folder, ignore_errors=True)


def temporary_of(path: Path) -> Path:
    """Return a name beside the path that nobody else uses: ".<name>.<random>.tmp"."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left half-written in a folder: temporaries of an hour ago or more."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write a file under, which takes the place of `path` once the context ends well.

    If it ends in an error, what was there stays, and nothing of the new file. The folder is made.

    Raises:
        OSError: The folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    try:
        yield temporary
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) so that readers see the old content or the new one, never a part.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    with disk_errors(f"cannot write {path}"), replacing(path) as temporary:
        write_synced(temporary, text.encode())
