"""Ctrl-C and SIGTERM end what runs, also if they arrive where Python drops exceptions."""

import os
import signal

import pytest

from lab import interrupts, ui
from lab.storage import Home

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


class Server:
    """One of those that `ui` starts: at the `n`-th look at whether it is alive, a signal is dropped."""

    name, address, health = "MLflow UI", "http://127.0.0.1:1", "/"

    def __init__(self, n, number):
        self.n, self.number, self.n_looks, self.runs = n, number, 0, False

    def start(self):
        self.runs = True

    def stop(self):
        self.runs = False

    def died(self):
        self.n_looks += 1
        assert self.n_looks <= self.n, "the signal is not heeded"
        if self.n_looks == self.n:
            Swallowing(self.number)
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("place", ["starts", "serves"])
def test_a_signal_that_was_dropped_while_ui_starts_or_serves_ends_it(
    tmp_path, monkeypatch, dropped, number, code, place
):
    def answer(server, path):
        if place == "starts":
            raise ConnectionRefusedError

    server = Server(1 if place == "starts" else 3, number)
    monkeypatch.setattr(ui, "_servers", lambda home, ports: [server])
    monkeypatch.setattr(ui, "_get", answer)
    assert ui.serve(None, home=Home(tmp_path)) == code
    assert (dropped, server.n_looks, server.runs) == ([ERRORS[number]], server.n, False)


def test_an_interrupt_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.heeded():
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before)
