"""The spool: how the outcome of a trial passes from a worker to the coordinator, whole or not at all.

A worker writes mlruns/spool/<study>/<key>/ under a temporary name, syncs it and renames it. The manifest holds the
sha256 of every file, and `read_outcome` checks them before anything is parsed.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import failpoints
from lab.errors import SpecError, StorageError
from lab.files import disk_errors, sync, temporary_of, write_synced
from lab.spec import check_name
from lab.storage import Home, inside

PHASES = ("explore", "confirm", "learning_curve")
STATUSES = ("finished", "diverged", "pruned", "infeasible", "failed")
MANIFEST = "manifest.json"
FORMAT = 1

_KEY = re.compile(rf"({'|'.join(PHASES)})-([0-9]{{4,12}})")
_FIELDS = {
    "format": int, "study": str, "key": str, "phase": str, "number": int, "attempt": int, "status": str,
    "started": float, "finished": float, "files": dict,
}  # fmt: skip


def make_key(phase: str, number: int) -> str:
    """Return the name of an outcome, e.g. "explore-0007"."""
    key = f"{phase}-{number:04d}"
    parse_key(key)
    return key


def parse_key(key: str) -> tuple[str, int]:
    """Return phase and number of an outcome's name.

    Raises:
        StorageError: It is no such name.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise StorageError(
            f"{key!r} is not the name of an outcome: expected phase-0000 with one of {', '.join(PHASES)}"
        )
    return match[1], int(match[2])


