"""What a running study shows: one line that renews itself on a terminal, a plain line every few seconds elsewhere."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TextIO

PLAIN_SECONDS = 5.0  # between lines where there is no terminal
LIVE_SECONDS = 0.2  # between renewals on a terminal


@dataclass
class Progress:
    """Counts trials and says how far a study is; all of it goes to `stream` (stderr)."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = monotonic
    n_total: int = 0  # tasks of all phases
    n_done: int = 0  # with those of earlier runs
    best: str = ""
    _n_replicas: int = 0  # trained since `begin`
    _n_here: int = 0  # tasks done since `begin`
    _started: float = 0.0
    _shown: float = 0.0
    _line: str = ""
    _said: int = -1  # tasks done when the line was last shown

    def __post_init__(self) -> None:
        self._live = self.stream.isatty() and os.environ.get("TERM", "") != "dumb"
        self._color = self._live and not os.environ.get("NO_COLOR")
        self._started = self._shown = self.clock()

    def note(self, text: str) -> None:
        """Say something once, on a line of its own."""
        self._erase()
        self.stream.write(text + "\n")
        self.stream.flush()

    def begin(self, *, n_done: int, n_total: int) -> None:
        """Start counting."""
        self.n_done, self.n_total = n_done, n_total
        self._started = self._shown = self.clock()

    def done(self, *, n_replicas: int, best: str) -> None:
        """Count a task that was trained just now."""
        self.n_done += 1
        self._n_here += 1
        self._n_replicas += n_replicas
        self.best = best
        self.tick()

    def tick(self) -> None:
        """Show the line if it is time to."""
        now = self.clock()
        if now - self._shown >= (LIVE_SECONDS if self._live else PLAIN_SECONDS):
            self._shown = now
            self._show()

    def end(self) -> None:
        """Show the last state and leave the line."""
        if self._n_here:
            if self._said != self.n_done:
                self._show()
            if self._live:
                self.stream.write("\n")
                self.stream.flush()
                self._line = ""

    def text(self) -> str:
        """Return the line: trials done / total, replicas a second, time left, best so far."""
        parts = [f"{self.n_done}/{self.n_total} trials"]
        seconds = self.clock() - self._started
        if self._n_here and seconds > 0:
            left = seconds / self._n_here * max(0, self.n_total - self.n_done)
            parts += [f"{self._n_replicas / seconds:.1f} replicas/s", f"{duration(left)} left"]
        if self.best:
            parts.append(self.best)
        return " · ".join(parts)

    def _show(self) -> None:
        text, self._said = self.text(), self.n_done
        if not self._live:
            self.stream.write(text + "\n")
        else:
            text = text[: shutil.get_terminal_size().columns - 1]
            # without colours wanted, without escape codes: blanks wipe what a longer line left
            padding = " " * max(0, len(self._line) - len(text))
            self.stream.write(f"\r\x1b[2K\x1b[36m{text}\x1b[0m" if self._color else f"\r{text}{padding}")
            self._line = text
        self.stream.flush()

    def _erase(self) -> None:
        if self._line:
            self.stream.write("\r\x1b[2K" if self._color else "\r" + " " * len(self._line) + "\r")
            self._line = ""


def duration(seconds: float) -> str:
    """Return a duration as people say it: "8 s", "2 min 5 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def best_text(objective: str | list[str], values: Mapping[str, Any], number: int) -> str:
    """Return how the best trial so far does, with its interval, e.g. "best val_risk 0.112 [0.101, 0.124] (trial 7)"."""
    names = [objective] if isinstance(objective, str) else objective
    parts = []
    for name in names:
        if name not in values:
            return ""
        low, high = values.get(f"{name}_lo"), values.get(f"{name}_hi")
        interval = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
        parts.append(f"{name} {values[name]:.3g}{interval}")
    return f"best {', '.join(parts)} (trial {number})"
