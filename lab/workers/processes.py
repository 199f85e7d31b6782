"""The engine of local worker processes, supervised by the coordinator."""

import contextlib
import itertools
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_context, resource_tracker
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
from lab.workers.bundles import GPU_WINDOW, take_share
from lab.workers.engine import MAX_ATTEMPTS, Engine, is_last_attempt
from lab.workers.worker import worker_main

STOPPED_SECONDS = 3.0  # that a worker may be stopped (SIGSTOP) before its task goes to another
LOOK_SECONDS = 0.5  # between two looks at which workers are stopped
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(eq=False)
class _Worker:
    number: int  # of its place; who takes its place has it too
    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    tasks: list[Task] = field(default_factory=list)  # what it was given: one, or several of equal shape
    stopped: float = 0.0  # seconds that it has been seen stopped


@dataclass
class ProcessEngine(Engine):
    """Local worker processes, one torch thread each; with several GPUs, worker k has GPU k modulo their number.

    On GPUs a worker gets tasks of equal shape together, no more than its share of those that wait. A worker that dies
    is noticed at once, one that is stopped after `STOPPED_SECONDS`; its tasks go to the next free ones, each at most
    `MAX_ATTEMPTS` times, then it is reported as failed. A stopped worker that is continued later ends by itself, and
    what it may still bring is of an earlier attempt, which the spool refuses. Workers end when this process does,
    however it ends.
    """

    home: Home
    n_workers: int
    device: str = "cpu"
    n_gpus: int = 1  # that the workers share out; 1: all train on `device`
    main: Callable[..., None] | None = None  # what a worker runs; replaced in tests
    _workers: list[_Worker] = field(default_factory=list)
    _waiting: deque[Task] = field(default_factory=deque)
    _done: deque[tuple[Task, Path]] = field(default_factory=deque)
    _stillborn: int = 0  # workers in a row that died before they were ready
    _let_go: list[_Worker] = field(default_factory=list)  # stopped ones that were replaced
    _looked: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self.capacity = self.n_workers + 1  # one waits, so that a worker never does
        if self.device.startswith("cuda"):
            self.capacity = self.n_workers * GPU_WINDOW

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
        taken = {worker.number for worker in self._workers}
        number = next(k for k in itertools.count() if k not in taken)
        with _environment_of_workers(self._gpu_of(number)):
            process.start()
        theirs.close()  # so that the pipe breaks when the worker dies
        return _Worker(number, process, ours)

    def _gpu_of(self, number: int) -> str | None:
        """Return the only GPU that a worker sees, in the words of CUDA_VISIBLE_DEVICES; None: all that there are."""
        if self.n_gpus < 2:
            return None
        allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = allowed.split(",") if allowed else [str(k) for k in range(self.n_gpus)]
        return names[number % self.n_gpus].strip()

    def submit(self, task: Task) -> None:
        """Give the task to a free worker, or queue it; on GPUs it waits for company until `next_done`."""
        self.start()
        self._waiting.append(task)
        if not self.device.startswith("cuda"):
            self._dispatch()

    def _dispatch(self) -> None:
        idle = [worker for worker in self._workers if not worker.tasks]
        n_idle = len(idle)  # those that are still starting up get their share as well
        for worker in [worker for worker in idle if worker.ready]:
            if self._waiting:
                worker.tasks = take_share(self._waiting, n_idle)
                n_idle -= 1
                with contextlib.suppress(OSError):  # a worker that is dead already is found by its sentinel
                    worker.pipe.send(worker.tasks)

    @property
    def n_open(self) -> int:
        """Tasks that wait, are being trained, or have come out and were not fetched."""
        return len(self._waiting) + len(self._done) + sum(len(worker.tasks) for worker in self._workers)

    def next_done(self, timeout: float) -> tuple[Task, Path] | None:
        """Wait for workers; feed those that are free before anything else."""
        end = monotonic() + timeout
        while not self._done:
            if not self.n_open:
                return None
            self._dispatch()
            by_handle: dict[Any, _Worker] = {}
            for worker in self._workers:
                by_handle |= {worker.pipe: worker, worker.process.sentinel: worker}
            left = max(0.0, end - monotonic())
            heard = connection.wait(list(by_handle), timeout=min(left, LOOK_SECONDS))
            for worker in {id(w): w for w in (by_handle[handle] for handle in heard)}.values():
                self._hear(worker)
            self._look()
            if not heard and left <= LOOK_SECONDS and not self._done:
                return None
        self._dispatch()
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
            self._done.extend(zip(worker.tasks, map(Path, content), strict=True))
            worker.tasks = []

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
        for task in reversed(worker.tasks):
            self._give_again(task, how)
        if self.n_open:
            self.start()

    def _give_again(self, task: Task, how: str) -> None:
        written = self.home.outcome_of(task.study, task.key)
        if spool.attempt_of(written) == task.attempt:  # the worker was lost between writing the outcome and saying so
            self._done.append((task, written))
        elif is_last_attempt(task):
            reason = f"its worker process was lost {MAX_ATTEMPTS} times, last by {how}"
            self._done.append((task, write_failure(task, self.home, reason)))
        else:
            self._waiting.appendleft(replace(task, attempt=task.attempt + 1))

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
def _environment_of_workers(gpu: str | None) -> Iterator[None]:
    """While a worker is started: its GPU, one thread for its linear algebra, and no Ctrl-C (the coordinator's)."""
    variables = dict.fromkeys(_THREAD_VARIABLES, "1") | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    masks = hasattr(signal, "pthread_sigmask")
    if masks:  # inherited, so that the worker is deaf from its first instruction on
        resource_tracker.ensure_running()  # which lifts the mask as it starts that process of Python's (3.11)
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
