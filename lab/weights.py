"""Weights in files: those of a trial's replicas side by side in one, and of one replica in one, as torch names them.

Both are safetensors; what is not a tensor is JSON in the header of the first, or in `weights.json` beside the second.
A linear weight is (out, in), a normalisation has weight, bias, running_mean and running_var, all float32, so that a
torch.nn module whose layers have these names loads them as its state. `input.mean` and `input.std` say how the images
were standardised: (pixels in 0 … 1 − mean) / std, a channel each.

Shape suffixes: R replicas, C channels.
"""

import functools
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.errors import SpecError
from lab.files import disk_errors, sync, temporary_of, write_synced
from lab.knobs import FAMILIES

if TYPE_CHECKING:
    from lab.task import Task
    from lab.trained import Trained

FORMAT = 1
MOST_BYTES = 2**28  # of the weights that a trial keeps; of larger networks the first replicas that fit
FILE = "weights.safetensors"  # of a trial
INDEX = "weights.json"  # of a folder of replicas
PICKLES = (b"PK\x03\x04", b"\x80\x02")  # what a file of torch.save begins with: a zip archive, or a bare pickle
_SUFFIXES = {"scale": "weight", "shift": "bias", "mean": "running_mean", "var": "running_var"}


class Start(NamedTuple):
    """Weights to start from, of one replica or of several: tensors by torch's names, and the sha256 over all files."""

    replicas: Sequence[Mapping[str, NDArray[np.float32]]]
    digest: str


def torch_name(name: str) -> str:
    """Return what torch calls a tensor of the lab."""
    layer, _, last = name.rpartition(".")
    return name if layer == "input" else f"{layer}.{_SUFFIXES.get(last, last)}"


