"""A generator of images whose posterior is known exactly, so that noise and bias can be told apart.

A class is a smooth bump of light (height 1, width 1.5 pixels) on an 8×8 image; the ten bumps stand on a circle of 2
pixels around the centre, 36° apart. An example is the bump of its class plus white Gaussian noise, x ~ N(μ_c, σ²·1),
with all classes equally likely, hence P(c | x) = softmax_c(−‖x − μ_c‖² / 2σ²). Neighbours on the circle are what gets
confused. Pixels lie around [0, 1] and are not clipped: clipping would make that formula wrong.

σ = 0.47 sets the Bayes error to 12.2 % and the Brier noise to 0.179 (tests/data/test_gaussians.py measures both).
"""

import numpy as np

N_CLASSES = 10
SIDE = 8
SIGMA = 0.47
CLASS_NAMES = tuple(f"{36 * c}°" for c in range(N_CLASSES))
SOURCE = "Generated: a bump of light at one of ten angles on 8×8 pixels plus Gaussian noise; the posterior is exact"


def prototypes() -> np.ndarray:
    """Return the ten class means μ, shape (C, 8, 8), float64, values in [0, 1]."""
    row, column = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    angle = 2 * np.pi * np.arange(N_CLASSES)[:, None, None] / N_CLASSES
    distance_sq = (row - 2.0 * np.sin(angle)) ** 2 + (column - 2.0 * np.cos(angle)) ** 2
    return np.exp(-distance_sq / (2 * 1.5**2))


def posterior(images: np.ndarray) -> np.ndarray:
    """Return P(class | image), shape (N, C), of images of shape (N, 1, 8, 8), in float64."""
    x = images.reshape(len(images), SIDE * SIDE).astype(np.float64)
    means = prototypes().reshape(N_CLASSES, -1)
    # one class at a time, without a matrix product: the result does not depend on BLAS or its threads
    distance_sq = np.stack([((x - mean) ** 2).sum(axis=1) for mean in means], axis=1)
    log_joint = -distance_sq / (2 * SIGMA**2)
    joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    return joint / joint.sum(axis=1, keepdims=True)


def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw n examples: images (n, 1, 8, 8) float32, labels (n,) int64, posterior (n, C) float64.

    Prefix-stable: an example takes 65 uniform numbers, one word of the generator each (one for the label, 64 turned
    into normal ones by Box and Muller 1958), so the first m of draw(n) are draw(m). numpy's own normal numbers would
    take a varying number of words, and labels drawn before all pixels would shift them.
    """
    n_pixels = SIDE * SIDE
    uniform = rng.random((n, 1 + n_pixels))
    labels = (uniform[:, 0] * N_CLASSES).astype(np.int64)
    u, v = uniform[:, 1 : 1 + n_pixels // 2], uniform[:, 1 + n_pixels // 2 :]
    radius = np.sqrt(-2.0 * np.log1p(-u))
    normal = np.concatenate([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)], axis=1)
    means = prototypes()[labels][:, None]
    images = (means + SIGMA * normal.reshape(n, 1, SIDE, SIDE)).astype(np.float32)
    return images, labels, posterior(images)  # of the rounded pixels: those are what a model sees
