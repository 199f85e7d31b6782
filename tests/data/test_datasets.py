"""One contract for all data sets (`case`), then what is special to `cut`, `register`, `load` and the dataclasses."""

import dataclasses
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_files import Case

from lab.data import DATASETS, NAMES, Dataset, Pool, cut, datasets, load, register
from lab.data.pool import digest_of, stratified
from lab.errors import DataError, SpecError

SIZES = {"n_validation": 60, "n_test": 75}


def parts(dataset: Dataset) -> dict[str, Pool]:
    return {"pool": dataset.pool, "validation": dataset.validation, "test": dataset.test}


def contents(pool: Pool) -> set[bytes]:
    return {image.tobytes() for image in pool.images}


# ---- the contract -------------------------------------------------------------------------------------------------


def test_parts_have_the_shapes_and_types_of_the_contract(case: Case) -> None:
    dataset = case.load(**SIZES)
    assert dataset.name == case.name
    assert dataset.n_classes == len(dataset.class_names) == len(set(dataset.class_names))
    for part in parts(dataset).values():
        assert part.images.shape == (len(part), *dataset.image_shape)
        assert part.images.dtype in (np.float32, np.uint8)
        assert part.images.flags.c_contiguous
        assert part.images.flags.writeable  # torch.from_numpy warns of arrays that are not
        assert part.labels.shape == (len(part),)
        assert part.labels.dtype == np.int64
        assert np.isfinite(part.images).all()


def test_every_label_is_a_class_and_every_class_is_in_the_pool(case: Case) -> None:
    dataset = case.load(**SIZES)
    assert set(np.unique(dataset.pool.labels)) == set(range(dataset.n_classes))
    for part in parts(dataset).values():
        assert set(np.unique(part.labels)) <= set(range(dataset.n_classes))


def test_validation_and_test_set_have_the_sizes_asked_for(case: Case) -> None:
    dataset = case.load(**SIZES)
    assert (len(dataset.validation), len(dataset.test)) == (60, 75)
    assert len(dataset.pool) >= 60


def test_no_image_stands_in_two_parts(case: Case) -> None:
    pool, validation, test = (contents(part) for part in parts(case.load(**SIZES)).values())
    assert not pool & validation
    assert not pool & test
    assert not validation & test


def test_splits_are_stratified_by_class(case: Case) -> None:
    dataset = case.load(**SIZES)
    if dataset.draw is not None:
        pytest.skip("independent draws: a generator has no examples to share out")
    rest = [dataset.pool.labels, dataset.validation.labels]
    everything = np.concatenate([*rest, dataset.test.labels])
    source = everything if case.official_test_labels is None else case.official_test_labels
    for part, whole in ((dataset.validation, np.concatenate(rest)), (dataset.test, source)):
        share = np.bincount(whole, minlength=dataset.n_classes) / len(whole)
        assert np.all(np.abs(np.bincount(part.labels, minlength=dataset.n_classes) - share * len(part)) < 1)


def test_the_same_seed_gives_the_same_data_and_another_seed_another_split(case: Case) -> None:
    first, again, other = case.load(0, **SIZES), case.load(0, anew=True, **SIZES), case.load(1, **SIZES)
    assert first is not again
    assert first.digest == again.digest
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert first.digest != other.digest
    assert contents(first.test) != contents(other.test)
    assert contents(first.validation) != contents(other.validation)


def test_the_digest_is_that_of_the_contents(case: Case) -> None:
    dataset = case.load(**SIZES)
    assert dataset.digest == digest_of(*parts(dataset).values())
    assert len(dataset.digest) == 64


def test_the_test_set_does_not_depend_on_the_size_of_the_validation_set(case: Case) -> None:
    dataset, other = case.load(**SIZES), case.load(n_validation=31, n_test=75)
    np.testing.assert_array_equal(dataset.test.images, other.test.images)


