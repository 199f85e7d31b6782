"""scikit-learn's handwritten digits: 1,797 images of 8 × 8 pixels, shipped with that package."""

import numpy as np

from lab.data.pool import Pool


def examples() -> Pool:
    """Return all of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images / 16.0).astype(np.float32)[:, None]  # counts of set pixels in 4×4 blocks: 0 to 16
    return Pool(images, bunch.target.astype(np.int64))
