"""Memory that a training frees is kept for its next step, on Linux with glibc.

By default glibc gives large blocks back to the system when they are freed and asks for them again at the next step,
whose pages the system then has to fill with zeros anew. How much that costs: benchmarks/ways.md (memory given back).
"""

import ctypes
import sys

# <malloc.h>: parameter → value
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
SETTINGS = {
    MMAP_MAX: 0,  # no block is a mapping of its own, which would go back to the system when it is freed
    TRIM_THRESHOLD: 2**30,  # bytes at the end of the heap that may lie idle
    TOP_PAD: 2**26,  # bytes that the heap grows by, at the least
}


def keep_freed_memory() -> bool:
    """Make this process keep freed memory up to 1 GiB; return False where that cannot be said to the allocator."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(parameter, value) for parameter, value in SETTINGS.items())
