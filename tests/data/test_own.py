"""A study's own function may return arrays or a torch data set, with or without arguments."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from lab.data import DATASETS, datasets, load, own, register
from lab.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, size=(40, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


class Pictures(TorchDataset):
    classes = ("w", "x", "y", "z")

    def __init__(self, form: str) -> None:
        self.form = form

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, k: int):
        if self.form == "pil":
            return Image.fromarray(PIXELS[k]), int(LABELS[k])
        return torch.from_numpy(PIXELS[k]).permute(2, 0, 1), torch.tensor(LABELS[k])


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "DATASETS", dict(DATASETS))

    def load_it(function):
        register("mine", function)
        return load("mine", seed=0)

    return load_it


@pytest.mark.parametrize(
    "function",
    [
        lambda: (PIXELS, LABELS),
        lambda: (PIXELS.transpose(0, 3, 1, 2), LABELS.tolist()),
        lambda seed: (PIXELS, LABELS, Pictures.classes),
        lambda **_: Pictures("pil"),
        lambda data_dir, n_test: Pictures("tensor"),
    ],
    ids=["channels last", "channels first", "names", "torch data set of pictures", "of tensors"],
)
def test_all_forms_are_the_same_data(loaded, function) -> None:
    dataset = loaded(function)
    assert dataset.image_shape == (3, 6, 5)
    assert (len(dataset.pool), len(dataset.validation), len(dataset.test)) == (28, 4, 8)
    everything = np.concatenate([p.images for p in (dataset.pool, dataset.validation, dataset.test)])
    labels = np.concatenate([p.labels for p in (dataset.pool, dataset.validation, dataset.test)])
    found = {(image.transpose(1, 2, 0).tobytes(), label) for image, label in zip(everything, labels, strict=True)}
    assert found == {(image.tobytes(), label) for image, label in zip(PIXELS, LABELS, strict=True)}
    assert dataset.class_names in (Pictures.classes, ("0", "1", "2", "3"))


def test_floating_point_images_are_kept_and_grey_ones_get_a_channel(loaded) -> None:
    dataset = loaded(lambda: (PIXELS[..., 0] / 255, LABELS))
    assert dataset.pool.images.dtype == np.float32
    assert dataset.image_shape == (1, 6, 5)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (PIXELS[0, 0], LABELS, "images of shape"),
        (np.zeros((4, 5, 6, 7)), np.zeros(4, int), "1 or 3 channels"),
        (PIXELS, LABELS[:-1], "one whole number an image"),
        (PIXELS, LABELS + 0.5, "one whole number an image"),
        (PIXELS, LABELS - 1, "count classes from 0"),
        (PIXELS.astype(str), LABELS, "type <U"),
        (PIXELS[:0], LABELS[:0], "one whole number"),
    ],
)
def test_arrays_that_do_not_fit_are_an_error_of_the_data(loaded, images, labels, message: str) -> None:
    with pytest.raises(DataError, match=f"'mine'.*{message}"):
        loaded(lambda: (images, labels))


def test_too_few_class_names_and_pictures_of_several_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="2 class names"):
        own.examples("mine", (PIXELS, LABELS, ("a", "b")))
    with pytest.raises(DataError, match="several shapes"):
        own.examples("mine", [(np.zeros((3, 3)), 0), (np.zeros((4, 3)), 1)])


def test_a_study_file_with_such_a_function_runs(tmp_path: Path) -> None:
    from lab.trial import load_dataset

    file = tmp_path / "own_arrays.py"
    file.write_text(
        "import numpy as np\n"
        "from lab.spec import Study\n"
        "def stripes():\n"
        "    rng = np.random.default_rng(0)\n"
        "    return rng.random((60, 8, 8)), np.arange(60) % 3\n"
        "STUDY = Study(question='?', data='stripes')\n"
    )
    spec = {"data": "stripes", "seed": 0, "n_validation": None, "n_test": None}
    try:
        assert load_dataset(spec, study_file=str(file)).n_classes == 3
    finally:
        DATASETS.pop("stripes", None)
