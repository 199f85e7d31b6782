"""The training sets of a trial on the device, each standardised with its own statistics, or not at all.

Shape suffixes: D training sets, R replicas, N examples, B batch, C channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data.pool import Pool
from lab.data.transforms import standardisation, to_float


class TrainingSets:
    """D training sets of equal size, and how their learners see any image.

    Attributes:
        n_train: Examples of one training set.
        labels_DN: Labels on the host.
        n_classes: Classes of the data set, whether or not a training set has examples of all of them.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        n_classes: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        is_standardised: bool = True,
    ) -> None:
        self.n_classes = n_classes
        zero_C, one_C = (np.full(pools[0].images.shape[1], value, dtype=np.float32) for value in (0, 1))
        statistics = [standardisation(pool.images) if is_standardised else (zero_C, one_C) for pool in pools]
        self._shift_DC11 = torch.tensor(np.stack([mean for mean, _ in statistics]), device=device, dtype=dtype)
        self._scale_DC11 = torch.tensor(np.stack([std for _, std in statistics]), device=device, dtype=dtype)
        self._shift_DC11 = self._shift_DC11[:, :, None, None]
        self._scale_DC11 = self._scale_DC11[:, :, None, None]
        self._device, self._dtype = device, dtype
        self.n_train = len(pools[0].labels)
        self.labels_DN = np.stack([pool.labels for pool in pools])
        # whoever changes pixels has to know between which values they lie; not every data set consists of pixels
        is_pixels = all(0 <= to_float(pool.images).min() and to_float(pool.images).max() <= 1 for pool in pools)
        self._pixels = (0.0, 1.0) if is_pixels else (-np.inf, np.inf)
        self.images = torch.cat([self.standardised(self.pixels(pool.images), d)[0] for d, pool in enumerate(pools)])
        self.labels = torch.from_numpy(self.labels_DN.ravel()).to(device)

    def pixels(self, images: NDArray) -> Tensor:
        """Return images as `to_float` has them, on the device."""
        return torch.from_numpy(to_float(images)).to(self._device, self._dtype)

    def standardised(self, pixels_NCHW: Tensor, sets: int | Tensor) -> Tensor:
        """Return images as the learners of each of these training sets see them, (D, N, C, H, W)."""
        index = torch.as_tensor(sets, device=self._device).reshape(-1)
        return (pixels_NCHW - self._shift_DC11[index, None]) / self._scale_DC11[index, None]

    def statistics(self, sets_R: Tensor) -> dict[str, Tensor]:
        """Return what the images of these training sets are standardised with, `input.mean` and `input.std` (R, C)."""
        return {"input.mean": self._shift_DC11[sets_R, :, 0, 0], "input.std": self._scale_DC11[sets_R, :, 0, 0]}

    def black(self, sets_R: Tensor) -> Tensor:
        """Return what the pixel value 0 is to the learners of these training sets, shape (R, 1, C, 1, 1)."""
        return (-self._shift_DC11 / self._scale_DC11).index_select(0, sets_R)[:, None]

    def positions(self, order_RN: Tensor, sets_R: Tensor) -> Tensor:
        """Return where the examples of each replica's training set lie among those of all sets, for `batch`."""
        return order_RN + sets_R[:, None] * self.n_train

    def batch(self, index_RB: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (R, B, C, H, W) and labels (R, B) at these positions."""
        flat = index_RB.reshape(-1)
        images = self.images.index_select(0, flat).view(*index_RB.shape, *self.images.shape[1:])
        return images, self.labels_at(index_RB)

    def labels_at(self, index_RB: Tensor) -> Tensor:
        """Return labels (R, B) at these positions."""
        return self.labels.index_select(0, index_RB.reshape(-1)).view(index_RB.shape)

    def first(self, n: int, sets_R: Tensor) -> Tensor:
        """Return the first images of each replica's training set, n at the most, (R, n, C, H, W)."""
        order_RN = torch.arange(min(n, self.n_train), device=self._device)[None]
        return self.batch(self.positions(order_RN, sets_R))[0]

    def counts(self, sets_R: Tensor) -> Tensor:
        """Return how many examples of each class are in each replica's training set, shape (R, n_classes)."""
        counts_DC = np.stack([np.bincount(labels_N, minlength=self.n_classes) for labels_N in self.labels_DN])
        return torch.from_numpy(counts_DC).to(self._device)[sets_R]

    def box(self, epsilon_R: Tensor, sets_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a change of pixels by ε, and the least and the largest pixel, as each learner sees them.

        Pixels are in units of `to_float`; all three broadcast to images (R, B, C, H, W).
        """
        scale_R1C11, shift_R1C11 = self._scale_DC11[sets_R, None], self._shift_DC11[sets_R, None]
        low, high = ((end - shift_R1C11) / scale_R1C11 for end in self._pixels)
        return epsilon_R.to(self._dtype)[:, None, None, None, None] / scale_R1C11, low, high
