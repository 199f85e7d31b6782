"""What is wrong with a data set is found and said in one line; of what is right nothing is said."""

import numpy as np
import pytest

from lab.data import Dataset, Pool, load
from lab.data.check import findings
from lab.data.pool import digest_of

NAMES = ("ant", "bee", "cat")


def part(n: int, key: int, labels: np.ndarray | None = None) -> Pool:
    images = np.random.default_rng(key).random((n, 1, 4, 4), dtype=np.float32)
    return Pool(images, np.arange(n) % 3 if labels is None else labels)


def found(pool: Pool | None = None, test: Pool | None = None, **more: object) -> tuple[str, ...]:
    pool, validation, test = pool or part(60, 0), part(9, 1), test or part(12, 2)
    digest = digest_of(pool, validation, test)
    return findings(Dataset("some", NAMES, pool, validation, test, digest, "made up", **more))


def with_images(pool: Pool, images: dict[int, np.ndarray]) -> Pool:
    changed = pool.images.copy()
    for k, image in images.items():
        changed[k] = image
    return Pool(changed, pool.labels)


@pytest.mark.parametrize("name", ["digits", "gaussians"])
def test_nothing_is_wrong_with_the_data_that_come_with_the_lab(name: str) -> None:
    assert findings(load(name, seed=0)) == ()


def test_nothing_is_said_of_what_is_right() -> None:
    assert found() == ()


def test_copies_in_one_part_are_counted() -> None:
    pool = part(60, 0)
    assert found(with_images(pool, {3: pool.images[0], 6: pool.images[0]})) == (
        "2 images in the pool are copies of others in it",
    )


def test_copies_across_parts_are_counted() -> None:
    pool, test = part(60, 0), part(12, 2)
    assert found(pool, with_images(test, {0: pool.images[3]})) == (
        "1 image of the test set is in the pool too: results look too good",
    )


def test_one_image_with_two_labels_is_found() -> None:
    pool = part(60, 0)
    assert "1 image occurs with more than one label" in found(with_images(pool, {1: pool.images[0]}))


def test_images_without_contrast_are_counted() -> None:
    pool = with_images(part(60, 0), {4: np.full((1, 4, 4), 0.5), 5: np.full((1, 4, 4), 0.1)})
    assert found(pool) == ("2 images in the pool have no contrast: all pixels are equal",)


def test_rare_and_missing_classes_are_named() -> None:
    labels = np.repeat([0, 1, 2], [50, 8, 2])
    assert found(part(60, 0, labels)) == (
        "classes are unequal: 50 examples of ant in the pool, 2 of cat; see balanced_accuracy",
    )
    assert found(test=part(12, 2, np.arange(12) % 2)) == ("no example of cat in the test set",)


def test_what_a_loader_left_out_is_said_first() -> None:
    digestless = part(60, 7)
    assert found(digestless, notes=("3 files left out",)) == ("3 files left out",)
