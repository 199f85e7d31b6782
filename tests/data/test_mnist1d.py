"""MNIST-1D is generated once, kept with its digest, and leaves no trace in the global random state."""

import builtins
import random
from pathlib import Path

import numpy as np
import pytest

from lab.data import load, mnist1d
from lab.errors import DataError

SIZES = {"n_validation": 20, "n_test": 20}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory, and few examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mnist1d, "N_EXAMPLES", 100)
    return tmp_path / "data" / "mnist1d" / "mnist1d-100.npz"


def forbid_generating(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(n: int) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr(mnist1d, "_generate", refuse)


def test_examples_are_those_of_the_package(small: Path) -> None:
    from mnist1d.data import get_dataset_args, make_dataset

    settings = get_dataset_args()
    settings.num_samples = 100
    made = make_dataset(settings)
    images, labels = mnist1d.examples(None)
    assert images.shape == (100, 1, 1, 40)
    np.testing.assert_allclose(images[:80, 0, 0], made["x"], atol=1e-5)
    np.testing.assert_array_equal(labels, np.concatenate([made["y"], made["y_test"]]))
    assert np.bincount(labels).tolist() == [10] * 10


def test_what_was_generated_is_kept_and_read_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load("mnist1d", seed=0, **SIZES)
    assert [path.name for path in small.parent.iterdir()] == [small.name]
    forbid_generating(monkeypatch)
    assert load("mnist1d", seed=0, **SIZES).digest == before.digest


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_a_damaged_file_is_generated_again(small: Path, damage: bytes | None) -> None:
    before = load("mnist1d", seed=0, **SIZES)
    if damage is None:  # whole, but other numbers than its digest says
        with np.load(small, allow_pickle=False) as arrays:
            changed = dict(arrays) | {"images": arrays["images"] + 1}
        np.savez_compressed(small, allow_pickle=False, **changed)
    else:
        small.write_bytes(damage)
    assert load("mnist1d", seed=0, **SIZES).digest == before.digest
    with np.load(small, allow_pickle=False) as arrays:
        assert arrays["images"].mean() == pytest.approx(0, abs=1e-3)


def test_the_global_random_state_is_as_before(small: Path) -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global state is the point
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    mnist1d.examples(None)
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002


def test_where_it_cannot_be_kept_it_is_used_all_the_same(small: Path) -> None:
    small.parent.parent.write_bytes(b"a file where the folder would be")
    assert len(mnist1d.examples(None)[0]) == 100


def test_without_the_package_the_message_says_how_to_get_it(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist1d.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="python -m pip install mnist1d"):
        load("mnist1d", seed=0)


def test_what_is_kept_needs_no_package(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("mnist1d", seed=0, **SIZES)
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        assert not name.startswith("mnist1d"), name
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert len(load("mnist1d", seed=0, **SIZES).test) == 20
