"""The weights of a confirmed configuration as files for torch: what is behind `export-weights`."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lab import history, weights
from lab.errors import SpecError
from lab.storage import Home, atomic_write_text, disk_errors, sync, temporary_of, write_synced


class Exported(NamedTuple):
    """What was written: the folder, the trial, how many replicas, and why there are not more, if there are not."""

    folder: Path
    key: str
    n_replicas: int
    note: str | None


def export(study: str, *, home: Home, trial: int | None = None, out: Path | None = None) -> Exported:
    """Write a safetensors file a replica, and weights.json: configuration, data, classes, shapes, sha256 of each.

    Args:
        study: The name that the study is stored under.
        home: The project folder.
        trial: The number of a confirmed trial; None for the one that was confirmed last.
        out: The folder, which is made; by default reports/<study>/weights.

    Raises:
        SpecError: There are no weights of that trial, or the folder holds something else.
        StorageError: There is no run history, or it is damaged, or the disk is full.
    """
    past = history.load(study, home=home)
    key = _key(past, trial)
    if weights.FILE not in past.artifacts.manifest(key)["files"]:
        events = past.artifacts.json(key, "environment.json").get("events", [])
        why = "; ".join(event for event in events if event.startswith("weights")) or "it was run before they were kept"
        raise SpecError(f"there are no weights of {key} of {study}: {why}")
    content = past.artifacts.read(key, [weights.FILE])[weights.FILE]
    with past.artifacts.parsing(key, weights.FILE):
        replicas, record = weights.unpacked(content)
    config = past.artifacts.json(key, "config.json")
    folder = out or home.reports / study / "weights"
    if folder.exists() and not _is_export(folder):
        raise SpecError(f"--out {folder}: it is there, and holds more than an export of weights: give another folder")
    from safetensors.numpy import save

    temporary = temporary_of(folder)
    with disk_errors(f"cannot write {folder}"):
        try:
            temporary.mkdir(parents=True)
            rows = []
            for own, tensors in zip(record["replicas"], replicas, strict=True):
                file = f"replica-{own['replica']:04d}.safetensors"
                body = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
                write_synced(temporary / file, body)
                rows.append({"file": file} | own | {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)})
            index = _index(study, key, config, replicas[0], rows, record["note"])
            atomic_write_text(temporary / weights.INDEX, json.dumps(index, indent=1) + "\n")
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
            sync(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return Exported(folder, key, len(rows), record["note"])


def _is_export(folder: Path) -> bool:
    """Return whether a folder holds what `export` writes and nothing else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return weights.INDEX in names and all(n == weights.INDEX or n.endswith(".safetensors") for n in names)


def _key(past: history.History, trial: int | None) -> str:
    confirmed = past.trials[past.trials["phase"].map(weights.are_kept)]
    if trial is not None:
        confirmed = confirmed[confirmed["number"] == trial]
    if confirmed.empty:
        known = ", ".join(str(n) for n in past.phase("confirm")["number"]) or "none yet"
        which = "no trial is confirmed" if trial is None else f"trial {trial} is not confirmed"
        raise SpecError(
            f"{which} in {past.study}: weights are kept of confirmed configurations alone (confirmed: {known})"
        )
    return str(confirmed.sort_values("finished")["key"].iloc[-1])


def _index(
    study: str, key: str, config: dict[str, Any], tensors: dict[str, Any], rows: list[dict[str, Any]], note: str | None
) -> dict[str, Any]:
    return {
        "format": weights.FORMAT,
        "study": study,
        "trial": key,
        "config": config["config"],
        "seed": config["seed"],
        "data": {name: config["data"][name] for name in ("name", "digest", "source", "class_names")},
        "image_shape": config["image_shape"],
        "input": "(pixels in 0 … 1 − input.mean) / input.std, a channel each",
        "tensors": {name: list(value.shape) for name, value in sorted(tensors.items())},
        "replicas": rows,
        "note": note,
    }
