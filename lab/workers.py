"""Engines: how tasks are carried out. `inline` in this process, or `process`: local worker processes, supervised.

Both stand behind `Engine`: `submit` a task, ask for the `next_done` outcome, `close`. Workers only train and write
outcomes to the spool (lab.trial); they never see Optuna or MLflow.
"""

import contextlib
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from time import monotonic
from typing import Any

from lab.errors import LabError, SpecError
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate, write_failure

__all__ = ["Engine", "InlineEngine", "ProcessEngine", "Task", "choose_device", "choose_engine", "evaluate"]

ENGINES = ("inline", "process")
MAX_ATTEMPTS = 3  # of a task whose worker dies under it
MAX_WORKERS = 8  # by default: beyond, memory (about 0.4 GB a worker) is what a small machine lacks first
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


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


def choose_device(name: str = "auto") -> str:
    """Return the device to train on: "auto" takes cuda, then mps, then cpu.

    Raises:
        SpecError: Unknown, or not on this machine.
    """
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"  # without torch: the coordinator of a CPU study needs it for nothing else, and it takes 0.3 GB
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise SpecError(f"--device {name!r} is unknown: choose auto, cpu, cuda, cuda:0 … or mps") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"--device {name}: this machine has no usable CUDA GPU: choose cpu")
    if kind == "cuda" and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise SpecError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA GPUs, counted from 0")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SpecError(f"--device {name}: this machine has no usable MPS device: choose cpu")
    if kind not in ("cpu", "cuda", "mps"):
        raise SpecError(f"--device {name!r} is not supported: choose cpu, cuda or mps")
    return name


def _may_have_gpu() -> bool:
    """Return False where torch could not find a GPU: on Linux without a device node of any driver that it knows."""
    if sys.platform != "linux":
        return True
    nodes = ("nvidiactl", "nvhost-ctrl", "nvmap", "dxg", "kfd")  # CUDA, Jetson (2), CUDA in WSL, ROCm
    return any(Path("/dev", node).exists() for node in nodes)


def choose_engine(engine: str | None, n_workers: int | None, *, device: str, smoke: bool) -> tuple[str, int]:
    """Return the engine and the number of workers, with defaults where none are asked for.

    One process for a GPU (its packs fill it), for smoke runs (they end before workers have started) and for one
    worker; else one a CPU core, at most `MAX_WORKERS`.

    Raises:
        SpecError: An unknown engine, or a number of workers that it cannot have.
    """
    if engine is not None and engine not in ENGINES:
        raise SpecError(f"--engine {engine!r} is unknown: choose {' or '.join(ENGINES)}")
    if n_workers is not None and not 1 <= n_workers <= 1024:
        raise SpecError(f"--workers {n_workers}: give 1 to 1024")
    if engine == "inline" and n_workers not in (None, 1):
        raise SpecError(f"--engine inline has one worker, not {n_workers}: leave --workers out, or choose process")
    if engine is None:
        small = n_workers == 1 or (n_workers is None and (smoke or device != "cpu"))
        engine = "inline" if small else "process"
    if engine == "inline":
        return engine, 1
    return engine, n_workers or (min(_n_cpus(), MAX_WORKERS) if device == "cpu" else 1)


def _n_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_engine(
    engine: str, n_workers: int, *, home: Home, device: str, tick: Callable[[], None] | None = None
) -> Engine:
    """Return the engine of that name; `tick` is called now and then while it works in this process."""
    if engine == "inline":
        return InlineEngine(home, device=device, tick=tick)
    return ProcessEngine(home, n_workers)


class InlineEngine(Engine):
    """One task after the other, in this process: for GPUs, smoke runs, tests and debuggers."""

    capacity = 1

    def __init__(self, home: Home, *, device: str = "cpu", tick: Callable[[], None] | None = None) -> None:
        self._home, self._tick = home, tick
        self._waiting: deque[Task] = deque()
        if device == "cpu":
            _one_thread()  # as in a worker process: the same bits come out of both engines

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


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    task: Task | None = None


@dataclass
class ProcessEngine(Engine):
    """Local worker processes, one torch thread each.

    A worker that dies is noticed at once; its task goes to the next free one, at most `MAX_ATTEMPTS` times, then it
    is reported as failed. Workers end when this process does, however it ends.
    """

    home: Home
    n_workers: int
    main: Callable[..., None] | None = None  # what a worker runs; replaced in tests
    _workers: list[_Worker] = field(default_factory=list)
    _waiting: deque[Task] = field(default_factory=deque)
    _done: deque[tuple[Task, Path]] = field(default_factory=deque)
    _stillborn: int = 0  # workers in a row that died before they were ready

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
            heard = connection.wait(list(by_handle), timeout=max(0.0, end - monotonic()))
            if not heard:
                return None
            for worker in {id(w): w for w in (by_handle[handle] for handle in heard)}.values():
                self._hear(worker)
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
            assert worker.task is not None
            self._done.append((worker.task, Path(content)))
            worker.task = None

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        worker.pipe.close()
        self._workers.remove(worker)
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= MAX_ATTEMPTS:
                raise LabError(f"worker processes die as they start ({how}): try --engine inline to see why")
        task = worker.task
        if task is not None:
            written = self.home.outcome_of(task.study, task.key)
            if written.is_dir():  # it died between writing the outcome and saying so
                self._done.append((task, written))
            elif task.attempt >= MAX_ATTEMPTS:
                reason = f"its worker process died {task.attempt} times, last by {how}"
                self._done.append((task, write_failure(task, self.home, reason)))
            else:
                self._waiting.appendleft(replace(task, attempt=task.attempt + 1))
        if self.n_open:
            self.start()

    def close(self) -> None:
        """End the workers: they have nothing to save, an outcome is in the spool whole or not at all."""
        for worker in self._workers:
            worker.process.terminate()
        end = monotonic() + 2.0
        for worker in self._workers:
            worker.process.join(max(0.0, end - monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers.clear()
        self._waiting.clear()


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


def worker_main(pipe: Connection, home_root: str) -> None:
    """Run a worker process: say "ready", then train one task after the other until the pipe breaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout may be the coordinator's JSON
    tasks: deque[Task] = deque()
    wake = threading.Semaphore(0)

    def listen() -> None:
        # the pipe breaks the moment the coordinator ends, even by SIGKILL; training is then worth nothing
        with contextlib.suppress(EOFError, OSError):
            while True:
                tasks.append(pipe.recv())
                wake.release()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    _import_heavy()
    _one_thread()
    home = Home(Path(home_root))
    answer: tuple[str, Any] = ("ready", None)
    while True:
        try:
            pipe.send(answer)
        except OSError:
            os._exit(0)
        wake.acquire()
        try:
            answer = ("done", str(evaluate(tasks.popleft(), home)))
        except LabError as error:
            answer = ("error", error)


def _import_heavy() -> None:
    """Import what the first task needs while the coordinator opens its databases."""
    import pyarrow.parquet  # noqa: F401

    import lab.analysis.decomposition
    import lab.data.datasets
    import lab.training  # noqa: F401
