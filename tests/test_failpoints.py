import errno
import subprocess
import sys
import time

import pytest

from lab import failpoints
from lab.errors import SpecError
from tests.test_layout import ROOT, SOURCES


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoints.arm(None)


def test_a_failpoint_fires_at_its_kth_passage_and_once():
    failpoints.arm("tell:3=raise")
    for name in ("tell", "ask", "tell", "told"):
        failpoints.hit(name)
    with pytest.raises(failpoints.Injected, match="injected at tell"):
        failpoints.hit("tell")
    failpoints.hit("tell")


def test_the_star_counts_passages_of_all_places():
    armed = failpoints.arm("*:2=enospc")
    failpoints.hit("ask")
    assert not armed.fired
    with pytest.raises(OSError) as error:
        failpoints.hit("tell")
    assert error.value.errno == errno.ENOSPC
    assert armed.fired


def test_sleep_sleeps_and_lets_go_on():
    failpoints.arm("ask=sleep0.2")
    started = time.monotonic()
    failpoints.hit("ask")
    assert time.monotonic() - started >= 0.2


def test_kill_leaves_no_time_for_anything():
    code = "import lab.failpoints as f\ntry: f.hit('ask')\nfinally: print('cleaned up')"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"LAB_FAILPOINT": "ask=kill"}, capture_output=True, text=True
    )
    assert (answer.returncode, answer.stdout) == (-9, "")


@pytest.mark.parametrize(
    "text", ["ask", "ask=die", "nowhere=kill", "ask:0=kill", "ask:x=kill", "=kill", "ask=sleep.", "ask=kill\n"]
)
def test_a_slip_in_the_name_of_a_failpoint_is_not_taken_for_none(text):
    with pytest.raises(SpecError, match="LAB_FAILPOINT"):
        failpoints.parse(text)


def test_every_name_stands_at_some_place_and_every_place_has_a_name_of_the_list():
    source = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    placed = {part.split('"')[1] for part in source.split("failpoints.hit(")[1:]}
    assert placed == set(failpoints.NAMES)


def test_a_place_costs_next_to_nothing_when_no_failpoint_is_armed():
    started = time.process_time()
    for _ in range(100_000):
        failpoints.hit("epoch")
    assert (time.process_time() - started) / 100_000 < 5e-6
