"""Failpoints: named places where a test lets a fault happen. Without `LAB_FAILPOINT` they do nothing.

    LAB_FAILPOINT=publish.metrics:2=kill python -m lab.study run capacity_sweep

kills the process the second time that it passes `publish.metrics`. The place `*` counts passages of all of them. A
failpoint fires once in a process. Actions: `kill` (SIGKILL: no clean-up runs), `raise` (an error that nobody foresaw),
`enospc` (the disk is full), `sleep` or `sleep2.5` (seconds; for a signal or another process to come in between).

Habit of SQLite's and FreeBSD's tests: count k up from 1 until the failpoint no longer fires, then every passage has
been tried.
"""

import errno
import os
import re
import signal
import time
from dataclasses import dataclass

from lab.errors import SpecError

NAMES = (
    "ask", "asked", "suggest", "submit",  # the coordinator hands out a trial
    "epoch", "checkpoint.write", "checkpoint.rename",  # a worker trains it
    "spool.write", "spool.rename", "spool.renamed",  # and hands its outcome over
    "publish", "publish.run", "publish.metrics", "publish.artifact", "publish.end", "published",  # to MLflow
    "tell", "tell.attr", "told", "spool.remove", "spool.removed",  # to Optuna; settled
    "report.write", "report.rename",
)  # fmt: skip
EVERY = "*"
_SPEC = re.compile(
    r"(?P<name>[a-z.]+|\*)(:(?P<k>[1-9]\d{0,8}))?=(?P<action>kill|raise|enospc|sleep(?P<s>\d+(\.\d+)?)?)"
)


class Injected(Exception):
    """The error of the action `raise`."""


@dataclass
class Failpoint:
    """One armed failpoint, and how often its place was passed."""

    name: str
    k: int
    action: str
    seconds: float
    n_passed: int = 0

    def passed(self, name: str) -> None:
        """Count a passage, and fire at the k-th."""
        if self.name not in (name, EVERY):
            return
        self.n_passed += 1
        if self.n_passed == self.k:
            self._fire(name)

    def _fire(self, name: str) -> None:
        if self.action == "kill":
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            time.sleep(60.0)  # the signal may arrive a moment later
        if self.action == "raise":
            raise Injected(f"injected at {name}")
        if self.action == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        time.sleep(self.seconds)

    @property
    def fired(self) -> bool:
        """Whether it has fired."""
        return self.n_passed >= self.k


def parse(text: str) -> Failpoint:
    """Return the failpoint that `name[:k]=action` describes.

    Raises:
        SpecError: It is no such text, or there is no such place.
    """
    match = _SPEC.fullmatch(text)
    if match is None or match["name"] not in (*NAMES, EVERY):
        raise SpecError(
            f"LAB_FAILPOINT = {text!r}: write name[:k]=kill|raise|enospc|sleep with a name of {EVERY}, "
            f"{', '.join(NAMES)}"
        )
    action = "sleep" if match["action"].startswith("sleep") else match["action"]
    return Failpoint(match["name"], int(match["k"] or 1), action, float(match["s"] or 1.0))


_armed: Failpoint | None = None


def arm(text: str | None) -> Failpoint | None:
    """Arm a failpoint in this process in place of the one before; None disarms."""
    global _armed
    _armed = parse(text) if text else None
    return _armed


def hit(name: str) -> None:
    """Pass the place `name`."""
    if _armed is not None:
        assert name in NAMES, name
        _armed.passed(name)


arm(os.environ.get("LAB_FAILPOINT"))
