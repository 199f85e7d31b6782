"""Common corruptions of test images at five severities, after Hendrycks & Dietterich (2019).

A corrupted test set is a function of the test set, the kind and the severity alone: all replicas of all trials see the
same images, so trials compare in pairs. Values stay within [0, 1], or within the range of the images where they are
not pixels. Lengths are shares of the shorter side, since images here are smaller than those of that study.

Shape suffixes: N images, C channels, H height, W width.
"""

from collections.abc import Callable

import numpy as np

from lab.data.pool import Pool
from lab.data.transforms import to_float
from lab.seeds import generator

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def _gaussian_noise(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return x + (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1] * rng.standard_normal(x.shape)


def _shot_noise(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return images of which a white pixel counts so many photons."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(np.clip(x, 0, None) * photons) / photons


def _impulse_noise(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return images of which a share of the values is set to 0 or 1."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    u = rng.random(x.shape)
    return np.where(u < share / 2, 0.0, np.where(u < share, 1.0, x))


def _blur(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    sigma = (0.0125, 0.025, 0.0375, 0.05, 0.075)[severity - 1] * min(x.shape[-2:])
    return gaussian_filter(x, sigma=(0, 0, sigma, sigma), mode="nearest")


def _contrast(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    mean_NC11 = x.mean(axis=(2, 3), keepdims=True)
    return mean_NC11 + (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1] * (x - mean_NC11)


def _brightness(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return x + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]


def _pixelate(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return images of fewer, larger pixels: a pixel is the mean of those it covers."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    for axis in (2, 3):
        n = x.shape[axis]
        block_of = np.arange(n) * max(1, round(share * n)) // n
        starts = np.flatnonzero(np.diff(block_of, prepend=-1))
        sizes = np.diff(np.append(starts, n))
        means = np.moveaxis(np.add.reduceat(x, starts, axis=axis), axis, -1) / sizes
        x = np.moveaxis(means[..., block_of], -1, axis)
    return x


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "pixelate": _pixelate,
}


def corrupted(images: np.ndarray, kind: str, severity: int) -> np.ndarray:
    """Return images (N, C, H, W), float32, with one of `CORRUPTIONS` at a severity from 1 to 5."""
    x = to_float(images).astype(np.float64)
    low, high = min(0.0, x.min()), max(1.0, x.max())
    changed = CORRUPTIONS[kind](x, severity, generator(0, "corruption", severity))
    return np.clip(changed, low, high).astype(np.float32)


def pool(points: Pool, kind: str, severity: int) -> Pool:
    """Return the same points with corrupted images."""
    return Pool(corrupted(points.images, kind, severity), points.labels, points.posterior)
