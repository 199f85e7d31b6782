"""What is wrong with a data set is found and said in one line; of what is right nothing is said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.data import Dataset, Pool, datasets, load
from lab.data.check import findings
from lab.data.pool import digest_of
from lab.errors import DataError

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


# ---- the same of a folder of images, and of what a study's own function returns ------------------------------------


def noise(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, size=(12, 12, 3), dtype=np.uint8)


def put(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def test_all_that_is_wrong_with_a_folder_of_images_is_said(here: Path) -> None:
    for k in range(24):
        put(here / "p/train/ant" / f"{k}.png", noise(k))
        put(here / "p/train/bee" / f"{k}.png", noise(100 + k))
    put(here / "p/train/bee/copy.png", noise(100))  # of one in its own class
    put(here / "p/train/bee/other.png", noise(0))  # of an ant
    put(here / "p/train/cat/0.png", noise(200))
    put(here / "p/train/cat/1.png", noise(201))
    put(here / "p/train/ant/grey.png", np.full((12, 12, 3), 90, dtype=np.uint8))
    (here / "p/train/ant/torn.png").write_bytes((here / "p/train/ant/0.png").read_bytes()[:60])
    for k in range(4):
        put(here / "p/test/ant" / f"{k}.png", noise(300 + k))
        put(here / "p/test/bee" / f"{k}.png", noise(400 + k))
    put(here / "p/test/cat/0.png", noise(5))  # an ant of the training folder
    dataset = load(f"imagefolder:{here / 'p'}@12", seed=0, n_validation=4)
    said = findings(dataset)
    assert said[0] == "1 file left out, unreadable as images: train/ant/torn.png"
    assert any(line.startswith("classes are unequal: ") and "of cat; see balanced_accuracy" in line for line in said)
    # how many copies of a part are in the other depends on the cut; together they are those that were put there
    copies = sum(int(line.split()[0]) for line in said if " copies of others" in line or " too: results" in line)
    copies += sum(int(line.split()[0]) for line in said if " is a copy of another" in line)
    assert copies == 3
    assert "2 images occur with more than one label" in said
    assert sum("no contrast" in line for line in said) == 1


def test_a_folder_without_fault_is_passed_over_in_silence(here: Path) -> None:
    for k in range(30):
        put(here / "p" / ("ant", "bee", "cat")[k % 3] / f"{k}.png", noise(k))
    assert findings(load(f"imagefolder:{here / 'p'}@12", seed=0)) == ()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))

    def load_it(images: np.ndarray, labels: np.ndarray, *names: str) -> Dataset:
        datasets.register("mine", lambda: (images, labels, names) if names else (images, labels))
        return load("mine", seed=0, n_validation=12, n_test=24)

    return load_it


def mine() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(1).random((240, 6, 6)), np.arange(240) % 3


def test_all_that_is_wrong_with_a_users_own_data_is_said(own) -> None:
    images, labels = mine()
    labels = np.where(np.arange(240) < 230, labels % 2, 2)  # ten of the third class
    images[10:14] = images[2]  # four copies, of either label
    images[20:22] = np.array([0.25, 0.75])[:, None, None]
    said = findings(own(images, labels))
    assert any(line.startswith("classes are unequal: ") for line in said)
    assert "1 image occurs with more than one label" in said
    assert sum(int(line.split()[0]) for line in said if "no contrast" in line) == 2
    told = [line for line in said if "cop" in line or "too: results" in line]
    assert told
    assert len(said) == len(set(said))


def test_a_users_data_without_fault_are_passed_over_in_silence(own) -> None:
    assert findings(own(*mine())) == ()


def test_a_class_that_a_user_names_and_has_no_image_of_is_found(own) -> None:
    said = findings(own(*mine(), "ant", "bee", "cat", "dog"))
    assert "no example of dog in the pool" in said
    assert "no example of dog in the test set" in said


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: x.__setitem__((7, 2, 3), np.nan), "holds NaN or infinity: give finite pixels"),
        (lambda x, y: x.__setitem__((7, 2, 3), np.inf), "holds NaN or infinity: give finite pixels"),
        (lambda x, y: y.__setitem__(9, -1), "a label is -1: count classes from 0"),
        (lambda x, y: y.__setitem__(9, 3), "labels run to 3, but there are 3 class names"),
    ],
    ids=["NaN", "infinity", "negative", "beyond"],
)
def test_pixels_that_are_no_numbers_and_labels_that_are_no_class_never_get_so_far(own, spoil, message: str) -> None:
    images, labels = mine()
    spoil(images, labels)
    with pytest.raises(DataError, match=message):
        own(images, labels, "ant", "bee", "cat")
