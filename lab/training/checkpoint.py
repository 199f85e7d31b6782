"""Checkpoints: what a training goes on from after its process has died, on the disk whole or not at all.

A checkpoint is one safetensors file; what is not a tensor is JSON in its header. Its name holds the sha256 of its
content, which is compared before anything is parsed, and the one before it is kept: if the newest is damaged, training
goes on from there. Checkpoints of another configuration, data set or edition of torch are not used.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor

from lab import failpoints
from lab.files import replacing, write_synced

SECONDS = 10.0  # of training before the first checkpoint, and between two at least
MAX_SHARE = 0.02  # of the training time that writing may take
KEPT = 2
_NAME = re.compile(r"([0-9]{6})-([0-9a-f]{64})\.safetensors")


def _seconds() -> float:
    return float(os.environ.get("LAB_CHECKPOINT_SECONDS", SECONDS))


@dataclass(frozen=True)
class Checkpoint:
    """What was read back: tensors by name, and the record that was written beside them."""

    tensors: Mapping[str, Tensor]
    record: Any


@dataclass
class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    `identity` is whatever the training depends on, as plain JSON values: what was written under another one is not
    read. `note` says what the user should know. `LAB_CHECKPOINT_SECONDS` changes how often one is written.
    """

    folder: Path
    identity: Mapping[str, Any]
    note: Callable[[str], None] = print
    seconds: float = field(default_factory=_seconds)
    _serial: int = 0
    _due: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self._due = monotonic() + self.seconds

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None if there is none."""
        for serial, digest, path in self._files():
            self._serial = max(self._serial, serial)
            try:
                content = b"" if path.is_symlink() else path.read_bytes()
            except OSError as error:
                self.note(f"{path} cannot be read ({error.strerror}): training goes on from an earlier state")
                continue
            if hashlib.sha256(content).hexdigest() != digest:
                self.note(f"{path} is damaged (its sha256 differs): training goes on from an earlier state")
                continue
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            if json.loads(header["identity"]) != self.identity:
                self.note(f"{path} is of another configuration or edition: training begins anew")
                return None
            from safetensors.torch import load

            tensors = load(content)
            # in the order in which they were given: the file has one of its own
            return Checkpoint(
                {name: tensors[name] for name in json.loads(header["names"])}, json.loads(header["record"])
            )
        return None

    def offer(self, take: Callable[[], tuple[Mapping[str, Tensor], Any]]) -> None:
        """Write a checkpoint of what `take` returns (tensors, a record), if one is due."""
        if monotonic() >= self._due:
            self.put(take)

    def put(self, take: Callable[[], tuple[Mapping[str, Tensor], Any]]) -> None:
        """Write a checkpoint of what `take` returns (tensors, a record), whether or not one is due."""
        started = monotonic()
        try:
            self._write(*take())
        except OSError as error:  # the disk is full: training can do without, its outcome will say so if it stays full
            where = error.filename or self.folder
            self.note(f"no checkpoint could be written: {error.strerror or error} ({where}); training goes on")
        took = monotonic() - started
        self._due = started + took + max(self.seconds, took * (1 / MAX_SHARE - 1) if self.seconds else 0.0)

    def _write(self, tensors: Mapping[str, Tensor], record: Any) -> None:
        from safetensors.torch import save

        header = {"identity": json.dumps(self.identity), "record": json.dumps(record), "names": json.dumps([*tensors])}
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)
        self._serial += 1
        path = self.folder / f"{self._serial:06d}-{hashlib.sha256(content).hexdigest()}.safetensors"
        with replacing(path) as temporary:
            failpoints.hit("checkpoint.write")
            write_synced(temporary, content)
            failpoints.hit("checkpoint.rename")
        for _, _, old in self._files()[KEPT:]:
            old.unlink(missing_ok=True)
        for left in self.folder.glob(".*.tmp"):  # by a process that was killed as it wrote
            left.unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, str, Path]]:
        """Return serial, digest and path of each, the newest first."""
        if not self.folder.is_dir():
            return []
        found = [(match, path) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))]
        return sorted(((int(match[1]), match[2], path) for match, path in found), reverse=True)


def damage(folder: Path) -> tuple[int, list[str]]:
    """Return how many checkpoints a folder holds, and a line for each that is damaged."""
    files = Checkpoints(folder, {})._files()
    return len(files), [
        f"{path} is damaged: its sha256 differs"
        for _, digest, path in files
        if path.is_symlink() or hashlib.sha256(path.read_bytes()).hexdigest() != digest
    ]
