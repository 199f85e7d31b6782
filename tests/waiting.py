"""Waiting in tests: for what comes about, however slow the machine is. No result may hang on its speed."""

import time

STEP = 0.02  # seconds between two looks
LONG = 300.0  # seconds in which all comes about that ever does; only a test that fails waits for so long


def until(what, seconds=LONG, rest=time.sleep):
    """Wait until something holds; return for how many seconds.

    Looks are counted, so time in which this process is held up (by a busy disk, a machine that stands still) is none.
    """
    n_looks = 0
    while not what():
        assert n_looks * STEP < seconds, f"it does not come about in {seconds:g} seconds"
        rest(STEP)
        n_looks += 1
    return n_looks * STEP
