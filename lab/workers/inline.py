"""The engine that trains in the coordinator's own process."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate_together
from lab.workers.bundles import GPU_WINDOW, take_bundle
from lab.workers.engine import Engine
from lab.workers.worker import one_thread


class InlineEngine(Engine):
    """One task after the other, in this process: for GPUs, smoke runs, tests and debuggers.

    On a GPU tasks of equal shape that wait are carried out together. That changes how long a study takes and nothing
    else: a sampler that learns from results has all trials of a round asked before it, however they are trained.
    """

    capacity = 1

    def __init__(self, home: Home, *, device: str = "cpu", tick: Callable[[], None] | None = None) -> None:
        self._home, self._tick = home, tick
        if device.startswith("cuda"):
            self.capacity = GPU_WINDOW
        self._waiting: deque[Task] = deque()
        self._done: deque[tuple[Task, Path]] = deque()
        if device == "cpu":
            one_thread()  # as in a worker process: the same bits come out of both engines

    def submit(self, task: Task) -> None:
        """Keep the task until `next_done`."""
        self._waiting.append(task)

    def next_done(self, timeout: float) -> tuple[Task, Path] | None:
        """Carry out the task that waits longest, with those of its shape, however long that takes."""
        if not self._done and self._waiting:
            bundle = take_bundle(self._waiting)
            self._done.extend(zip(bundle, evaluate_together(bundle, self._home, tick=self._tick), strict=True))
        return self._done.popleft() if self._done else None

    @property
    def n_open(self) -> int:
        """Tasks that wait, or have come out and were not fetched."""
        return len(self._waiting) + len(self._done)
