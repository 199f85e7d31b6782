"""Common corruptions of test images at five severities, after Hendrycks & Dietterich (2019).

A corrupted test set is a function of the test set, the kind and the severity alone: all replicas of all trials see the
same images, so trials compare in pairs. Values stay within [0, 1], or within the range of the images where they are
not pixels. Lengths are shares of the shorter side, since images here are smaller than those of that study.

Shape suffixes: N images, C channels, H height, W width.
"""

import functools
import io
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


def _defocus_blur(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return images of which each point is a disk: half a pixel of radius, as it is, and a share of the side more."""
    radius = 0.5 + (0.02, 0.04, 0.06, 0.09, 0.12)[severity - 1] * min(x.shape[-2:])
    reach = int(np.ceil(radius))
    place = np.arange(-reach, reach + 1)
    # a pixel on the rim counts by how far the disk reaches into it
    disk = np.clip(radius + 0.5 - np.hypot(place[:, None], place), 0, 1)
    return _filtered(x, disk)


def _motion_blur(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return images whose points are drawn out along the diagonal, by a share of the side."""
    length = (0.06, 0.1, 0.15, 0.2, 0.3)[severity - 1] * min(x.shape[-2:])
    reach = int(np.ceil(length / np.sqrt(8)))
    line = np.zeros((2 * reach + 1, 2 * reach + 1))
    for place, share in (divmod(reach + step, 1) for step in np.linspace(-length, length, 101) / np.sqrt(8)):
        place = int(place)
        line[place, place] += 1 - share  # of two neighbours on the diagonal, by how near they are
        if share:
            line[place + 1, place + 1] += share
    return _filtered(x, line)


def _filtered(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return images weighted with a kernel that is brought to a sum of 1; beyond its edge an image goes on evenly."""
    from scipy.ndimage import convolve

    return convolve(x, (kernel / kernel.sum())[None, None], mode="nearest")


def _fog(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return images behind fog: noise of octaves of which each finer one counts less, brought back into range."""
    from scipy.ndimage import zoom

    thickness, decay = ((0.5, 2.0), (0.8, 2.0), (1.2, 1.9), (1.7, 1.8), (2.5, 1.7))[severity - 1]
    N, _, H, W = x.shape
    cloud_NHW = np.zeros((N, H, W))
    n_octaves = max(1, int(np.log2(max(H, W))))
    for octave in range(n_octaves):
        n = 2 ** (octave + 1)
        coarse = rng.random((N, n, n))
        cloud_NHW += decay**-octave * zoom(coarse, (1, H / n, W / n), order=1, mode="nearest", grid_mode=True)
    low, high = (end(axis=(1, 2), keepdims=True) for end in (cloud_NHW.min, cloud_NHW.max))
    cloud_N1HW = ((cloud_NHW - low) / (high - low))[:, None]
    return (x + thickness * cloud_N1HW) / (1 + thickness)


def _jpeg(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return images as JPEG files of low quality give them back; three channels are taken for a colour image."""
    from PIL import Image

    quality = (25, 18, 15, 10, 7)[severity - 1]
    low, high = min(0.0, x.min()), max(1.0, x.max())
    bytes_NCHW = np.rint(255 * (x - low) / (high - low)).astype(np.uint8)
    is_colour = x.shape[1] == 3
    pages = bytes_NCHW.transpose(0, 2, 3, 1) if is_colour else bytes_NCHW.reshape(-1, *x.shape[2:])
    read = []
    for page in pages:
        file = io.BytesIO()
        Image.fromarray(page).save(file, "JPEG", quality=quality)
        read.append(np.asarray(Image.open(file)))
    stacked = np.stack(read)
    restored = stacked.transpose(0, 3, 1, 2) if is_colour else stacked.reshape(x.shape)
    return low + (high - low) * restored / 255


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
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "fog": _fog,
    "contrast": _contrast,
    "brightness": _brightness,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
SEVERITIES = (1, 2, 3, 4, 5)


def corrupted(images: np.ndarray, kind: str, severity: int) -> np.ndarray:
    """Return images (N, C, H, W), float32, with one of `CORRUPTIONS` at a severity from 1 to 5."""
    x = to_float(images).astype(np.float64)
    low, high = min(0.0, x.min()), max(1.0, x.max())
    changed = CORRUPTIONS[kind](x, severity, generator(0, "corruption", severity))
    return np.clip(changed, low, high).astype(np.float32)


@functools.lru_cache(maxsize=len(SEVERITIES))
def _pool(points: Pool, kind: str, severity: int) -> Pool:
    return Pool(corrupted(points.images, kind, severity), points.labels, points.posterior)


def pools(points: Pool, kind: str, severity: int) -> dict[str, Pool]:
    """Return condition → the same points with corrupted images: "corrupted", or one for each severity if that is 0."""
    if kind == "none":
        return {}
    if severity:
        return {"corrupted": _pool(points, kind, severity)}
    return {f"corrupted_{each}": _pool(points, kind, each) for each in SEVERITIES}
