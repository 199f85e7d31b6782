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
    """Write an empty outcome for each task. The task's config says what goes wrong: see the keys below."""
    home = Home(Path(home_root))
    if (home.root / "stillborn").exists():
        os._exit(7)
    (home.root / f"pid-{os.getpid()}").touch()
    with contextlib.suppress(EOFError, OSError):
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            config = task.config
            time.sleep(config.get("seconds", 0.0))
            deadline = time.monotonic() + 30.0
            while len(list(home.root.glob("pid-*"))) < config.get("company", 0) and time.monotonic() < deadline:
                time.sleep(0.01)  # on a busy machine one worker can be through before the other has started
            if task.attempt <= config.get("deaths", 0):
                os.kill(os.getpid(), signal.SIGKILL)
            if "error" in config:
                pipe.send(("error", config["error"]))
                continue
            done = spool.write_outcome(
                home, task.study, task.phase, task.number, {"config.json": b"{}"},
                status="finished", attempt=task.attempt, started=0.0, finished=1.0,
            )  # fmt: skip
            if config.get("mute"):  # it dies after its outcome is written, before it says so
                os.kill(os.getpid(), signal.SIGKILL)
            pipe.send(("done", str(done)))
