"""CUDA graphs: a train step is launched as one piece, so that the host is out of the way of small networks.

A step of a small network is some hundred kernels of a few microseconds each, and launching one from Python takes about
as long. A graph is captured once and replayed; it reads its batch, keys and rates from tables at a counter on the
device that it moves on itself.
"""

import functools
from collections.abc import Callable

import torch

from lab.training.moment import Moment

Body = Callable[[], None]


def capture(body: Body) -> Body:
    """Return a function that replays what `body` launches; it is not run now."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


class Graphs:
    """The step of a crew, captured for batches of full size and for the last one of an epoch, which may be shorter.

    The first epoch is run as it is: libraries choose their kernels and allocate on first use, which a graph forbids.
    """

    def __init__(self, device: torch.device, capture: Callable[[Body], Body] = capture) -> None:
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self._capture = capture
        self._replays: dict[bool, Body] = {}
        self._is_warm = False

    def epoch(self, n_steps: int, step: Callable[[Moment], None]) -> None:
        """Run `step` at each moment of an epoch."""
        if not self._is_warm:
            for k in range(n_steps):
                step(Moment(k))
            self._is_warm = True
            return
        self._counter.zero_()
        for k in range(n_steps):
            is_last = k == n_steps - 1
            if is_last not in self._replays:
                self._replays[is_last] = self._capture(functools.partial(self._counted, step, k))
            self._replays[is_last]()

    def _counted(self, step: Callable[[Moment], None], k: int) -> None:
        step(Moment(k, self._counter))
        self._counter += 1
