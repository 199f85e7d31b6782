import io

import pytest

from lab.progress import Progress


def test_progress_is_a_plain_line_now_and_then_where_there_is_no_terminal():
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(stream=stream, clock=lambda: now[0])
    progress.begin(n_done=2, n_total=12)
    for _ in range(10):
        now[0] += 1.0
        progress.done(n_replicas=32, best="best val_risk 0.112 [0.101, 0.124] (trial 7)")
    progress.end()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "7/12 trials · 32.0 replicas/s · 5 s left · best val_risk 0.112 [0.101, 0.124] (trial 7)",
        "12/12 trials · 32.0 replicas/s · 0 s left · best val_risk 0.112 [0.101, 0.124] (trial 7)",
    ]


@pytest.mark.parametrize(("no_color", "escapes"), [("", True), ("1", False)])
def test_progress_renews_one_line_on_a_terminal_and_respects_no_color(monkeypatch, no_color, escapes):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    now = [0.0]
    progress = Progress(stream=Terminal(), clock=lambda: now[0])
    progress.begin(n_done=0, n_total=3)
    for _ in range(3):
        now[0] += 1.0
        progress.done(n_replicas=8, best="")
    text = progress.stream.getvalue()
    assert text.count("\r") == 3
    assert "\n" not in text
    assert ("\x1b" in text) is escapes
    progress.end()
    assert progress.stream.getvalue().endswith("\n")
