"""Data sets by name: images and labels in three disjoint parts.

The *pool* is what training sets are drawn from (lab.data.resampling), the *validation* set serves the search, and on
the *test* set replicas are compared. Splits are seeded and stratified by class. A new data set is one function that
returns a `Dataset`, entered with `register` (a study file can do so for its own data); `cut` makes the three parts.

Legend: N examples, C classes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lab.data import cifar, classes, digits, gaussians, idx, imagefolder, own, stl10, svhn
from lab.data.pool import Dataset, Pool, cut, digest_of
from lab.data.published import Published
from lab.errors import DataError, SpecError
from lab.seeds import generator
from lab.spec import check_name

# loader(seed=, n_validation=, n_test=, data_dir=): None for a size means the data set's own; data_dir is a Path or None
Loader = Callable[..., Dataset]


def _digits(*, seed: int, n_validation: int | None, n_test: int | None, data_dir: Path | None) -> Dataset:
    """1,797 handwritten digits, 1×8×8. By default 8 disjoint training sets of 150 fit in the pool."""
    return cut(
        "digits",
        digits.examples(),
        class_names=tuple("0123456789"),
        source="Optical recognition of handwritten digits (Alpaydin & Kaynak 1998), the part that scikit-learn ships",
        seed=seed,
        n_validation=197 if n_validation is None else n_validation,
        n_test=400 if n_test is None else n_test,
    )


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
        name: One of `NAMES`, a registered name, `imagefolder:PATH` (lab.data.imagefolder), or some classes of any but
            the latter, as in `digits[0-4]` (lab.data.classes).
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
    chosen = classes.parse(name)
    if chosen is not None:
        whole = load(chosen[0], seed=seed, data_dir=data_dir)
        return classes.restricted(whole, chosen[1], name=name, n_validation=n_validation, n_test=n_test)
    if name not in DATASETS:
        raise SpecError(
            f"data set {name!r} is unknown: choose one of {', '.join(DATASETS)}, imagefolder:PATH, or a function "
            "of the study file"
        )
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
