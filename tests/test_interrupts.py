"""Ctrl-C and SIGTERM end what runs, also if they arrive where Python drops exceptions."""

import os
import signal

import pytest

from lab import interrupts

ERRORS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: interrupts.Terminated}


class Swallowing:
    """Sends this process a signal from its `__del__`, where what that raises is dropped."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        for _ in range(1000):
            pass  # the handler runs between two of these


@pytest.fixture
def dropped(monkeypatch):
    """What Python dropped."""
    found = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: found.append(what.exc_type))
    return found


@pytest.mark.parametrize("number", ERRORS)
def test_a_signal_raises_and_the_handlers_of_before_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as error, interrupts.heeded():
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass
    assert error.type is ERRORS[number]
    assert signal.getsignal(number) is before
    interrupts.check()


@pytest.mark.parametrize("number", ERRORS)
def test_a_signal_that_was_dropped_is_raised_by_the_next_check(number, dropped):
    with interrupts.heeded():
        interrupts.check()
        Swallowing(number)
        assert dropped == [ERRORS[number]]
        with pytest.raises(KeyboardInterrupt) as error:
            interrupts.check()
    assert error.type is ERRORS[number]


def test_an_interrupt_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.heeded():
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before)
