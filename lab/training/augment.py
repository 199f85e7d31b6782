"""Augmentation of batches: every replica draws from its own stream, with its own strengths.

Shape suffixes: R replicas, B batch, C channels, H height, W width, K classes, U distinct init streams.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import seeds
from lab.data import augmentation
from lab.knobs import TrialConfig
from lab.training.counters import Counters
from lab.training.moment import Moment

KNOBS = ("flip", "shift", "rotation", "zoom", "brightness", "contrast", "pixel_noise", "cutout", "mixup")
TABLE = 4096  # intervals between the tabulated quantiles of mixup's share
# one purpose a random number: its place in this list is stored nowhere, but it decides what is drawn
_PURPOSES = (
    "flip", "right", "down", "angle", "scale", "brightness", "contrast", "row", "column", "share", "partner", "noise",
)  # fmt: skip


class Augmentation:
    """Changes the batches of R replicas at random, in the order of `KNOBS`.

    What is done to an image depends on the init stream, the step and the position in the batch, and on nothing else.
    """

    def __init__(
        self,
        configs_R: Sequence[TrialConfig],
        inits_R: Sequence[int],
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Take the strengths and the init stream of each replica."""
        streams, index_R = np.unique(np.asarray(inits_R), return_inverse=True)
        self._counters = Counters([seeds.stream(seed, "augment", int(i)) for i in streams], device)
        self._index_R = torch.from_numpy(index_R).to(device)
        self._device, self._dtype = device, dtype
        self._strengths = {
            name: torch.tensor([float(getattr(c, name)) for c in configs_R], device=device, dtype=dtype)[:, None]
            for name in KNOBS
        }
        self._used = {name for name, strength in self._strengths.items() if bool(strength.any())}
        alphas = sorted({c.mixup for c in configs_R})
        # without mixup an image is all of its own share
        tables = [augmentation.beta_quantiles(a, TABLE) if a else np.ones(TABLE + 1) for a in alphas]
        self._shares = torch.tensor(np.concatenate(tables), device=device, dtype=dtype)  # one table behind the other
        self._alpha_R = torch.tensor([alphas.index(c.mixup) for c in configs_R], device=device)

    @property
    def is_off(self) -> bool:
        """Whether all strengths are 0."""
        return not self._used

    def begin(self, first_step: int, n_steps: int) -> None:
        """Begin an epoch: moments now count from this step of the training."""
        self._counters.begin(first_step, n_steps)

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        self._index_R, self._alpha_R = self._index_R[rows_S], self._alpha_R[rows_S]
        self._strengths = {name: strength[rows_S] for name, strength in self._strengths.items()}

    def __call__(
        self, moment: Moment, images_RBCHW: Tensor, labels_RB: Tensor, black_R1C11: Tensor, n_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Return the batch as it is trained on: images, and labels (R, B) or, if mixed, targets (R, B, K).

        Args:
            moment: The step, which gives each batch other random numbers.
            images_RBCHW: Standardised images.
            labels_RB: Their classes.
            black_R1C11: Where the pixel value 0 lies, see `lab.data.augmentation`.
            n_classes: The number of classes.
        """
        x, side = images_RBCHW, min(images_RBCHW.shape[-2:])
        n_images = x.shape[1]
        if "flip" in self._used:
            x = augmentation.flip(x, self._uniform(moment, "flip", n_images) < self._strengths["flip"])
        if self._used & {"shift", "rotation", "zoom"}:
            x = augmentation.move(
                x,
                black_R1C11,
                angle_RB=self._strengths["rotation"] * self._symmetric(moment, "angle", n_images),
                scale_RB=1 + self._strengths["zoom"] * self._symmetric(moment, "scale", n_images),
                right_RB=self._pixels(moment, "right", n_images, side),
                down_RB=self._pixels(moment, "down", n_images, side),
            )
        if "brightness" in self._used:
            factor_RB = 1 + self._strengths["brightness"] * self._symmetric(moment, "brightness", n_images)
            x = augmentation.brighten(x, black_R1C11, factor_RB)
        if "contrast" in self._used:
            factor_RB = 1 + self._strengths["contrast"] * self._symmetric(moment, "contrast", n_images)
            x = augmentation.stretch_contrast(x, factor_RB)
        if "pixel_noise" in self._used:
            noise_Un = self._counters.normal(moment, _PURPOSES.index("noise"), x[0].numel()).to(self._dtype)
            x = x + self._strengths["pixel_noise"][:, :, None, None, None] * noise_Un[self._index_R].view_as(x)
        if "cutout" in self._used:
            x = augmentation.cut_out(
                x,
                row_RB=self._below(moment, "row", n_images, x.shape[-2]),
                column_RB=self._below(moment, "column", n_images, x.shape[-1]),
                side_RB=torch.round(self._strengths["cutout"] * side).long(),
            )
        if "mixup" not in self._used:
            return x, labels_RB
        partner_RB = self._uniform(moment, "partner", n_images).argsort(dim=1)
        targets_RBK = F.one_hot(labels_RB, n_classes).to(self._dtype)
        return augmentation.mix(x, targets_RBK, partner_RB, self._share(moment, n_images))

    def _uniform(self, moment: Moment, purpose: str, n: int) -> Tensor:
        return self._counters.uniform(moment, _PURPOSES.index(purpose), n).to(self._dtype)[self._index_R]

    def _symmetric(self, moment: Moment, purpose: str, n: int) -> Tensor:
        """Return numbers evenly spread over [−1, 1)."""
        return 2 * self._uniform(moment, purpose, n) - 1

    def _below(self, moment: Moment, purpose: str, n: int, limit: int) -> Tensor:
        """Return whole numbers from 0 to limit − 1."""
        return (self._uniform(moment, purpose, n) * limit).long()

    def _pixels(self, moment: Moment, purpose: str, n: int, side: int) -> Tensor:
        """Return whole numbers of pixels, all from −shift to shift equally likely."""
        most_R1 = torch.round(self._strengths["shift"] * side)
        return torch.floor(self._uniform(moment, purpose, n) * (2 * most_R1 + 1)) - most_R1

    def _share(self, moment: Moment, n: int) -> Tensor:
        """Return the share λ of each image in its mixture, by linear interpolation of tabulated quantiles."""
        position_RB = self._uniform(moment, "share", n) * TABLE
        below_RB = position_RB.long()
        index_RB = below_RB + (self._alpha_R * (TABLE + 1))[:, None]
        low_RB, high_RB = self._shares.take(index_RB), self._shares.take(index_RB + 1)
        return torch.lerp(low_RB, high_RB, position_RB - below_RB)
