"""The engine of Ray tasks, for several machines: the same small interface, one Ray task a trial.

On GPUs a Ray task carries out several trials of equal shape in one pack, as a local worker does. Ray places the tasks;
counting attempts is left to the lab, so its own retries are off. A machine needs the lab installed and the study file
and the data under the same paths; the outcome travels back as bytes, so no folder has to be shared. Ray core only,
none of its other libraries.
"""

import contextlib
import logging
import os
import re
import signal
import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab import spool
from lab.errors import LabError, SpecError
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate_together, write_failure
from lab.workers.bundles import GPU_WINDOW, take_share
from lab.workers.engine import MAX_ATTEMPTS, Engine, is_last_attempt
from lab.workers.worker import keep_memory, one_thread

OBJECT_STORE_BYTES = 256 * 2**20  # of a cluster started here: outcomes of some megabytes pass through it


@dataclass
class RayEngine(Engine):
    """Trials as Ray tasks: one CPU core each, and one GPU each if they train on one.

    On GPUs the trials that wait are shared out over those that are free, those of equal shape together; a task that
    died with its company is tried again alone.

    Args:
        home: The project folder of the coordinator.
        n_workers: Tasks that may run at once; 0 for as many as the cluster has room for.
        device: What the tasks train on, on their machines.
        address: Of a running cluster; None starts one on this machine, which ends with this process.
    """

    home: Home
    n_workers: int = 0
    device: str = "cpu"
    address: str | None = None
    _waiting: deque[Task] = field(default_factory=deque)
    _running: dict[Any, list[Task]] = field(default_factory=dict)
    _done: deque[tuple[Task, Path]] = field(default_factory=deque)
    _remote: Any = None

    def start(self) -> None:
        """Connect to the cluster, or start one.

        Raises:
            SpecError: Ray is not installed, or no cluster answers at the address.
        """
        if self._remote is not None:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # what Ray will make the default: without it, a task without GPUs hides none from its program
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise SpecError("--engine ray needs Ray: python -m pip install 'ray>=2.40,<3'") from None
        where = self.address or "local"
        _probe(where)
        options: dict[str, Any] = {}
        if self.address is None:
            options = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            options |= {"num_cpus": self.n_workers} if self.n_workers else {}
        with _signals_kept():
            try:
                ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, **options)
            except (ConnectionError, ValueError, RuntimeError) as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise SpecError(f"--ray-address {where}: no Ray cluster can be used: {first}") from None
        n_gpus = 1 if self.device.startswith("cuda") else 0
        self._remote = ray.remote(max_retries=0, num_cpus=1, num_gpus=n_gpus)(_evaluate)

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Trials under way that keep the cluster busy, as large as it is now; on CPUs one more waits."""
        return self._room * GPU_WINDOW if self._gathers else self._room + 1

    @property
    def _gathers(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def _room(self) -> int:
        """Ray tasks that the cluster, as large as it is now, carries out at once."""
        import ray

        self.start()
        resource = "GPU" if self.device.startswith("cuda") else "CPU"
        room = max(1, int(ray.cluster_resources().get(resource, 1)))  # a cluster that grows has none at first
        return min(room, self.n_workers) if self.n_workers else room

    def submit(self, task: Task) -> None:
        """Hand the trial to Ray; on GPUs it waits for company until `next_done`."""
        self.start()
        self._waiting.append(task)
        if not self._gathers:
            self._hand_over([self._waiting.popleft()])

    def _hand_over(self, tasks: list[Task]) -> None:
        self._running[self._remote.remote(tasks)] = tasks

    @property
    def n_open(self) -> int:
        """Trials that wait, that Ray has, or that have come out and were not fetched."""
        return len(self._waiting) + sum(map(len, self._running.values())) + len(self._done)

    def next_done(self, timeout: float) -> tuple[Task, Path] | None:
        """Wait for a Ray task; those whose process or machine died are handed to Ray again."""
        import ray

        if self._waiting:
            for n_free in range(self._room - len(self._running), 0, -1):
                if self._waiting:
                    self._hand_over(take_share(self._waiting, n_free))
        if not self._done and self._running:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
            for reference in ready:
                self._fetch(reference)
        return self._done.popleft() if self._done else None

    def _fetch(self, reference: Any) -> None:
        import ray

        tasks = self._running.pop(reference)
        try:
            kind, content = ray.get(reference)
        except ray.exceptions.RayError as error:
            for task in tasks:
                self._try_again(task, type(error).__name__)
            return
        if kind == "error":
            raise content
        for task, (manifest, files) in zip(tasks, content, strict=True):
            self._done.append((task, _write(self.home, task, manifest, files)))

    def _try_again(self, task: Task, how: str) -> None:
        if is_last_attempt(task):
            reason = f"its Ray task died {MAX_ATTEMPTS} times, last by {how}"
            self._done.append((task, write_failure(task, self.home, reason)))
        else:
            self.submit(replace(task, attempt=task.attempt + 1))

    def close(self) -> None:
        """Cancel what is under way and leave the cluster; one that was started here ends."""
        if self._remote is None:
            return
        import ray

        for reference in self._running:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)
        self._running.clear()
        self._waiting.clear()
        self._remote = None
        ray.shutdown()


def _probe(address: str) -> None:
    """Refuse an address where nothing listens: Ray 2.60 itself went on trying for more than five minutes (n = 1)."""
    found = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        raise SpecError(f"--ray-address {address}: no Ray cluster can be used: {error}") from None


def _write(home: Home, task: Task, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
    return spool.write_outcome(
        home, task.study, task.phase, task.number, files, status=manifest["status"], reason=manifest["reason"],
        attempt=manifest["attempt"], started=manifest["started"], finished=manifest["finished"],
    )  # fmt: skip


def _evaluate(tasks: list[Task]) -> tuple[str, Any]:
    """Train trials on a machine of the cluster; return their outcomes as bytes, or the error that ends the study."""
    if tasks[0].device == "cpu":
        one_thread()
        keep_memory()
    try:
        with tempfile.TemporaryDirectory() as folder:
            outcomes = [spool.read_outcome(path) for path in evaluate_together(tasks, Home(Path(folder)))]
            return "done", [(dict(outcome.manifest), dict(outcome.contents)) for outcome in outcomes]
    except LabError as error:
        return "error", error


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handlers that Ray replaces: Ctrl-C and SIGTERM are the coordinator's."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # only the main thread has handlers
            for number, handler in kept.items():
                signal.signal(number, handler)
