"""Properties of all schemes, then of each."""

import numpy as np
import pytest

from lab.data import Dataset, Pool, load
from lab.data.pool import digest_of
from lab.data.resampling import check_scheme, describe, distinct_share, draw_resample, stratified_order
from lab.errors import SpecError
from lab.replication import SCHEMES, Replication

D = 5  # resamples of a partition
N_POOL = 103  # not a multiple of D


def numbered(n_pool: int = N_POOL) -> Dataset:
    """A data set whose image k has the value k in every pixel, so that a resample tells which examples it holds."""

    def part(n: int) -> Pool:
        values = np.arange(n, dtype=np.float32)
        return Pool(np.broadcast_to(values[:, None, None, None], (n, 1, 2, 2)).copy(), np.arange(n) % 3)

    def fresh(n: int, rng: np.random.Generator) -> Pool:
        images = rng.random((n, 4)).astype(np.float32).reshape(n, 1, 2, 2)
        return Pool(images, (images[:, 0, 0, 0] * 3).astype(np.int64))

    pool = part(n_pool)
    return Dataset("numbered", ("a", "b", "c"), pool, part(6), part(6), digest_of(pool), "made up", draw=fresh)


DATASET = numbered()


def resample(
    scheme: str, index: int, n_train: int = 20, seed: int = 0, dataset: Dataset = DATASET, stratified: bool = False
) -> Pool:
    return draw_resample(dataset, scheme, n_train=n_train, n_blocks=D, seed=seed, index=index, stratified=stratified)


def members(pool: Pool) -> list[int]:
    return [int(value) for value in pool.images[:, 0, 0, 0]]


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


# ---- all schemes --------------------------------------------------------------------------------------------------


def test_a_resample_has_the_size_and_the_labels_of_its_examples(scheme: str) -> None:
    drawn = resample(scheme, 3)
    assert len(drawn) == 20
    if scheme == "fresh":
        np.testing.assert_array_equal(drawn.labels, (drawn.images[:, 0, 0, 0] * 3).astype(np.int64))
    else:
        np.testing.assert_array_equal(drawn.labels, np.array(members(drawn)) % 3)


@pytest.mark.parametrize("index", [0, 3, D, 2 * D + 1])
def test_smaller_training_sets_are_nested_in_larger_ones(scheme: str, index: int) -> None:
    largest = resample(scheme, index, n_train=20)
    for n_train in (1, 2, 9, 19):
        np.testing.assert_array_equal(resample(scheme, index, n_train=n_train).images, largest.images[:n_train])


def test_a_resample_does_not_depend_on_which_others_are_drawn(scheme: str) -> None:
    alone = resample(scheme, 7)
    for index in (0, 1, 8, 7):
        again = resample(scheme, index)
    np.testing.assert_array_equal(alone.images, again.images)


def test_every_index_and_every_seed_gives_another_training_set(scheme: str) -> None:
    drawn = {resample(scheme, index, seed=seed).images.tobytes() for index in range(2 * D) for seed in (0, 1)}
    assert len(drawn) == 4 * D


def test_resamples_are_copies(scheme: str) -> None:
    before = DATASET.pool.images.copy()
    resample(scheme, 0).images[:] = -1
    np.testing.assert_array_equal(DATASET.pool.images, before)


def test_the_posterior_comes_along(scheme: str) -> None:
    gaussians = load("gaussians", seed=0)
    drawn = resample(scheme, 1, n_train=30, dataset=gaussians)
    from lab.data.gaussians import posterior

    np.testing.assert_array_equal(drawn.posterior, posterior(drawn.images))


def test_a_negative_index_is_refused(scheme: str) -> None:
    with pytest.raises(ValueError, match="number -1"):
        resample(scheme, -1)


@pytest.mark.parametrize(("n_train", "n_resamples"), [(0, 4), (-3, 4), (5, 0)])
def test_sizes_below_one_are_refused(scheme: str, n_train: int, n_resamples: int) -> None:
    with pytest.raises(SpecError, match="give 1 or more"):
        check_scheme(DATASET, scheme, n_train=n_train, n_resamples=n_resamples)


# ---- disjoint -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partition", [0, 1, 4])
def test_blocks_of_a_partition_share_nothing(partition: int) -> None:
    drawn = [member for block in range(D) for member in members(resample("disjoint", partition * D + block))]
    assert len(set(drawn)) == len(drawn) == D * 20