def test_a_posterior_is_a_distribution_and_those_with_known_truth_have_one(case: Case) -> None:
    dataset = case.load(**SIZES)
    for part in parts(dataset).values():
        assert (part.posterior is not None) == case.name.startswith(("gaussians", "teacher"))
        if part.posterior is not None:
            assert part.posterior.shape == (len(part), dataset.n_classes)
            assert part.posterior.dtype == np.float64
            np.testing.assert_allclose(part.posterior.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_default_sizes_leave_a_pool(case: Case) -> None:
    dataset = case.load()
    assert len(dataset.pool) > len(dataset.validation)
    assert len(dataset.validation) >= 10
    assert len(dataset.test) >= 10


def test_too_large_sizes_are_an_error_of_the_study(case: Case) -> None:
    if case.load(**SIZES).draw is not None:
        pytest.skip("a generator draws any number")
    with pytest.raises(SpecError, match="n_test = 1000000"):
        case.load(n_test=1_000_000)
    with pytest.raises(SpecError, match="n_validation = 1000000"):
        case.load(n_validation=1_000_000, n_test=75)


def test_sizes_below_one_are_an_error_of_the_study(case: Case) -> None:
    with pytest.raises(SpecError, match="n_test = 0"):
        case.load(n_validation=60, n_test=0)
    with pytest.raises(SpecError, match="n_validation = 0"):
        case.load(n_validation=0, n_test=75)


def test_a_data_set_can_be_sent_to_another_process(case: Case) -> None:
    dataset = case.load(**SIZES)
    if dataset.name == "fashion_mnist" and len(dataset.pool) > 10_000:
        pytest.skip("the same code as for the small files, but 50 MB")
    assert digest_of(*parts(pickle.loads(pickle.dumps(dataset))).values()) == dataset.digest


# ---- single data sets ---------------------------------------------------------------------------------------------


def test_the_default_pool_of_the_digits_holds_eight_disjoint_training_sets_of_150() -> None:
    dataset = load("digits", seed=3)
    assert (len(dataset.pool), len(dataset.validation), len(dataset.test)) == (1200, 197, 400)
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.pool.images.dtype == np.float32
    assert (dataset.pool.images.min(), dataset.pool.images.max()) == (0.0, 1.0)


def test_the_parts_of_the_digits_together_are_the_digits() -> None:
    from sklearn.datasets import load_digits

    dataset = load("digits", seed=3)
    expected = sorted((image.tobytes(), label) for image, label in zip(*load_digits(return_X_y=True), strict=True))
    got = [
        ((image.reshape(64) * 16).astype(np.float64).tobytes(), label)
        for part in parts(dataset).values()
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    assert sorted(got) == expected


# ---- stratified, cut ----------------------------------------------------------------------------------------------


def test_stratified_takes_exactly_n_by_largest_remainders() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 21])
    chosen = stratified(labels, 10, np.random.default_rng(0))
    assert len(set(chosen)) == len(chosen) == 10
    # by hand: quotas 4.950, 2.970, 2.079
    assert list(np.bincount(labels[chosen])) == [5, 3, 2]


@pytest.mark.parametrize("n", [1, 7, 100, 101])
def test_stratified_takes_exactly_n_at_any_n(n: int) -> None:
    labels = np.repeat([0, 1, 2, 5], [50, 30, 20, 1])
    chosen = stratified(labels, n, np.random.default_rng(0))
    assert len(np.unique(chosen)) == n


def some_examples(n: int = 40) -> Pool:
    rng = np.random.default_rng(5)
    return Pool(rng.random((n, 3, 4, 5), dtype=np.float32), np.arange(n) % 2)


def cut_some(**changes: object) -> Dataset:
    arguments = {
        "class_names": ("a", "b"), "source": "made up", "seed": 0, "n_validation": 8, "n_test": 10, **changes,
    }  # fmt: skip
    return cut("mine", some_examples(), **arguments)  # type: ignore[arg-type]


def test_cut_without_an_official_test_part_shares_out_all_examples() -> None:
    dataset = cut_some()
    assert (len(dataset.pool), len(dataset.validation), len(dataset.test)) == (22, 8, 10)
    assert len(contents(dataset.pool) | contents(dataset.validation) | contents(dataset.test)) == 40
    assert dataset.image_shape == (3, 4, 5)


def test_cut_carries_the_posterior_along_with_its_examples() -> None:
    examples = some_examples()
    posterior = np.stack([examples.images[:, 0, 0, 0], 1 - examples.images[:, 0, 0, 0]], axis=1).astype(np.float64)
    with_posterior = dataclasses.replace(examples, posterior=posterior)
    dataset = cut("mine", with_posterior, class_names=("a", "b"), source="", seed=0, n_validation=8, n_test=10)
    for part in parts(dataset).values():
        assert part.posterior is not None
        np.testing.assert_array_equal(part.posterior[:, 0].astype(np.float32), part.images[:, 0, 0, 0])


@pytest.mark.parametrize("sizes", [{"n_test": 40}, {"n_test": 41}, {"n_validation": 30}, {"n_validation": -1}])
def test_cut_leaves_something_in_every_part(sizes: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="mine"):
        cut_some(**sizes)


@pytest.mark.parametrize(
    "sizes", [{"n_test": 40}, {"n_test": 41}, {"n_test": 35, "n_validation": 20}, {"n_validation": 0}]
)
def test_what_a_message_of_cut_tells_to_ask_for_can_be_had(sizes: dict[str, int]) -> None:
    with pytest.raises(SpecError) as raised:
        cut_some(**sizes)
    ((name, value),) = re.findall(r"e\.g\. (\w+)=(\d+) ", str(raised.value))
    assert cut_some(**sizes | {name: int(value)}).pool


