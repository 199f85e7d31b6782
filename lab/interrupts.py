"""Ctrl-C and SIGTERM end a command, also where Python drops the exception that a signal raises.

What is raised in a callback of a weak reference or in a `__del__` is printed and forgotten, and a signal may arrive
just there: SQLAlchemy has many such callbacks. So a signal is noted as well, and a loop that goes on for long asks now
and then whether one has come.
Source: https://docs.python.org/3/library/signal.html#note-on-signal-handlers-and-exceptions
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: wind up as for Ctrl-C."""


_came: list[type[KeyboardInterrupt]] = []


@contextmanager
def heeded() -> Iterator[None]:
    """Let SIGTERM raise `Terminated`, and SIGINT KeyboardInterrupt unless it is ignored; in the main thread only."""
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    _came.clear()
    before = {number: signal.signal(number, _raise) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _came.clear()


def check() -> None:
    """Raise again what a signal has raised, if anything.

    Raises:
        KeyboardInterrupt: SIGINT has come, or SIGTERM (`Terminated`).
    """
    if _came:
        raise _came[-1]


def _raise(number: int, frame: FrameType | None) -> None:
    _came.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
    raise _came[-1]