def transposed(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a weight of one replica as the other side stores it: linear ones, which have two axes, are transposed."""
    return value.T if value.ndim == 2 else value


def are_kept(phase: str) -> bool:
    """Return whether the weights of a trial are kept: of every trial they would be a burden."""
    return phase == "confirm"


def of_trial(task: "Task", trained: "Trained") -> tuple[bytes | None, str | None]:
    """Return the file with the weights of a trial's replicas, None if there are none, and what is left out, if any.

    Left out are replicas that diverged, and those that do not fit into `MOST_BYTES`.
    """
    if not are_kept(task.phase):
        return None, None
    diverged_R = trained.snapshots[-1].diverged_R
    alive = np.flatnonzero(~diverged_R)
    n_bytes = sum(values[0].nbytes for values in trained.weights.values())
    room = min(len(alive), MOST_BYTES // max(n_bytes, 1))
    notes = []
    if diverged_R.any():
        notes.append(f"weights of {diverged_R.sum()} replicas that diverged are not kept")
    if room < len(alive):
        notes.append(f"weights of {room} replicas of {len(alive)} are kept: more would exceed {MOST_BYTES >> 20} MiB")
    note = "; ".join(notes) or None
    if not room or not trained.weights:
        return None, note
    (_, n_inits, n_draws), rows = trained.replication.shape, alive[:room].tolist()
    replicas = [
        {
            "replica": r,
            "resample": task.first_resample + r // (n_inits * n_draws),
            "init": task.first_init + r // n_draws % n_inits,
            "noise_draw": task.first_noise + r % n_draws,
        }
        for r in rows
    ]
    is_own = task.config.get("family") not in (None, *FAMILIES)
    return packed(trained.weights, rows, {"replicas": replicas, "note": note}, is_own=is_own), note


def as_torch(
    tensors_R: Mapping[str, NDArray[np.float32]], rows: Sequence[int], *, is_own: bool = False
) -> list[dict[str, NDArray[np.float32]]]:
    """Return the weights of some replicas as torch names and stores them, given those of all as the lab does.

    Those of a module of the user's own are torch's already.
    """
    if is_own:
        return [{name: values[r] for name, values in tensors_R.items()} for r in rows]
    return [
        {
            torch_name(name): transposed(values[r]) if name.endswith(".weight") else values[r]
            for name, values in tensors_R.items()
        }
        for r in rows
    ]


def packed(
    tensors_R: Mapping[str, NDArray[np.float32]],
    rows: Sequence[int],
    record: Mapping[str, Any],
    *,
    is_own: bool = False,
) -> bytes:
    """Return a file with the weights of some replicas, given those of all as the lab does, see `as_torch`."""
    from safetensors.numpy import save

    replicas = as_torch(tensors_R, rows, is_own=is_own)
    stacks = {name: np.stack([tensors[name] for tensors in replicas]) for name in replicas[0]}
    contiguous = {name: np.ascontiguousarray(stack, dtype=np.float32) for name, stack in stacks.items()}
    return save(contiguous, {"lab": json.dumps({"format": FORMAT} | dict(record))})


def unpacked(content: bytes) -> tuple[list[dict[str, NDArray[np.float32]]], dict[str, Any]]:
    """Return the weights of each replica in a file that `packed` made, and the record in it."""
    from safetensors.numpy import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    stacks = load(content)
    n_replicas = len(next(iter(stacks.values())))
    return [{name: stack[r] for name, stack in stacks.items()} for r in range(n_replicas)], json.loads(header["lab"])


def write(
    folder: Path,
    replicas: Sequence[Mapping[str, NDArray[np.float32]]],
    rows: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    *,
    replaces: bool = True,
) -> None:
    """Write a folder with a file a replica and `weights.json`, whole or not at all.

    Args:
        folder: Where.
        replicas: The tensors of each replica by torch's names.
        rows: What to note of each of them, `replica` among it: its number.
        record: What to note of all of them.
        replaces: Whether it takes the place of one that is there; else that one stays.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    from safetensors.numpy import save

    temporary = temporary_of(folder)
    with disk_errors(f"cannot write {folder}"):
        try:
            temporary.mkdir(parents=True)
            listed = []
            for row, tensors in zip(rows, replicas, strict=True):
                file = f"replica-{row['replica']:04d}.safetensors"
                body = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
                write_synced(temporary / file, body)
                listed.append({"file": file, **row, "sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)})
            index = {
                "format": FORMAT,
                **record,
                "input": "(pixels in 0 … 1 − input.mean) / input.std, a channel each",
                "tensors": {name: list(value.shape) for name, value in sorted(replicas[0].items())},
                "replicas": listed,
            }
            write_synced(temporary / INDEX, (json.dumps(index, indent=1) + "\n").encode())
            if replaces and folder.exists():
                shutil.rmtree(folder)
            try:
                temporary.rename(folder)
            except OSError:
                if replaces or not (folder / INDEX).is_file():
                    raise
                shutil.rmtree(temporary)  # another was faster
            sync(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def is_folder(folder: Path) -> bool:
    """Return whether a folder holds what `write` writes and nothing else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return INDEX in names and all(name == INDEX or name.endswith(".safetensors") for name in names)


def given(path: str) -> Start:
    """Return what `read` does; a process reads the same files once."""
    where = Path(path)
    stamps = tuple(p.stat().st_mtime_ns for p in (where, where / INDEX) if p.exists())
    return _given(where, stamps)


@functools.lru_cache(maxsize=2)
def _given(path: Path, stamps: tuple[int, ...]) -> Start:
    return read(path)


def n_starts(path: Path) -> int:
    """Return how many networks `read` finds at a path."""
    return len(json.loads(_content(path / INDEX))["replicas"]) if path.is_dir() else 1


def read(path: Path) -> Start:
    """Return the weights to start from: a folder that `export-weights` wrote, or one safetensors file.

    Raises:
        SpecError: There is nothing of the kind, or a file is not the one that was exported.
    """
    if not path.is_dir():
        content = _content(path)
        return Start([_tensors(path, content)], hashlib.sha256(content).hexdigest())
    index = path / INDEX
    try:
        listed = json.loads(_content(index))["replicas"]
        files = {str(row["file"]): str(row["sha256"]) for row in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f"weights: {index} is not what export-weights writes: export them again") from error
    if not files:
        raise SpecError(f"weights: {index} lists no replica: export them again")
    replicas, sha = [], hashlib.sha256()
    for name, digest in files.items():
        content = _content(path / Path(name).name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise SpecError(f"weights: {path / name} is not what was exported (its sha256 differs): export them again")
        replicas.append(_tensors(path / name, content))
        sha.update(digest.encode())
    return Start(replicas, sha.hexdigest())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(
            f"weights: {path} cannot be read ({error.strerror}): give a folder that export-weights wrote, or one of "
            "its .safetensors files"
        ) from error


def _tensors(path: Path, content: bytes) -> dict[str, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if content.startswith(PICKLES):
        raise SpecError(
            f"weights: {path} is a file of torch.save, a pickle, which is not opened here: turn it into a safetensors "
            "file once, by the command in the README"
        )
    try:
        return load(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise SpecError(f"weights: {path} is no safetensors file that numpy can hold: {error}") from error