def test_partitions_differ_and_are_drawn_independently() -> None:
    first, second = (members(resample("disjoint", partition * D)) for partition in (0, 1))
    assert first != second
    # two independent sets of 20 of 103 share about 4; the same or disjoint partitions would share 20 or 0
    shared = [
        len(set(members(resample("disjoint", 0, seed=seed))) & set(members(resample("disjoint", D, seed=seed))))
        for seed in range(40)
    ]
    assert np.mean(shared) == pytest.approx(20 * 20 / N_POOL, abs=1.2)  # standard error 0.27


def test_a_pool_that_just_suffices_is_used_up() -> None:
    dataset = numbered(n_pool=100)
    drawn = [member for block in range(D) for member in members(resample("disjoint", block, dataset=dataset))]
    assert sorted(drawn) == list(range(100))


def test_disjoint_sets_that_do_not_fit_are_refused_with_what_would_fit() -> None:
    check_scheme(DATASET, "disjoint", n_train=20, n_resamples=5)
    message = "need 105 examples, and the pool of numbered has 103: lower n_train to 20 or less, or n_resamples to 4"
    with pytest.raises(SpecError, match=message):
        check_scheme(DATASET, "disjoint", n_train=21, n_resamples=5)
    check_scheme(DATASET, "disjoint", n_train=21, n_resamples=4)
    with pytest.raises(SpecError, match="lower n_resamples to 103 or less"):
        check_scheme(DATASET, "disjoint", n_train=1, n_resamples=104)
    with pytest.raises(SpecError, match="n_train to 20"):
        resample("disjoint", 0, n_train=21)


# ---- subsample, bootstrap, fresh ------------------------------------------------------------------------------------


def test_a_subsample_holds_no_example_twice_and_every_example_equally_often() -> None:
    counts = np.zeros(N_POOL)
    for index in range(400):
        drawn = members(resample("subsample", index))
        assert len(set(drawn)) == 20
        counts[drawn] += 1
    p = 20 / N_POOL
    assert np.abs(counts - 400 * p).max() < 4.5 * np.sqrt(400 * p * (1 - p))


def test_a_subsample_can_be_the_whole_pool_and_not_more() -> None:
    assert sorted(members(resample("subsample", 0, n_train=N_POOL))) == list(range(N_POOL))
    with pytest.raises(SpecError, match="lower n_train to 103 or less"):
        check_scheme(DATASET, "subsample", n_train=N_POOL + 1, n_resamples=2)


@pytest.mark.parametrize("n_train", [50, 500, 1000])
def test_a_bootstrap_holds_the_share_of_distinct_examples_that_theory_says(n_train: int) -> None:
    dataset = numbered(n_pool=500)
    drawn = [members(resample("bootstrap", index, n_train=n_train, dataset=dataset)) for index in range(60)]
    shares = np.array([len(set(one)) / n_train for one in drawn])
    standard_error = shares.std(ddof=1) / np.sqrt(len(shares))
    assert shares.mean() == pytest.approx(distinct_share(n_train, 500), abs=4 * standard_error)


def test_at_the_size_of_the_pool_about_63_percent_of_a_bootstrap_are_distinct() -> None:
    assert distinct_share(1000, 1000) == pytest.approx(1 - np.exp(-1), abs=5e-4)
    assert distinct_share(1, 1000) == pytest.approx(1)
    assert distinct_share(4, 1) == 0.25


def test_fresh_examples_need_a_generator() -> None:
    with pytest.raises(SpecError, match="digits is a fixed set of examples: choose disjoint"):
        check_scheme(load("digits", seed=0), "fresh", n_train=10, n_resamples=2)


def test_fresh_training_sets_may_be_larger_than_the_pool() -> None:
    assert len(resample("fresh", 0, n_train=5 * N_POOL)) == 5 * N_POOL


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    for call in (
        lambda: check_scheme(DATASET, "disjunct", n_train=1, n_resamples=2),
        lambda: resample("disjunct", 0),
        lambda: Replication(scheme="disjunct"),
    ):
        with pytest.raises(SpecError, match="'disjunct' is unknown: choose one of fresh, disjoint"):
            call()


# ---- stratified -----------------------------------------------------------------------------------------------------


