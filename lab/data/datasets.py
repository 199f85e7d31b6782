"""Data sets by name: images and labels in three disjoint parts.

The *pool* is what training sets are drawn from (lab.data.resampling), the *validation* set serves the search, and on
the *test* set replicas are compared. Splits are seeded and stratified by class. A new data set is one function that
returns a `Dataset`, entered with `register` (a study file can do so for its own data); `cut` makes the three parts.

Legend: N examples, C classes.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lab.data import cifar, gaussians, idx, imagefolder, own, stl10, svhn
from lab.data.published import Published
from lab.errors import DataError, SpecError
from lab.seeds import generator
from lab.spec import check_name

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


# loader(seed=, n_validation=, n_test=, data_dir=): None for a size means the data set's own; data_dir is a Path or None
Loader = Callable[..., Dataset]


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
        raise SpecError(f"n_test = {n_test}: {name} has {available} examples for the test set: give 1 to {available}")
    if test is None and n_test < available:
        test, examples = _take_out(examples, n_test, generator(seed, "split", 0))
    elif test is not None:
        test, _ = _take_out(test, n_test, generator(seed, "split", 0))
    if test is None or not 1 <= n_validation < len(examples):
        raise SpecError(
            f"n_validation = {n_validation} with n_test = {n_test}: {name} has {len(examples)} examples left for "
            "the validation set and the pool, and both need some: ask for fewer"
        )
    validation, pool = _take_out(examples, n_validation, generator(seed, "split", 1))
    return Dataset(name, class_names, pool, validation, test, digest_of(pool, validation, test), source)


def _digits(*, seed: int, n_validation: int | None, n_test: int | None, data_dir: Path | None) -> Dataset:
    """1,797 handwritten digits, 1×8×8. By default 8 disjoint training sets of 150 fit in the pool."""
    return cut(
        "digits",
        digits_examples(),
        class_names=tuple("0123456789"),
        source="Optical recognition of handwritten digits (Alpaydin & Kaynak 1998), the part that scikit-learn ships",
        seed=seed,
        n_validation=197 if n_validation is None else n_validation,
        n_test=400 if n_test is None else n_test,
    )


def digits_examples() -> Pool:
    """Return all of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images / 16.0).astype(np.float32)[:, None]  # counts of set pixels in 4×4 blocks: 0 to 16
    return Pool(images, bunch.target.astype(np.int64))


