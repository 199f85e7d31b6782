"""What the frozen blocks of a crew make of the images, computed once: the rest is then trained on that alone.

Only where every image reaches the network as it is: without augmentation and attacks. Replicas of the same start and
training set, which see the same images through the same blocks, share theirs; where images are not standardised, those
of one start share what the blocks make of validation and test images.

Shape suffixes: R replicas, S some of them, G groups that share features, N examples, B batch.
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lab.models import Network
from lab.training.augment import KNOBS
from lab.training.feature_store import FeatureStore, key_of, key_of_weights
from lab.training.pack import View

MOST_VALUES = 2**23  # of one replica and one set of images: 32 MB in float32; bits thus do not depend on the pack
PIECE_VALUES = 2**22  # of the widest map while they are computed

Images = Callable[[slice, slice], Tensor]  # (replicas, examples) → (R, B, C, H, W)


@functools.lru_cache(maxsize=8)
def n_values(network: Network, image_shape: tuple[int, ...]) -> int:
    """Return how many values the frozen blocks make of one image."""
    shapes = {p.name: p.shape for p in network.parameters} | network.buffers
    tensors = {name: torch.empty(1, *shape, device="meta") for name, shape in shapes.items()}
    with torch.no_grad():
        return network.features(tensors, torch.empty(1, 1, *image_shape, device="meta")).numel()


def n_bytes(network: Network, image_shape: tuple[int, ...], sizes: Sequence[int]) -> int | None:
    """Return about how many bytes the features of a replica take in float32; None if it is not trained on any.

    `sizes` are how many images there are in the training set, and in other sets.
    """
    config = network.config
    if not network.n_frozen or config.adversarial != "none" or any(getattr(config, name) for name in KNOBS):
        return None
    kept = [n * n_values(network, image_shape) for n in sizes]
    return None if kept[0] > MOST_VALUES else 4 * sum(n for n in kept if n <= MOST_VALUES)


class Known(NamedTuple):
    """The features of a set of images.

    Attributes:
        values_GN: (G, N, …).
        group_R: Which of them are a replica's.
    """

    values_GN: Tensor
    group_R: Tensor

    def of(self, rows: slice, part: slice) -> Tensor:
        """Return those of some replicas and examples, (R, N, …)."""
        return self.values_GN[:, part].index_select(0, self.group_R[rows])

    def batch(self, index_RB: Tensor) -> Tensor:
        """Return the features (R, B, …) of the examples at these places in the training set of each replica."""
        index_RB = index_RB + (self.group_R * self.values_GN.shape[1])[:, None]
        return self.values_GN.flatten(0, 1).index_select(0, index_RB.flatten()).unflatten(0, index_RB.shape)


class Features:
    """The features of each set of images, by name, where they are not too many to be kept."""

    def __init__(
        self, origins_R: Tensor, sets_R: Tensor, *, is_standardised: bool, store: FeatureStore | None = None
    ) -> None:
        """Take the start and the training set of each replica, and whether images are standardised by the latter.

        `store` is where features may lie already, and go otherwise.
        """
        pairs_R2 = torch.stack([origins_R, sets_R], dim=1)
        self._by_set_R = torch.unique(pairs_R2, dim=0, return_inverse=True)[1]
        self._by_start_R = torch.unique(origins_R, return_inverse=True)[1]
        self._is_standardised, self._store = is_standardised, store
        self._keys: dict[int, str] = {}  # of the starts, for the store
        self._of: dict[str, Known | None] = {}

    @torch.no_grad()
    def of(self, name: str, n: int, view: View, images: Images) -> Known | None:
        """Return the features of n images, computed at the first call; None if they are too many.

        The name of the training images is "train".
        """
        if name not in self._of:
            group_R = self._by_set_R if self._is_by_set(name) else self._by_start_R
            values_GN = self._computed(n, group_R, view, images)
            self._of[name] = None if values_GN is None else Known(values_GN, group_R)
        return self._of[name]

    def _is_by_set(self, name: str) -> bool:
        return name == "train" or self._is_standardised

    def _computed(self, n: int, group_R: Tensor, view: View, images: Images) -> Tensor | None:
        network, groups = view.network, group_R.tolist()
        kept: Tensor | None = None
        size = max(1, min(n, PIECE_VALUES // network.widest))
        parts = [slice(first, min(first + size, n)) for first in range(0, n, size)]
        image_shape = tuple(images(slice(1), slice(1)).shape[2:])
        if n * n_values(network, image_shape) > MOST_VALUES:
            return None
        for g in range(max(groups) + 1):
            r = groups.index(g)
            rows = slice(r, r + 1)
            own = {name: value[rows] for name, value in view.weights.items()}
            key, found = "", None
            if self._store is not None:
                key = key_of(self._key_of_start(r, network, own), (images(rows, part) for part in parts))
                found = self._store.load(key)
            if found is None:
                found = torch.cat([network.features(own, images(rows, part))[0] for part in parts])
                if self._store is not None:
                    self._store.save(key, found)
            kept = kept if kept is not None else group_R.new_empty((max(groups) + 1, *found.shape), dtype=found.dtype)
            kept[g] = found
        return kept

    def _key_of_start(self, r: int, network: Network, own: Mapping[str, Tensor]) -> str:
        start = int(self._by_start_R[r])
        if start not in self._keys:
            self._keys[start] = key_of_weights(network, own)
        return self._keys[start]

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        by_set, self._by_set_R = torch.unique(self._by_set_R.index_select(0, rows_S), return_inverse=True)
        by_start, self._by_start_R = torch.unique(self._by_start_R.index_select(0, rows_S), return_inverse=True)
        self._keys = {}  # starts have other numbers now
        for name, known in self._of.items():
            if known is not None:
                left, group_S = (by_set, self._by_set_R) if self._is_by_set(name) else (by_start, self._by_start_R)
                values_GN = known.values_GN if len(left) == len(known.values_GN) else known.values_GN[left]
                self._of[name] = Known(values_GN, group_S)

    def take(self, rows_S: Tensor) -> "Features":
        """Return those of these replicas."""
        taken = copy.copy(self)
        taken._of = dict(self._of)
        taken.keep(rows_S)
        return taken
