"""What an engine is: something that carries out tasks."""

from abc import ABC, abstractmethod
from pathlib import Path

from lab.task import Task

MAX_ATTEMPTS = 3  # of a task whose worker dies under it; attempts go on counting when a study is resumed


def is_last_attempt(task: Task) -> bool:
    """Return whether a task whose worker died under it is set aside, instead of given to another."""
    return task.attempt % MAX_ATTEMPTS == 0


class Engine(ABC):
    """Carries out tasks. Done tasks come in any order; each task that was submitted comes out once."""

    capacity: int  # tasks under way that keep every worker busy

    def start(self) -> None:  # noqa: B027
        """Begin to start up; without this, the first `submit` does."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Take a task on."""

    @abstractmethod
    def next_done(self, timeout: float) -> tuple[Task, Path] | None:
        """Return a task and its outcome's directory; None if none was done within `timeout` seconds.

        Raises:
            LabError: No task can be carried out (a data set is missing, a disk full).
        """

    @property
    @abstractmethod
    def n_open(self) -> int:
        """Tasks that were submitted and have not come out yet."""

    def close(self) -> None:  # noqa: B027
        """Stop at once; what is not done is dropped."""