# ---- register, load -----------------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "DATASETS", dict(DATASETS))


@pytest.mark.usefixtures("registry")
def test_a_registered_data_set_loads_by_name_with_what_was_asked_for() -> None:
    asked: dict[str, object] = {}

    def loader(**arguments: object) -> Dataset:
        asked.update(arguments)
        return cut_some(seed=arguments["seed"])

    register("mine", loader)
    assert load("mine", seed=4, n_test=10, data_dir="somewhere").name == "mine"
    assert asked == {"seed": 4, "n_validation": None, "n_test": 10, "data_dir": Path("somewhere")}


@pytest.mark.usefixtures("registry")
def test_a_loader_that_returns_something_else_is_an_error_of_the_data() -> None:
    register("mine", lambda **_: some_examples())
    with pytest.raises(DataError, match="returned a Pool"):
        load("mine", seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_the_lab_cannot_be_taken(name: str) -> None:
    with pytest.raises(SpecError, match="another name"):
        register(name, DATASETS["digits"])


def test_a_name_that_is_no_name_cannot_be_registered() -> None:
    with pytest.raises(SpecError, match="not a usable name"):
        register("../mine", DATASETS["digits"])


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(SpecError, match="'digit' is unknown: choose one of digits, fashion_mnist"):
        load("digit", seed=0)


# ---- Pool, Dataset ------------------------------------------------------------------------------------------------

IMAGES = np.zeros((4, 1, 2, 2), dtype=np.float32)
LABELS = np.zeros(4, dtype=np.int64)


@pytest.mark.parametrize(
    ("images", "labels", "posterior", "message"),
    [
        (IMAGES[:, 0], LABELS, None, "images of shape"),
        (IMAGES.astype(np.float64), LABELS, None, "images of shape"),
        (IMAGES, LABELS[:3], None, "labels of shape"),
        (IMAGES, LABELS.astype(np.int32), None, "labels of shape"),
        (np.full_like(IMAGES, np.nan), LABELS, None, "NaN"),
        (IMAGES, LABELS, np.full((3, 2), 0.5), "posterior of shape"),
        (IMAGES, LABELS, np.full((4, 2), 0.5, dtype=np.float32), "posterior of shape"),
        (IMAGES, LABELS, np.full((4, 2), 0.6), "sum to 1"),
        (IMAGES, LABELS, np.tile([1.5, -0.5], (4, 1)), "no probability"),
    ],
)
def test_a_pool_refuses_arrays_that_do_not_fit(images, labels, posterior, message) -> None:
    with pytest.raises(DataError, match=message):
        Pool(images, labels, posterior)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (Pool(IMAGES, LABELS + 2), "labels run from 2 to 2"),
        (Pool(IMAGES, LABELS - 1), "labels run from -1 to -1"),
        (Pool(IMAGES[:0], LABELS[:0]), "no example"),
        (Pool(IMAGES[:, :, :1], LABELS), "make them alike"),
        (Pool(IMAGES.astype(np.uint8), LABELS), "make them alike"),
        (Pool(IMAGES, LABELS, np.full((4, 2), 0.5)), "or none"),
    ],
)
def test_a_data_set_refuses_a_part_that_does_not_fit(test: Pool, message: str) -> None:
    fine = Pool(IMAGES, LABELS)
    with pytest.raises(DataError, match=f"mine, test: .*{message}"):
        Dataset("mine", ("a", "b"), fine, fine, test, "", "")


def test_the_digest_sees_pixels_labels_and_posterior() -> None:
    posterior = np.full((4, 2), 0.5)
    variants = [
        Pool(IMAGES, LABELS), Pool(IMAGES + 1, LABELS), Pool(IMAGES, LABELS + 1), Pool(IMAGES, LABELS, posterior),
        Pool(IMAGES.reshape(4, 1, 4, 1), LABELS), Pool(IMAGES.astype(np.uint8), LABELS),
    ]  # fmt: skip
    assert len({digest_of(variant) for variant in variants}) == len(variants)
    assert digest_of(variants[0]) == digest_of(Pool(IMAGES.copy(), LABELS.copy()))


def test_importing_the_package_needs_numpy_alone() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'sklearn', 'scipy', 'pandas', 'mlflow', 'optuna', 'plotly'):\n"
        "    sys.modules[name] = None\n"  # an import of it fails
        "import lab.data, lab.data.resampling, lab.data.transforms\n"
        "print(len(lab.data.load('gaussians', seed=0).pool))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("1200\n", "")


def test_loading_leaves_the_global_random_state_alone() -> None:
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    for name in ("digits", "gaussians"):
        load(name, seed=0)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    np.testing.assert_equal(after, before)
