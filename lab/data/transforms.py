"""Preprocessing. Statistics come from one training set only: never from the pool, validation or test set.

Legend: N examples, C channels (here, not classes).
"""

import numpy as np

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
