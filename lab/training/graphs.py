"""CUDA graphs: a train step is launched as one piece, so that the host is out of the way of small networks.

A step of a small network is some hundred kernels of a few microseconds each, and launching one from Python takes about
as long. A graph is captured once and replayed; it reads its batch, keys and rates from tables at a counter on the
device that it moves on itself.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from lab.training.moment import Moment

Body = Callable[[], None]


class Capture:
    """Captures graphs of one device, which are replayed one after the other: they share their working memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, body: Body) -> Body:
        """Return a function that replays what `body` launches; it is not run now.

        Raises:
            torch.OutOfMemoryError: The device's memory did not suffice.
        """
        graph, ran_out = torch.cuda.CUDAGraph(), False
        try:
            with torch.cuda.device(self._device):  # streams and graphs are those of the current device
                torch.cuda.synchronize()
                torch.cuda.empty_cache()  # what was used outside is of no use in the memory of a graph
                with torch.cuda.graph(graph, pool=self._pool):
                    try:
                        body()
                    except torch.OutOfMemoryError:
                        ran_out = True
                        raise
        except RuntimeError as error:  # the end of a capture that broke raises an error of its own
            if ran_out:
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        self._pool = graph.pool()

        def replay() -> None:
            with torch.cuda.device(self._device):
                graph.replay()

        return replay


class Graphs:
    """The step of a crew, captured for batches of full size and for the last one of an epoch, which may be shorter.

    The first epoch is run as it is: libraries choose their kernels and allocate on first use, which a graph forbids.
    """

    def __init__(self, device: torch.device, capture: Callable[[Body], Body] | None = None) -> None:
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self._capture = capture or Capture(device)
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
