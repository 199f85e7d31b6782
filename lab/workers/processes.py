"""The engine of local worker processes, supervised by the coordinator."""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from time import monotonic
from typing import Any

from lab import spool
from lab.errors import LabError
from lab.storage import Home
from lab.task import Task
from lab.trial import write_failure
from lab.workers.engine import MAX_ATTEMPTS, Engine, is_last_attempt
from lab.workers.worker import worker_main

STOPPED_SECONDS = 3.0  # that a worker may be stopped (SIGSTOP) before its task goes to another
LOOK_SECONDS = 0.5  # between two looks at which workers are stopped
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    task: Task | None = None
    stopped: float = 0.0  # seconds that it has been seen stopped


@dataclass
class ProcessEngine(Engine):
    """Local worker processes, one torch thread each.

    A worker that dies is noticed at once, one that is stopped after `STOPPED_SECONDS`; its task goes to the next free
    one, at most `MAX_ATTEMPTS` times, then it is reported as failed. A stopped worker that is continued later ends by
    itself, and what it may still bring is of an earlier attempt, which the spool refuses. Workers end when this process
    does, however it ends.
    """

    home: Home
    n_workers: int
    main: Callable[..., None] | None = None  # what a worker runs; replaced in tests
    _workers: list[_Worker] = field(default_factory=list)
    _waiting: deque[Task] = field(default_factory=deque)
    _done: deque[tuple[Task, Path]] = field(default_factory=deque)
    _stillborn: int = 0  # workers in a row that died before they were ready
    _let_go: list[_Worker] = field(default_factory=list)  # stopped ones that were replaced
    _looked: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self.capacity = self.n_workers + 1  # one waits, so that a worker never does

    def start(self) -> None:
        """Start the workers that are missing."""
        while len(self._workers) < self.n_workers:
            self._workers.append(self._spawn())

    def _spawn(self) -> _Worker:
        context = get_context("spawn")  # a fork would copy the coordinator's threads' locks and its connections
        ours, theirs = context.Pipe()
        process = context.Process(
            target=self.main or worker_main, args=(theirs, str(self.home.root.resolve())), daemon=True
        )
        with _environment_of_workers():
            process.start()
        theirs.close()  # so that the pipe breaks when the worker dies
        return _Worker(process, ours)

    def submit(self, task: Task) -> None:
        """Give the task to a free worker, or queue it."""
        self.start()
        self._waiting.append(task)
        self._dispatch()

    def _dispatch(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.task is None and self._waiting:
                worker.task = self._waiting.popleft()
                with contextlib.suppress(OSError):  # a worker that is dead already is found by its sentinel
                    worker.pipe.send(worker.task)

    @property
    def n_open(self) -> int:
        """Tasks that wait, are being trained, or have come out and were not fetched."""
        return len(self._waiting) + len(self._done) + sum(worker.task is not None for worker in self._workers)

    def next_done(self, timeout: float) -> tuple[Task, Path] | None:
        """Wait for workers; feed those that are free before anything else."""
        end = monotonic() + timeout
        while not self._done:
            if not self.n_open:
                return None
            by_handle: dict[Any, _Worker] = {}
            for worker in self._workers:
                by_handle |= {worker.pipe: worker, worker.process.sentinel: worker}
            left = max(0.0, end - monotonic())
            heard = connection.wait(list(by_handle), timeout=min(left, LOOK_SECONDS))
            for worker in {id(w): w for w in (by_handle[handle] for handle in heard)}.values():
                self._hear(worker)
            self._look()
            self._dispatch()
            if not heard and left <= LOOK_SECONDS and not self._done:
                return None
        return self._done.popleft()

    def _hear(self, worker: _Worker) -> None:
        with contextlib.suppress(EOFError, OSError):
            while worker.pipe.poll():
                self._message(worker, *worker.pipe.recv())
        if not worker.process.is_alive():
            self._bury(worker)

    def _message(self, worker: _Worker, kind: str, content: Any) -> None:
        if kind == "ready":
            worker.ready, self._stillborn = True, 0
        elif kind == "error":
            raise content
        else:
            assert worker.task is not None
            self._done.append((worker.task, Path(content)))
            worker.task = None

    def _look(self) -> None:
        """Let go of the workers that have been stopped for long.

        While this process is stopped too (Ctrl-Z), time does not count: no more than a second passes between two looks.
        """
        now = monotonic()
        passed, self._looked = min(now - self._looked, 1.0), now
        for worker in list(self._workers):
            worker.stopped = worker.stopped + passed if _is_stopped(worker.process) else 0.0
            if worker.stopped > STOPPED_SECONDS:
                self._let_go.append(worker)
                self._lose(worker, "being stopped")

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= MAX_ATTEMPTS:
                raise LabError(f"worker processes die as they start ({how}): try --engine inline to see why")
        self._lose(worker, how)

    def _lose(self, worker: _Worker, how: str) -> None:
        """Go on without a worker: its pipe is closed, at which it ends if it still can, and another takes its task."""
        worker.pipe.close()
        self._workers.remove(worker)
        task = worker.task
        if task is not None:
            written = self.home.outcome_of(task.study, task.key)
            if spool.attempt_of(written) == task.attempt:  # it died between writing the outcome and saying so
                self._done.append((task, written))
            elif is_last_attempt(task):
                reason = f"its worker process was lost {MAX_ATTEMPTS} times, last by {how}"
                self._done.append((task, write_failure(task, self.home, reason)))
            else:
                self._waiting.appendleft(replace(task, attempt=task.attempt + 1))
        if self.n_open:
            self.start()

    def close(self) -> None:
        """End the workers: they have nothing to save, an outcome is in the spool whole or not at all."""
        for worker in self._let_go:
            worker.process.kill()  # stopped, it would not hear SIGTERM
        for worker in self._workers:
            worker.process.terminate()
        end = monotonic() + 2.0
        for worker in self._workers:
            worker.process.join(max(0.0, end - monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        for worker in self._let_go:
            worker.process.join()
        self._workers.clear()
        self._let_go.clear()
        self._waiting.clear()


def _is_stopped(process: SpawnProcess) -> bool:
    """Ask the system whether a child is stopped: no long epoch is taken for it, as a silence could be."""
    if not hasattr(os, "waitid") or process.pid is None:  # before Python 3.13 macOS lacks it
        return False
    with contextlib.suppress(ChildProcessError):  # it has ended
        return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    return False


@contextlib.contextmanager
def _environment_of_workers() -> Iterator[None]:
    """While a worker is started: one thread for its linear algebra, and no Ctrl-C (that is the coordinator's)."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    masks = hasattr(signal, "pthread_sigmask")
    if masks:  # inherited, so that the worker is deaf from its first instruction on
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
