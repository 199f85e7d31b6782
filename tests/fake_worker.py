"""What a worker process runs in tests of the supervision: no torch, no training, and death on demand."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from lab import spool
from lab.errors import LabError
from lab.storage import Home
from tests.waiting import until


def main(pipe: Any, home_root: str) -> None:
    """Write an empty outcome for each task of a bundle. The task's spec says what goes wrong: see the keys below."""
    home = Home(Path(home_root))
    if (home.root / "stillborn").exists():
        os._exit(7)
    seen = home.root / f"seen-{os.getpid()}"
    seen.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    seen.rename(home.root / f"pid-{os.getpid()}")  # whoever sees it finds it filled
    with contextlib.suppress(EOFError, OSError):
        pipe.send(("ready", None))
        while True:
            bundle = pipe.recv()
            with (home.root / f"bundles-{os.getpid()}").open("a") as file:
                file.write(f"{' '.join(str(task.number) for task in bundle)}\n")
            try:
                pipe.send(("done", [str(_carried_out(task, home)) for task in bundle]))
            except LabError as error:
                pipe.send(("error", error))


def gate(home: Home, attempt: int) -> Path:
    """Return the file at whose appearance an attempt that is `held` goes on: no test of an order counts on speed."""
    return home.root / f"gate-{attempt}"


def _carried_out(task: Any, home: Home) -> Path:
    trouble = task.spec.get("trouble", {})
    time.sleep(trouble.get("seconds", 0.0))
    if task.attempt in trouble.get("held", ()):
        until(gate(home, task.attempt).exists)
    # on a busy machine one worker can be through before the other has started
    until(lambda: len(list(home.root.glob("pid-*"))) >= trouble.get("company", 0))
    if task.number == trouble.get("victim", task.number) and task.attempt <= trouble.get("deaths", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if "error" in trouble:
        raise trouble["error"]
    done = spool.write_outcome(
        home, task.study, task.phase, task.number, {"config.json": b"{}"},
        status="finished", attempt=task.attempt, started=0.0, finished=1.0,
    )  # fmt: skip
    if trouble.get("mute"):  # it dies after its outcome is written, before it says so
        os.kill(os.getpid(), signal.SIGKILL)
    return done
