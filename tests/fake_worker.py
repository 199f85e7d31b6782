"""What a worker process runs in tests of the supervision: no torch, no training, and death on demand."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from lab import spool
from lab.storage import Home


def main(pipe: Any, home_root: str) -> None:
    """Write an empty outcome for each task. The task's spec says what goes wrong: see the keys below."""
    home = Home(Path(home_root))
    if (home.root / "stillborn").exists():
        os._exit(7)
    (home.root / f"pid-{os.getpid()}").touch()
    with contextlib.suppress(EOFError, OSError):
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            trouble = task.spec.get("trouble", {})
            time.sleep(trouble.get("seconds", 0.0))
            deadline = time.monotonic() + 30.0
            while len(list(home.root.glob("pid-*"))) < trouble.get("company", 0) and time.monotonic() < deadline:
                time.sleep(0.01)  # on a busy machine one worker can be through before the other has started
            if task.attempt <= trouble.get("deaths", 0):
                os.kill(os.getpid(), signal.SIGKILL)
            if "error" in trouble:
                pipe.send(("error", trouble["error"]))
                continue
            done = spool.write_outcome(
                home, task.study, task.phase, task.number, {"config.json": b"{}"},
                status="finished", attempt=task.attempt, started=0.0, finished=1.0,
            )  # fmt: skip
            if trouble.get("mute"):  # it dies after its outcome is written, before it says so
                os.kill(os.getpid(), signal.SIGKILL)
            pipe.send(("done", str(done)))
