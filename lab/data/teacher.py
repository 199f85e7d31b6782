"""A teacher: a fixed network that says, for every image of a data set, how probable each label is.

Real images, known posterior: the teacher learns the true labels a little, and its softmax at a temperature is taken as
the distribution P(label | image) from which labels are drawn. Noise and bias² then come apart on real images. The
teacher is part of the data set: one hidden layer of 32 tanh units, the same for every seed of a study.

Full-batch gradient descent in float64 from a named stream, logits rounded to 4 decimals: the last bits, in which
machines differ, do not reach the posterior (and with it the digest).

Shape suffixes: N examples, P pixels, H hidden units, C classes.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data import digits, idx
from lab.data.pool import Dataset, Pool, cut, draw_labels
from lab.data.transforms import to_float
from lab.seeds import generator

HIDDEN = 32
STEPS = 100
RATE = 1.0
N_LEARNED = 2000  # images that the teacher learns from, at the most
_AT_ONCE = 4096  # images: 60,000 of 28×28 pixels in float64 would take 376 MB

# images → temperature. Bayes error and Brier noise: 11.4 % and 0.192 on the digits, 15.8 % and 0.228 on the training
# images of Fashion-MNIST (tests/data/test_teacher.py measures the digits')
TEMPERATURES = {"digits": 1.5, "fashion_mnist": 1.0}


def load(images_of: str, *, seed: int, n_validation: int | None, n_test: int | None, data_dir: Path | None) -> Dataset:
    """Return images of another data set; their labels are drawn, once for a study's seed, from the teacher's posterior.

    Args:
        images_of: A key of `TEMPERATURES`.
        seed: The study seed.
        n_validation: Size of the validation set; None for 197 (digits) or 2,000.
        n_test: Size of the test set; None for 400 (digits) or 2,000.
        data_dir: Where to look first for files.

    Raises:
        LabError: See `lab.data.load`.
    """
    if images_of == "digits":
        true, class_names = digits.examples(), tuple("0123456789")
        defaults = (197, 400)
    else:
        files = idx.load(images_of, data_dir)
        true, class_names = Pool(files.train_images, files.train_labels), files.class_names
        defaults = (min(2000, len(true) // 10),) * 2
    temperature = TEMPERATURES[images_of]
    posterior_NC = posterior(true.images, true.labels, len(class_names), temperature=temperature)
    labels = draw_labels(posterior_NC, generator(seed, "generator", 0).random(len(true)))
    return cut(
        "teacher" if images_of == "digits" else f"teacher_{images_of}",
        Pool(true.images, labels, posterior_NC),
        class_names=class_names,
        source=f"Images of {images_of}, labels drawn from a fixed teacher network: each image's posterior is known",
        seed=seed,
        n_validation=defaults[0] if n_validation is None else n_validation,
        n_test=defaults[1] if n_test is None else n_test,
    )


def posterior(images: np.ndarray, labels: np.ndarray, n_classes: int, *, temperature: float) -> NDArray[np.float64]:
    """Return the teacher's P(label | image), (N, C), float64.

    Args:
        images: (N, channels, height, width), uint8 or float32.
        labels: True labels (N,); the teacher learns those of the first `N_LEARNED` images.
        n_classes: C.
        temperature: Divides the logits: the higher, the noisier the labels.
    """
    learned_NP = _pixels(images[:N_LEARNED])
    shift, scale = learned_NP.mean(), learned_NP.std()
    weights = _learn(torch.from_numpy((learned_NP - shift) / scale), torch.from_numpy(labels[:N_LEARNED]), n_classes)
    logits_NC = np.concatenate(
        [
            _logits(weights, torch.from_numpy((_pixels(images[start : start + _AT_ONCE]) - shift) / scale)).numpy()
            for start in range(0, len(images), _AT_ONCE)
        ]
    )
    logits_NC = np.round(logits_NC, 4) / temperature
    joint_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return joint_NC / joint_NC.sum(axis=1, keepdims=True)


def _pixels(images: np.ndarray) -> NDArray[np.float64]:
    return to_float(images).reshape(len(images), -1).astype(np.float64)


def _logits(weights: list[Tensor], x_NP: Tensor) -> Tensor:
    hidden_PH, output_HC = weights
    return torch.tanh(x_NP @ hidden_PH) @ output_HC


def _learn(x_NP: Tensor, y_N: Tensor, n_classes: int) -> list[Tensor]:
    """Return the weights of the teacher, trained on x and y."""
    rng = generator(0, "init", 0)
    shapes = [(x_NP.shape[1], HIDDEN), (HIDDEN, n_classes)]
    weights = [torch.from_numpy(rng.standard_normal(shape) / np.sqrt(shape[0])).requires_grad_() for shape in shapes]
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(_logits(weights, x_NP), y_N)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= RATE * gradient
    return [weight.detach() for weight in weights]
