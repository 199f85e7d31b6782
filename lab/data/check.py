"""What may be wrong with a data set, found before anything is trained: one line a finding.

Looked for: classes that are rare or missing, images that occur twice (in one part, in two parts, with two labels), and
images without contrast. Labels out of range and pixels that are not finite never get so far: `Dataset` refuses them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from lab.data.pool import Dataset, Pool

RARE = 10  # a class that is this many times rarer than another is worth a line: accuracy then says little about it
_FOUND: dict[tuple[object, ...], tuple[str, ...]] = {}  # by all they depend on: a process checks a data set once


def findings(dataset: Dataset) -> tuple[str, ...]:
    """Return what may be wrong, one line each; nothing if nothing was found."""
    key = (dataset.digest, dataset.image_shape, dataset.class_names, dataset.notes)
    if key not in _FOUND:
        _FOUND[key] = tuple([*dataset.notes, *_classes(dataset), *_duplicates(dataset), *_constant(dataset)])
    return _FOUND[key]


def _parts(dataset: Dataset) -> dict[str, Pool]:
    return {"the pool": dataset.pool, "the validation set": dataset.validation, "the test set": dataset.test}


def _classes(dataset: Dataset) -> Iterator[str]:
    for where, part in _parts(dataset).items():
        counts = np.bincount(part.labels, minlength=dataset.n_classes)
        missing = [dataset.class_names[c] for c in np.flatnonzero(counts == 0)]
        if missing:
            yield f"no example of {_listed(missing)} in {where}"
    counts = np.bincount(dataset.pool.labels, minlength=dataset.n_classes)
    if counts.min() and counts.max() >= RARE * counts.min():
        most, least = dataset.class_names[int(counts.argmax())], dataset.class_names[int(counts.argmin())]
        yield (
            f"classes are unequal: {counts.max()} examples of {most} in the pool, {counts.min()} of {least}; "
            "see balanced_accuracy"
        )


def _duplicates(dataset: Dataset) -> Iterator[str]:
    keys = {where: _fingerprints(part) for where, part in _parts(dataset).items()}
    for where, found in keys.items():
        n = len(found) - len(set(found))
        if n:
            yield f"{_counted(n)} in {where} {'are copies of others' if n > 1 else 'is a copy of another'} in it"
    names = list(keys)
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            known = set(keys[first])
            n = sum(key in known for key in keys[second])
            if n:
                yield f"{_counted(n)} of {second} {'are' if n > 1 else 'is'} in {first} too: results look too good"
    labels: dict[bytes, Counter[int]] = {}
    for where, part in _parts(dataset).items():
        for key, label in zip(keys[where], part.labels.tolist(), strict=True):
            labels.setdefault(key, Counter())[label] += 1
    n = sum(len(seen) > 1 for seen in labels.values())
    if n:
        yield f"{_counted(n)} {'occur' if n > 1 else 'occurs'} with more than one label"


def _fingerprints(part: Pool) -> list[bytes]:
    return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in part.images]


def _constant(dataset: Dataset) -> Iterator[str]:
    for where, part in _parts(dataset).items():
        flat = part.images.reshape(len(part), -1)
        n = int((flat.max(axis=1) == flat.min(axis=1)).sum())
        if n:
            yield f"{_counted(n)} in {where} {'have' if n > 1 else 'has'} no contrast: all pixels are equal"


def _counted(n: int) -> str:
    return f"{n} image{'s' if n > 1 else ''}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more classes" if len(names) > 5 else "")