def _published(
    name: str,
    read: Callable[[Path | None], Published],
    *,
    seed: int,
    n_validation: int | None,
    n_test: int | None,
    data_dir: Path | None,
) -> Dataset:
    """Files with an official training and test part; by default 2,000 of each are the validation and test set.

    Smaller files (a few images to try something out) give a tenth of the training part and all of the test part.
    """
    files = read(data_dir)
    train, test = Pool(files.train_images, files.train_labels), Pool(files.test_images, files.test_labels)
    return cut(
        name,
        train,
        class_names=files.class_names,
        source=files.source,
        seed=seed,
        n_validation=min(2000, max(1, len(train) // 10)) if n_validation is None else n_validation,
        n_test=min(2000, len(test)) if n_test is None else n_test,
        test=test,
    )


def _draw_gaussians(n: int, rng: np.random.Generator) -> Pool:
    return Pool(*gaussians.draw(n, rng))


def _gaussians(*, seed: int, n_validation: int | None, n_test: int | None, data_dir: Path | None) -> Dataset:
    """Parts are independent draws, so not stratified; the pool has the size of that of the digits."""
    n_validation = 500 if n_validation is None else n_validation
    n_test = 1000 if n_test is None else n_test
    if min(n_validation, n_test) < 1:
        raise SpecError(f"n_validation = {n_validation}, n_test = {n_test}: gaussians draws any number from 1 on")
    n_parts = (1200, n_validation, n_test)
    pool, validation, test = (_draw_gaussians(n, generator(seed, "generator", part)) for part, n in enumerate(n_parts))
    digest, names = digest_of(pool, validation, test), gaussians.CLASS_NAMES
    return Dataset("gaussians", names, pool, validation, test, digest, gaussians.SOURCE, draw=_draw_gaussians)


def _teacher(images_of: str, **wanted: Any) -> Dataset:
    from lab.data import teacher  # torch

    return teacher.load(images_of, **wanted)


def _mnist1d(**wanted: Any) -> Dataset:
    from lab.data import mnist1d

    return mnist1d.load(**wanted)


_BUILT_IN: dict[str, Loader] = {
    "digits": _digits,
    **{
        name: partial(_published, name, partial(idx.load, name))
        for name in ("fashion_mnist", "mnist", "kmnist", "emnist")
    },
    **{name: partial(_published, name, partial(cifar.load, name)) for name in ("cifar10", "cifar100")},
    "svhn": partial(_published, "svhn", svhn.load),
    "stl10": partial(_published, "stl10", stl10.load),
    "gaussians": _gaussians,
    "teacher": partial(_teacher, "digits"),
    "teacher_fashion_mnist": partial(_teacher, "fashion_mnist"),
    "mnist1d": _mnist1d,
}
NAMES: tuple[str, ...] = tuple(_BUILT_IN)
DATASETS: dict[str, Loader] = dict(_BUILT_IN)


def register(name: str, loader: Loader) -> None:
    """Enter a data set under a name, e.g. a function of a study file; a second call under the name replaces it.

    Raises:
        SpecError: The name is unusable or that of a data set of the lab.
    """
    check_name(name, "data set")
    if name in _BUILT_IN:
        raise SpecError(f"data set {name!r} is one of the lab's own: register yours under another name")
    DATASETS[name] = loader


def load(
    name: str,
    *,
    seed: int,
    n_validation: int | None = None,
    n_test: int | None = None,
    data_dir: str | Path | None = None,
) -> Dataset:
    """Return a data set, split for the study seed.

    Args:
        name: One of `NAMES`, a registered name, or `imagefolder:PATH` (lab.data.imagefolder).
        seed: The study seed.
        n_validation: Size of the validation set; None for the data set's own.
        n_test: Size of the test set; None for the data set's own.
        data_dir: Where to look first for files; data sets without files do not use it.

    Raises:
        SpecError: The name is unknown, or the data set has fewer examples than are asked for.
        DataError: A file is missing or is not what it claims to be.
    """
    if name.startswith(imagefolder.PREFIX):
        return _folder(name, seed=seed, n_validation=n_validation, n_test=n_test)
    if name not in DATASETS:
        raise SpecError(f"data set {name!r} is unknown: choose one of {', '.join(DATASETS)}, or register yours")
    directory = None if data_dir is None else Path(data_dir).expanduser()
    sizes = {"seed": seed, "n_validation": n_validation, "n_test": n_test}
    returned = own.call(DATASETS[name], sizes | {"data_dir": directory})
    if isinstance(returned, Dataset):
        return returned
    given = own.examples(name, returned)
    if given is None:
        raise DataError(
            f"data set {name!r}: its loader returned a {type(returned).__name__}: return a Dataset, "
            "(images, labels) or a torch data set"
        )
    images, labels, class_names = given
    return _shared_out(
        name, Pool(images, labels), class_names=class_names, source=f"the study's own function {name}",
        seed=seed, n_validation=n_validation, n_test=n_test,
    )  # fmt: skip


def _folder(name: str, *, seed: int, n_validation: int | None, n_test: int | None) -> Dataset:
    folder = imagefolder.load(name)
    examples, is_test = Pool(folder.images, folder.labels), folder.is_test
    test = examples.take(np.flatnonzero(is_test)) if is_test.any() else None
    dataset = _shared_out(
        imagefolder.parse(name)[0].name, examples.take(np.flatnonzero(~is_test)), class_names=folder.class_names,
        source=f"{len(examples)} image files in {len(folder.class_names)} folders", test=test,
        seed=seed, n_validation=n_validation, n_test=n_test,
    )  # fmt: skip
    return dataclasses.replace(dataset, notes=tuple(imagefolder.notes(folder)))


def _shared_out(
    name: str, examples: Pool, *, n_validation: int | None, n_test: int | None, test: Pool | None = None, **rest: Any
) -> Dataset:
    """Cut a user's examples; by default a tenth is the validation set and a fifth the test set, 2,000 at the most.

    A test part of the user's own is all of it by default.
    """
    if n_test is None:
        n_test = len(test) if test is not None else min(2000, max(1, len(examples) // 5))
    return cut(
        name, examples, test=test, n_test=n_test,
        n_validation=min(2000, max(1, len(examples) // 10)) if n_validation is None else n_validation, **rest,
    )  # fmt: skip
