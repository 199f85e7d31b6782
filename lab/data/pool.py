"""Examples, and a data set in three disjoint parts; how examples are cut into them.

Legend: N examples, C classes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lab.errors import DataError, SpecError
from lab.seeds import generator

Draw = Callable[[int, np.random.Generator], "Pool"]


@dataclass(frozen=True, eq=False)
class Pool:
    """Examples: images (N, channels, height, width), labels (N,) and, where it is known, P(class | image) (N, C).

    Images are float32 (about [0, 1]) or uint8 (0 to 255), labels int64, the posterior float64.

    Raises:
        DataError: Shapes or types do not fit together, or a pixel is not finite.
    """

    images: np.ndarray
    labels: np.ndarray
    posterior: np.ndarray | None = None

    def __post_init__(self) -> None:
        images, labels, posterior = self.images, self.labels, self.posterior
        if images.ndim != 4 or images.dtype not in (np.float32, np.uint8):
            raise DataError(
                f"images of shape {images.shape}, {images.dtype}: give (N, channels, height, width), float32 or uint8"
            )
        if labels.shape != images.shape[:1] or labels.dtype != np.int64:
            raise DataError(f"labels of shape {labels.shape}, {labels.dtype}: give one int64 an image, {len(images)}")
        if images.dtype == np.float32 and not np.isfinite(images).all():
            raise DataError("an image holds NaN or infinity: give finite pixels")
        if posterior is not None:
            if posterior.ndim != 2 or len(posterior) != len(labels) or posterior.dtype != np.float64:
                raise DataError(
                    f"posterior of shape {posterior.shape}, {posterior.dtype}: give ({len(labels)}, classes), float64"
                )
            if not (np.all(posterior >= 0) and np.allclose(posterior.sum(axis=1), 1.0, rtol=0, atol=1e-9)):
                raise DataError("a row of the posterior is no probability distribution: it has to sum to 1")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Pool":
        """Return a copy of the examples at the given indices, in their order."""
        posterior = None if self.posterior is None else self.posterior[indices]
        return Pool(self.images[indices], self.labels[indices], posterior)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three disjoint parts. `source` says in one sentence where it is from.

    `digest` is the sha256 over the arrays of all parts: over contents, not over files. `draw`, which only generators
    have, returns n fresh examples and is prefix-stable: the first m of draw(n) are draw(m). `notes` says, a line each,
    what a loader had to leave out.

    Raises:
        DataError: A part is empty, a label is no class, or the parts differ in shape or in having a posterior.
    """

    name: str
    class_names: tuple[str, ...]
    pool: Pool
    validation: Pool
    test: Pool
    digest: str
    source: str
    draw: Draw | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, part in (("pool", self.pool), ("validation", self.validation), ("test", self.test)):
            where = f"data set {self.name}, {what}"
            if not len(part):
                raise DataError(f"{where}: there is no example in it")
            if part.labels.min() < 0 or part.labels.max() >= self.n_classes:
                raise DataError(
                    f"{where}: labels run from {part.labels.min()} to {part.labels.max()}, "
                    f"but the {self.n_classes} classes are 0 to {self.n_classes - 1}"
                )
            if part.images.shape[1:] != self.image_shape or part.images.dtype != self.pool.images.dtype:
                raise DataError(
                    f"{where}: images are {part.images.shape[1:]} {part.images.dtype}, "
                    f"those of the pool {self.image_shape} {self.pool.images.dtype}: make them alike"
                )
            if (part.posterior is None) != (self.pool.posterior is None):
                raise DataError(f"{where}: give all parts a posterior, or none")
            if part.posterior is not None and part.posterior.shape[1] != self.n_classes:
                raise DataError(f"{where}: the posterior has {part.posterior.shape[1]} columns, not {self.n_classes}")

    @property
    def n_classes(self) -> int:
        """The number of classes C."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.pool.images.shape[1:]
        return channels, height, width


def digest_of(*parts: Pool) -> str:
    """Return the sha256 over the arrays of the parts, with their types and shapes, whatever the byte order here."""
    sha = hashlib.sha256()
    for part in parts:
        for array in (part.images, part.labels, part.posterior):
            if array is None:
                sha.update(b"none;")
                continue
            array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            sha.update(f"{array.dtype.str}{array.shape};".encode())
            sha.update(array.data)
    return sha.hexdigest()


def stratified(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n sorted indices drawn without replacement, every class with its share (largest remainders)."""
    counts = np.bincount(labels)
    quota, remainder = np.divmod(n * counts, len(labels))
    quota[np.argsort(-remainder, kind="stable")[: n - quota.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:k] for label, k in enumerate(quota)]
    return np.sort(np.concatenate(chosen))


def draw_labels(posterior_NC: np.ndarray, uniform_N: np.ndarray) -> np.ndarray:
    """Return a label for each example, drawn from its posterior by inversion of uniform numbers in [0, 1)."""
    cumulated_NC = np.cumsum(posterior_NC, axis=1)
    return (uniform_N[:, None] >= cumulated_NC[:, :-1]).sum(axis=1).astype(np.int64)


def _take_out(pool: Pool, n: int, rng: np.random.Generator) -> tuple[Pool, Pool]:
    inside = np.zeros(len(pool), dtype=bool)
    inside[stratified(pool.labels, n, rng)] = True
    return pool.take(np.flatnonzero(inside)), pool.take(np.flatnonzero(~inside))


def cut(
    name: str,
    examples: Pool,
    *,
    class_names: tuple[str, ...],
    source: str,
    seed: int,
    n_validation: int,
    n_test: int,
    test: Pool | None = None,
) -> Dataset:
    """Cut examples into pool, validation and test set, stratified by class, on the streams (seed, "split").

    Args:
        name: The data set's name.
        examples: All examples, or the official training part where `test` is given.
        class_names: One name a class, in the order of the labels.
        source: One sentence that says where the data are from.
        seed: The study seed. The test set depends on it and on `n_test`, not on `n_validation`.
        n_validation: Size of the validation set; it comes out of `examples`.
        n_test: Size of the test set.
        test: The official test part; the test set comes out of it, and the rest of it is not used.

    Raises:
        SpecError: There are not so many examples.
    """
    available = len(examples) if test is None else len(test)
    if not 1 <= n_test <= available:
        fewer = max(1, available // 5) if test is None else available  # the pool needs most of what is not apart
        raise SpecError(
            f"n_test = {n_test}: {name} has {available} examples for the test set: ask for fewer, e.g. n_test={fewer} "
            "in the study file or by --set"
        )
    if test is None and n_test < available:
        test, examples = _take_out(examples, n_test, generator(seed, "split", 0))
    elif test is not None:
        test, _ = _take_out(test, n_test, generator(seed, "split", 0))
    if test is None or not 1 <= n_validation < len(examples):
        left = 0 if test is None else len(examples)  # all of them may be those of the test set
        proposed = f"n_validation={max(1, left // 10)}" if left > 1 else f"n_test={max(1, available // 5)}"
        raise SpecError(
            f"n_validation = {n_validation} with n_test = {n_test}: {name} has {left} examples left for "
            f"the validation set and the pool, and both need some: ask for fewer, e.g. {proposed} in the study file or "
            "by --set"
        )
    validation, pool = _take_out(examples, n_validation, generator(seed, "split", 1))
    return Dataset(name, class_names, pool, validation, test, digest_of(pool, validation, test), source)
