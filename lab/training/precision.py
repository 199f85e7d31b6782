"""In which arithmetic products are computed; weights, their updates and what is measured stay in float32 or better.

`float32` is the reference. `tf32` lets an NVIDIA GPU round the factors of matrix products and convolutions to 10 bits
of mantissa, `bf16` computes those operations in bfloat16 (7 bits) where torch.autocast holds that to be safe.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Train and evaluate as asked, one of `lab.knobs.PRECISIONS`."""
    # torch's defaults are off for products and on for convolutions, and have changed between versions: set both
    switches: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = precision == "tf32"
    try:
        # a cache of casts would keep the weights of a step for the next one, and a graph cannot hold it
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
