"""Preprocessing. Statistics come from one training set only: never from the pool, validation or test set.

Legend: N examples, C channels (here, not classes).
"""

import dataclasses
import functools

import numpy as np

from lab.data.pool import Dataset, Pool

PIECE = 1024  # images that are resized at once
# Below one grey level of 8-bit images (1/255 = 0.0039): a constant channel is not blown up, any other is untouched
STD_FLOOR = 1e-3


def to_float(images: np.ndarray) -> np.ndarray:
    """Return images as float32: uint8 divided by 255, float32 as they are (the same array).

    Raises:
        ValueError: Another type.
    """
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    if images.dtype == np.float32:
        return images
    raise ValueError(f"images of type {images.dtype}: give uint8 (0 to 255) or float32")


def standardisation(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of each channel over one training set, as `mean_C, std_C`, float32.

    In units of `to_float`, so standardised images are (to_float(images) − mean_C) / std_C. Measured in float64 (two
    passes); the standard deviation, over all pixels and without Bessel's correction, is at least `STD_FLOOR`.

    Args:
        images: (N, C, height, width), uint8 or float32; N of 1 or more.
    """
    means, stds = [], []
    for channel in range(images.shape[1]):
        if images.dtype == np.uint8:  # by counts of the 256 grey levels: exact, and no copy of the images in float64
            counts = np.bincount(images[:, channel].reshape(-1), minlength=256)
            levels = np.arange(256) / 255
            mean = np.average(levels, weights=counts)
            variance = np.average((levels - mean) ** 2, weights=counts)
        else:
            values = to_float(images[:, channel]).astype(np.float64)
            mean = values.mean()
            variance = ((values - mean) ** 2).mean()
        means.append(mean)
        stds.append(max(np.sqrt(variance), STD_FLOOR))
    return np.array(means, dtype=np.float32), np.array(stds, dtype=np.float32)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Return images (N, C, height, width) whose shorter side has so many pixels, of the same type.

    Bilinear with antialiasing, as torchvision's `Resize(side)`: the longer side keeps the proportion, rounded down.
    Values of uint8 are rounded.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = images.shape[2:]
    shorter = min(height, width)
    size = (side * height // shorter, side * width // shorter)
    parts = []
    for start in range(0, len(images), PIECE):
        x = torch.from_numpy(images[start : start + PIECE]).to(torch.float32)
        y = interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        parts.append(y.round().clamp(0, 255).to(torch.uint8) if images.dtype == np.uint8 else y)
    return torch.cat(parts).numpy()


@functools.lru_cache(maxsize=2)
def at_side(dataset: Dataset, side: int) -> Dataset:
    """Return the data set with all images resized, 0: as they are; the digest stays that of the examples."""
    if side == 0:
        return dataset

    def changed(pool: Pool) -> Pool:
        return dataclasses.replace(pool, images=resized(pool.images, side))

    draw = dataset.draw
    return dataclasses.replace(
        dataset, pool=changed(dataset.pool), validation=changed(dataset.validation), test=changed(dataset.test),
        draw=None if draw is None else lambda n, rng: changed(draw(n, rng)),
    )  # fmt: skip
