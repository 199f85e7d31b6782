"""Where in an epoch a step is. What differs from step to step lies in tables; a moment picks its row.

On the host the row is a number. In a CUDA graph it is a counter on the device, which the graph itself moves on, so that
replaying a step needs nothing from the host.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moment:
    """Step `k` of an epoch, or of whichever step `counter` (shape (1,), on the device) says when it is run."""

    k: int
    counter: Tensor | None = None

    def of(self, table: Tensor) -> Tensor:
        """Return this moment's row of a table."""
        return table[self.k] if self.counter is None else table.index_select(0, self.counter)[0]


def stored(old: Tensor | None, new: Tensor, device: torch.device) -> Tensor:
    """Return `new` on the device, in the memory of `old` where it fits: a graph reads where it was captured."""
    if old is None or old.shape != new.shape:
        return new.to(device)
    return old.copy_(new)