UNEQUAL = Dataset(
    "unequal", ("a", "b", "c"),
    *(
        Pool(np.arange(len(labels), dtype=np.float32)[:, None, None, None].copy(), labels)
        for labels in (np.repeat([0, 1, 2], [60, 30, 10]), np.arange(6) % 3, np.arange(6) % 3)
    ),
    digest="", source="made up",
)  # fmt: skip


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "fresh"])
@pytest.mark.parametrize("n_train", [3, 10, 20])
def test_a_stratified_training_set_has_the_pools_shares_to_one_example(scheme: str, n_train: int) -> None:
    for index in range(2 * D):
        drawn = resample(scheme, index, n_train=n_train, dataset=UNEQUAL, stratified=True)
        off = np.bincount(drawn.labels, minlength=3) - n_train * np.array([0.6, 0.3, 0.1])
        assert np.abs(off).max() < 1 + 1e-9


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "fresh"])
def test_without_stratification_the_shares_vary(scheme: str) -> None:
    counts = [np.bincount(resample(scheme, d, dataset=UNEQUAL).labels, minlength=3)[0] for d in range(2 * D)]
    assert np.ptp(counts) > 2


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "fresh"])
def test_stratified_training_sets_are_nested_and_hold_every_example_equally_often(scheme: str) -> None:
    counts = np.zeros(100)
    for index in range(400):
        drawn = resample(scheme, index, dataset=UNEQUAL, stratified=True)
        half = resample(scheme, index, n_train=10, dataset=UNEQUAL, stratified=True)
        np.testing.assert_array_equal(half.images, drawn.images[:10])
        np.add.at(counts, members(drawn), 1)
    # disjoint: 80 partitions, each uses every example once
    assert np.abs(counts - 80).max() <= (0 if scheme == "disjoint" else 4.5 * np.sqrt(400 * 0.2))


def test_stratified_blocks_of_a_partition_share_nothing() -> None:
    drawn = [m for d in range(D) for m in members(resample("disjoint", d, dataset=UNEQUAL, stratified=True))]
    assert sorted(drawn) == list(range(100))


def test_a_stratified_order_is_random_within_a_class() -> None:
    labels = np.repeat([0, 1], 20)
    first, second = (stratified_order(labels, np.random.default_rng(k)) for k in (0, 1))
    assert sorted(first) == list(range(40))
    assert list(first[labels[first] == 0]) != list(second[labels[second] == 0])


# ---- seeds ----------------------------------------------------------------------------------------------------------


def test_seeds_share_one_training_set_and_the_confirmation_takes_another() -> None:
    with pytest.raises(SpecError, match="one training set, and n_resamples = 4"):
        Replication(scheme="seeds", n_resamples=4)
    first, second = set(members(resample("seeds", 0))), set(members(resample("seeds", 1)))
    assert len(first) == len(second) == 20
    assert first != second


# ---- in words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "n_train", "phrases"),
    [
        (dict(scheme="fresh"), 150, ["8 training sets of 150 examples", "drawn anew"]),
        (
            dict(scheme="disjoint"),
            150,
            ["disjoint blocks of a pool of 1,200", "unbiased at", "blocks of more than 150 do not"],
        ),
        (dict(scheme="subsample"), 300, ["m/N = 0.25", "share 75 examples", "1 − m/N = 75% of", "booked as bias²"]),
        (dict(scheme="subsample"), 1200, ["m/N = 1.00", "none of the variance from sampling"]),
        (dict(scheme="bootstrap"), 1200, ["63% of the examples", "duplicates count more than once"]),
        (dict(scheme="seeds", n_resamples=1), 150, ["share one training set of 150", "booked as bias²"]),
        (dict(n_partitions=2), 150, ["4 to a partition", "blocks of more than 300", "2 partitions are averaged"]),
        (dict(n_noise_draws=3), 150, ["3 independent draws of its label noise"]),
        (dict(stratified=True), 150, ["the pool's shares of the classes"]),
    ],
)
def test_the_report_says_what_a_plan_can_show(plan: dict[str, object], n_train: int, phrases: list[str]) -> None:
    text = describe(Replication(**plan), n_train=n_train, n_pool=1200)
    for phrase in phrases:
        assert phrase in text
    assert text.endswith(".")
    assert text.count(". ") <= 2


def test_two_subsamples_share_as_many_examples_as_the_report_says() -> None:
    shared = [
        len(set(members(resample("subsample", 2 * k, n_train=40))) & set(members(resample("subsample", 2 * k + 1, 40))))
        for k in range(100)
    ]
    assert np.mean(shared) == pytest.approx(40 * 40 / N_POOL, abs=1.3)  # standard error 0.3