@dataclass(frozen=True)
class Outcome:
    """A whole outcome, every file of it verified. JSON parts are parsed only here, after their sha256 matched."""

    directory: Path
    manifest: Mapping[str, Any]
    contents: Mapping[str, bytes]

    @property
    def key(self) -> str:
        """Its name, e.g. "explore-0007"."""
        return self.manifest["key"]

    @property
    def phase(self) -> str:
        """One of `PHASES`."""
        return self.manifest["phase"]

    @property
    def number(self) -> int:
        """The number of the trial in its phase."""
        return self.manifest["number"]

    @property
    def status(self) -> str:
        """One of `STATUSES`."""
        return self.manifest["status"]

    @property
    def reason(self) -> str | None:
        """Why a trial is pruned, infeasible or failed."""
        return self.manifest["reason"]

    def json(self, name: str) -> Any:
        """Return one of its JSON files, parsed.

        Raises:
            StorageError: There is no such file, or it is no JSON.
        """
        try:
            return json.loads(self.contents[name])
        except (KeyError, ValueError) as error:
            raise StorageError(f"{self.directory / name}: not a JSON file of this outcome ({error})") from error


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_outcome(
    home: Home,
    study: str,
    phase: str,
    number: int,
    files: Mapping[str, bytes],
    *,
    status: str,
    reason: str | None = None,
    attempt: int = 1,
    started: float,
    finished: float,
) -> Path:
    """Put an outcome into the spool, whole or not at all, and return its directory.

    A trial has one outcome, that of the latest attempt: one that is there already stays, or gives way to a later one.

    Raises:
        StorageError: The disk is full, or the spool cannot be written.
    """
    target = home.outcome_of(study, make_key(phase, number))
    assert status in STATUSES, status
    manifest: dict[str, Any] = {
        "format": FORMAT, "study": study, "key": target.name, "phase": phase, "number": number, "attempt": attempt,
        "status": status, "reason": reason, "started": float(started), "finished": float(finished),
        "files": {name: {"sha256": hashlib.sha256(b).hexdigest(), "bytes": len(b)} for name, b in files.items()},
    }  # fmt: skip
    manifest["sha256"] = _manifest_digest(manifest)
    temporary = temporary_of(target)
    with disk_errors(f"cannot write the outcome {target}"):
        try:
            temporary.mkdir(parents=True)
            for name, content in files.items():
                failpoints.hit("spool.write")
                write_synced(inside(temporary, check_name(name, "file")), content)
            write_synced(temporary / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
            sync(temporary)
            failpoints.hit("spool.rename")
            while not _rename(temporary, target):
                if attempt_of(target) >= attempt:
                    shutil.rmtree(temporary)
                    break
                remove_outcome(target)
            failpoints.hit("spool.renamed")
            sync(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return target


def _rename(temporary: Path, target: Path) -> bool:
    try:
        os.rename(temporary, target)
    except OSError:
        if not target.is_dir():
            raise
        return False
    return True


def attempt_of(directory: Path) -> int:
    """Return the number of the attempt that an outcome in the spool is of; 0 if there is none, or none to be read."""
    try:
        return _read_manifest(directory)["attempt"]
    except (StorageError, SpecError):
        return 0


def read_outcome(directory: Path) -> Outcome:
    """Return an outcome of the spool after checking its manifest, and size and sha256 of each of its files.

    Raises:
        StorageError: Something is missing, added or changed; the message names the file.
    """
    manifest = _read_manifest(directory)
    path = directory / MANIFEST
    contents: dict[str, bytes] = {}
    with disk_errors(f"cannot read the outcome {directory}"):
        for name, entry in manifest["files"].items():
            path = directory / name
            if path.is_symlink() or not path.is_file():
                raise StorageError(f"{path} is missing: the outcome is damaged")
            content = path.read_bytes()
            if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
                raise StorageError(f"{path} is not what was written (its sha256 differs): the outcome is damaged")
            contents[name] = content
        extra = sorted({p.name for p in directory.iterdir()} - set(contents) - {MANIFEST})
    if extra:
        raise StorageError(f"{directory / extra[0]} does not belong to the outcome: remove it")
    return Outcome(directory, manifest, contents)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    damaged = f"{path} is not what was written: the outcome is damaged"
    with disk_errors(f"cannot read the outcome {directory}"):
        if path.is_symlink() or not path.is_file():
            raise StorageError(f"{path} is missing: the outcome is damaged")
        content = path.read_bytes()
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise StorageError(damaged) from error
    names = set(_FIELDS) | {"reason"}
    # a manifest may lack the sha256 of itself, but may hold nothing unknown: so no change of one byte goes unseen
    if not isinstance(manifest, dict) or not names <= set(manifest) <= names | {"sha256"}:
        raise StorageError(damaged)
    if any(type(manifest[name]) is not kind for name, kind in _FIELDS.items()):
        raise StorageError(damaged)
    if manifest.get("sha256", _manifest_digest(manifest)) != _manifest_digest(manifest):
        raise StorageError(damaged)
    if manifest["format"] != FORMAT:
        raise StorageError(f"{path} has format {manifest['format']}, this version reads {FORMAT}")
    if manifest["status"] not in STATUSES or not isinstance(manifest["reason"], str | None):
        raise StorageError(damaged)
    if manifest["key"] != directory.name or parse_key(directory.name) != (manifest["phase"], manifest["number"]):
        raise StorageError(f"{path} belongs to {manifest['key']!r}: the outcome is damaged")
    for name, entry in manifest["files"].items():
        check_name(name, f"{path}: file")
        if not isinstance(entry, dict) or type(entry.get("bytes")) is not int or type(entry.get("sha256")) is not str:
            raise StorageError(damaged)
    return manifest


def remove_outcome(directory: Path) -> None:
    """Take an outcome out of the spool: at once, so that no part of it is ever taken for an outcome."""
    temporary = temporary_of(directory)
    with disk_errors(f"cannot remove the outcome {directory}"):
        failpoints.hit("spool.remove")
        os.rename(directory, temporary)
        failpoints.hit("spool.removed")
        shutil.rmtree(temporary)


def pending(home: Home, study: str) -> list[Path]:
    """Return the outcomes of a study that wait in the spool, in order of phase and number."""
    root = home.spool_of(study)
    if not root.is_dir():
        return []
    found = [p for p in root.iterdir() if _KEY.fullmatch(p.name)]
    return sorted(found, key=lambda p: (PHASES.index(parse_key(p.name)[0]), parse_key(p.name)[1]))


def clean_temporaries(home: Home, study: str) -> int:
    """Remove what dead writers left unfinished in a study's spool; return how much. Only the lock's holder may."""
    root = home.spool_of(study)
    stale = [p for p in root.glob(".*.tmp")] if root.is_dir() else []
    with disk_errors(f"cannot clean {root}"):
        for path in stale:
            shutil.rmtree(path)
    return len(stale)
