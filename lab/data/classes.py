"""Some classes of a data set: `fashion_mnist[5-9]`, `digits[0,3,8]`, counted from 0 in the order of its class names.

The parts of the whole data set stay apart: what is in its test set is in the test set here, and so on. Labels count
the chosen classes from 0, in the order in which they are named.
"""

import re

import numpy as np

from lab.data.pool import Dataset, Pool, digest_of
from lab.errors import SpecError

MOST_CLASSES = 10_000
SUFFIX = re.compile(r"(?P<name>[^\[\]]+)\[(?P<classes>[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)\]")


def parse(name: str) -> tuple[str, list[int]] | None:
    """Return a data set's name and the classes that are asked for, None if it is the name of a whole one.

    Raises:
        SpecError: A class is named twice, or there is only one.
    """
    match = SUFFIX.fullmatch(name)
    if match is None:
        return None
    chosen: list[int] = []
    for part in match["classes"].split(","):
        first, _, last = part.partition("-")
        if int(last or first) >= MOST_CLASSES:
            raise SpecError(f"data set {name!r}: no data set has {MOST_CLASSES:,} classes")
        chosen += range(int(first), int(last or first) + 1)
    if len(set(chosen)) < max(len(chosen), 2):
        raise SpecError(f"data set {name!r}: name two classes or more, each once, e.g. {match['name']}[0-4]")
    return match["name"], chosen


def restricted(
    whole: Dataset, chosen: list[int], *, name: str, n_validation: int | None, n_test: int | None
) -> Dataset:
    """Return the examples of these classes; of the validation and test set the first so many, None for all of them.

    Raises:
        SpecError: There is no such class, there are not so many examples, or the classes of the data are uncertain.
    """
    if max(chosen) >= whole.n_classes:
        raise SpecError(f"data set {name!r}: {whole.name} has the classes 0 to {whole.n_classes - 1}")
    if whole.test.posterior is not None or whole.draw is not None:
        raise SpecError(f"data set {name!r}: {whole.name} has no examples of one class for certain: take all classes")
    parts = {}
    for part, n in (("pool", None), ("validation", n_validation), ("test", n_test)):
        examples: Pool = getattr(whole, part)
        places = np.flatnonzero(np.isin(examples.labels, chosen))
        if n is not None and n > len(places):
            raise SpecError(
                f"n_{part} = {n}: {name} has {len(places)} examples in the {part} set of {whole.name}: ask for fewer"
            )
        new_label = np.full(whole.n_classes, -1)
        new_label[chosen] = np.arange(len(chosen))
        taken = examples.take(places[:n])
        parts[part] = Pool(taken.images, new_label[taken.labels])
    names = tuple(whole.class_names[c] for c in chosen)
    source = f"{whole.source}; the classes {', '.join(names)}"
    pool, validation, test = parts["pool"], parts["validation"], parts["test"]
    digest = digest_of(pool, validation, test)
    return Dataset(name, names, pool, validation, test, digest, source, notes=whole.notes)
