"""Publishing while a study runs: into a database at once, to a tracking server beside the training.

A server may be slow or away, and training never waits for it: a thread sends what lies in the spool, rests after a
failure, and what could not be sent by the end stays in the spool for `publish`, or for the next `run`.
"""

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from lab import interrupts
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.tracking import Tracker

REST_SECONDS = 30.0  # after a failure; doubled after each further one
MAX_REST_SECONDS = 300.0
STOP_SECONDS = 5.0  # for the run that is being sent when a study is interrupted
Published = tuple[Path, str]  # the directory of an outcome, the id of its run


class Publisher(ABC):
    """Sends outcomes to MLflow; each comes out as published once, now or later."""

    error = ""  # why the last attempt failed

    @abstractmethod
    def publish(self, outcome: Path) -> None:
        """Take an outcome on. Its files are not touched before it comes out of `published`."""

    @abstractmethod
    def published(self) -> list[Published]:
        """Return what was published since this was last called.

        Raises:
            LabError: Nothing can be published here, now or later.
        """

    @abstractmethod
    def run_ids(self) -> Mapping[str, str] | None:
        """Return key → run id of all trials in the run history; None if it has not been reached yet."""

    def finish(self) -> None:  # noqa: B027
        """Wait until everything is published, or a failure shows that it cannot be now."""

    @abstractmethod
    def close(self) -> None:
        """Stop; what is not published stays in the spool."""


class DirectPublisher(Publisher):
    """Publishes in this thread, into a database: what the search learns of is safe."""

    def __init__(self, tracker: "Tracker") -> None:
        self._tracker = tracker
        self._published: list[Published] = []

    def publish(self, outcome: Path) -> None:
        """Publish it."""
        self._published.append((outcome, self._tracker.publish(outcome)))

    def published(self) -> list[Published]:
        """Return what was published since this was last called."""
        done, self._published = self._published, []
        return done

    def run_ids(self) -> Mapping[str, str]:
        """Return key → run id."""
        return self._tracker.run_ids()

    def close(self) -> None:
        """Release the database."""
        self._tracker.close()


class BackgroundPublisher(Publisher):
    """Publishes in a thread of its own, to a server.

    `check` gets the server's run ids once, before anything is sent: it raises if they belong to another history.
    """

    def __init__(self, open_tracker: "Callable[[], Tracker]", check: Callable[[Mapping[str, str]], None]) -> None:
        self._open, self._check = open_tracker, check
        self._todo: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Published] = queue.SimpleQueue()
        self._run_ids: dict[str, str] | None = None
        self._refused: BaseException | None = None
        self._stop, self._hurry, self._settled = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, outcome: Path) -> None:
        """Queue it."""
        self._settled.clear()
        self._todo.put(outcome)

    def published(self) -> list[Published]:
        """Return what was published since this was last called."""
        if self._refused is not None:
            raise self._refused
        return [self._done.get() for _ in range(self._done.qsize())]

    def run_ids(self) -> Mapping[str, str] | None:
        """Return key → run id, None before the server has answered."""
        return None if self._run_ids is None else dict(self._run_ids)

    def finish(self) -> None:
        """Send the rest now, rest or not."""
        self._hurry.set()
        self._todo.put(None)  # wakes the thread
        while self._thread.is_alive() and not self._settled.wait(0.2):
            interrupts.check()

    def close(self) -> None:
        """Let the run end that is being sent, and stop."""
        self._stop.set()
        self._hurry.set()
        self._todo.put(None)
        self._thread.join(STOP_SECONDS)

    def _work(self) -> None:
        tracker: Tracker | None = None
        waiting: list[Path] = []
        rest, not_before = REST_SECONDS, 0.0
        try:
            while not self._stop.is_set():
                waiting += self._fetch(max(0.0, not_before - monotonic()) if waiting else None)
                hurried = self._hurry.is_set()
                if monotonic() < not_before and not hurried:
                    continue
                try:
                    if tracker is None:
                        tracker = self._open()
                        run_ids = tracker.run_ids()
                        self._check(run_ids)
                        self._run_ids = run_ids
                    while waiting and not self._stop.is_set():
                        run_id = tracker.publish(waiting[0])
                        self._done.put((waiting.pop(0), run_id))
                        rest = REST_SECONDS
                    self.error = ""
                except LabError as error:
                    if tracker is not None and self._run_ids is None:
                        raise  # the check's
                    self.error = str(error)
                    not_before, rest = monotonic() + rest, min(2 * rest, MAX_REST_SECONDS)
                if hurried:
                    self._settled.set()
        except BaseException as error:
            self._refused = error
        finally:
            self._settled.set()
            if tracker is not None:
                tracker.close()

    def _fetch(self, timeout: float | None) -> list[Path]:
        """Return what is queued; wait for something, up to `timeout` seconds."""
        found: list[Path | None] = []
        try:
            found.append(self._todo.get(timeout=timeout))
            while True:
                found.append(self._todo.get_nowait())
        except queue.Empty:
            return [path for path in found if path is not None]
