"""A task: what the coordinator asks a worker to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab import spool
from lab.pruning import Rival
from lab.spec import Replication


@dataclass(frozen=True)
class Task:
    """All that a worker needs to know of a trial, as plain values: it travels between processes.

    `spec` is `Study.to_dict()`. `study_file` is the path of the study's Python file, where data set and model family
    may be defined. `attempt` grows: of two outcomes of a trial, the one of the later attempt counts. `asked` is what
    the command said that the study's stored name does not: a report's commands need it (lab.commands).
    """

    study: str
    spec: Mapping[str, Any]
    phase: str
    number: int
    config: Mapping[str, Any]
    first_resample: int = 0
    first_init: int = 0
    first_noise: int = 0
    device: str = "cpu"
    data_dir: str | None = None
    study_file: str | None = None
    asked: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    variant: str | None = None  # its name, in a study of variants
    rival: Rival | None = None  # in a study that prunes, of trials after the first round

    @property
    def key(self) -> str:
        """The name of its outcome, e.g. "explore-0007"."""
        return spool.make_key(self.phase, self.number)

    @property
    def replication(self) -> Replication:
        """How often the trial is repeated."""
        return Replication(**self.spec["replication"])
