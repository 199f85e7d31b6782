"""The weights of a confirmed configuration as files for torch: what is behind `export-weights`."""

from pathlib import Path
from typing import Any, NamedTuple

from lab import history, weights
from lab.errors import SpecError
from lab.storage import Home


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
    if folder.exists() and not weights.is_folder(folder):
        raise SpecError(f"--out {folder}: it is there, and holds more than an export of weights: give another folder")
    weights.write(folder, replicas, record["replicas"], _index(study, key, config, record["note"]))
    return Exported(folder, key, len(replicas), record["note"])


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


def _index(study: str, key: str, config: dict[str, Any], note: str | None) -> dict[str, Any]:
    return {
        "study": study,
        "trial": key,
        "config": config["config"],
        "seed": config["seed"],
        "data": {name: config["data"][name] for name in ("name", "digest", "source", "class_names")},
        "image_shape": config["image_shape"],
        "note": note,
    }
