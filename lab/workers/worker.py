"""What runs in a worker process: it trains, and knows neither Optuna nor MLflow."""

import contextlib
import os
import signal
import sys
import threading
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate_together


def worker_main(pipe: Connection, home_root: str) -> None:
    """Run a worker process: say "ready", then train one bundle of tasks after the other until the pipe breaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout may be the coordinator's JSON
    bundles: deque[list[Task]] = deque()
    wake = threading.Semaphore(0)

    def listen() -> None:
        # the pipe breaks the moment the coordinator ends, even by SIGKILL; training is then worth nothing
        with contextlib.suppress(EOFError, OSError):
            while True:
                bundles.append(pipe.recv())
                wake.release()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    import_heavy()
    one_thread()
    keep_memory()
    home = Home(Path(home_root))
    answer: tuple[str, Any] = ("ready", None)
    while True:
        try:
            pipe.send(answer)
        except OSError:
            os._exit(0)
        wake.acquire()
        try:
            answer = ("done", [str(path) for path in evaluate_together(bundles.popleft(), home)])
        except LabError as error:
            answer = ("error", error)


def import_heavy() -> None:
    """Import what the first task needs while the coordinator opens its databases."""
    import pyarrow.parquet  # noqa: F401

    import lab.analysis.decomposition
    import lab.data.datasets
    import lab.training  # noqa: F401


def keep_memory() -> None:
    """Keep what a step has freed for the next one."""
    from lab.training.allocator import keep_freed_memory

    keep_freed_memory()


def one_thread() -> None:
    """Train on one thread: the same bits then come out of every engine."""
    import torch

    torch.set_num_threads(1)
