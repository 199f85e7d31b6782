"""What the frozen blocks of a crew make of the images, computed once: the rest is then trained on that alone.

Only where every image reaches the network as it is: without augmentation and attacks.

Shape suffixes: R replicas, N examples, B batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lab.training.pack import View

MOST_VALUES = 2**23  # of one replica and one set of images: 32 MB in float32; bits thus do not depend on the pack
PIECE_VALUES = 2**22  # of the widest map while they are computed

Images = Callable[[slice, slice], Tensor]  # (replicas, examples) → (R, B, C, H, W)


class Features:
    """The features (R, N, …) of each set of images, by name, where they are not too many to be kept."""

    def __init__(self) -> None:
        self._of: dict[str, Tensor | None] = {}

    @torch.no_grad()
    def of(self, name: str, n: int, view: View, images: Images) -> Tensor | None:
        """Return the features of n images, computed at the first call; None if they are too many."""
        if name not in self._of:
            self._of[name] = self._computed(n, view, images)
        return self._of[name]

    def _computed(self, n: int, view: View, images: Images) -> Tensor | None:
        network, weights = view.network, view.weights
        n_replicas = len(next(iter(weights.values())))
        kept: Tensor | None = None
        size = max(1, min(n, PIECE_VALUES // network.widest))
        for r in range(n_replicas):
            rows = slice(r, r + 1)
            own = {name: value[rows] for name, value in weights.items()}
            for first in range(0, n, size):
                part = slice(first, min(first + size, n))
                x = network.features(own, images(rows, part))
                if kept is None:
                    if n * x[0, 0].numel() > MOST_VALUES:
                        return None
                    kept = x.new_empty((n_replicas, n, *x.shape[2:]))
                kept[rows, part] = x
        return kept

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        self._of = {name: None if x is None else x.index_select(0, rows_S) for name, x in self._of.items()}

    def take(self, rows_S: Tensor) -> "Features":
        """Return a copy of those of these replicas."""
        taken = Features()
        taken._of = dict(self._of)
        taken.keep(rows_S)
        return taken
