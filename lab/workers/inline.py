"""The engine that trains in the coordinator's own process."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate
from lab.workers.engine import Engine
from lab.workers.worker import one_thread


class InlineEngine(Engine):
    """One task after the other, in this process: for GPUs, smoke runs, tests and debuggers."""

    capacity = 1

    def __init__(self, home: Home, *, device: str = "cpu", tick: Callable[[], None] | None = None) -> None:
        self._home, self._tick = home, tick
        self._waiting: deque[Task] = deque()
        if device == "cpu":
            one_thread()  # as in a worker process: the same bits come out of both engines

    def submit(self, task: Task) -> None:
        """Keep the task until `next_done`."""
        self._waiting.append(task)

    def next_done(self, timeout: float) -> tuple[Task, Path] | None:
        """Carry out the task that waits longest, however long that takes."""
        if not self._waiting:
            return None
        task = self._waiting.popleft()
        return task, evaluate(task, self._home, tick=self._tick)

    @property
    def n_open(self) -> int:
        """Tasks that wait."""
        return len(self._waiting)
