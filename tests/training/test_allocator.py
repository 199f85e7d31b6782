"""What the allocator is told has the effect that it is told for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = """
import resource, sys, torch
from lab.training.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("cannot")
for step in range(40):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(2**22) for _ in range(3)]  # 16 MiB each: 4,096 pages
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    # a fixed threshold: glibc moves its own, and then it depends on what lies above whether the heap shrinks
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    found = subprocess.run(
        [sys.executable, "-c", STEPS, how], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600
    )
    return found.stderr.strip() if found.returncode else int(found.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is told")
def test_steps_that_free_large_blocks_get_the_same_pages_again():
    kept = page_faults("kept")
    if kept == "cannot":
        pytest.skip("this C library has no mallopt")
    assert kept < 100
    assert page_faults("given back") > 20 * 3 * 1000  # without it every step has its pages filled anew
