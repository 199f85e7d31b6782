"""Training sets have the imbalance that was asked for, of equal sizes, nested; sampling balances them again."""

import sys
from collections import Counter

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler

from lab.data import Pool, imbalance, load
from lab.data.resampling import training_sets
from lab.errors import SpecError
from lab.knobs import TrialConfig
from lab.replication import Replication
from lab.seeds import generator

PLANS = [
    Replication("fresh", 3, 2), Replication("disjoint", 3, 2), Replication("subsample", 3, 2),
    Replication("bootstrap", 3, 2), Replication("seeds", 1, 2), Replication("disjoint", 3, 2, stratified=True),
]  # fmt: skip


def counts(pool: Pool, n_classes: int = 10) -> np.ndarray:
    return np.bincount(pool.labels, minlength=n_classes)


def sets(replication: Replication, **knobs: object) -> list[Pool]:
    config = TrialConfig(**{"n_train": 100, **knobs})
    return training_sets(config, load("gaussians", seed=0), replication, seed=0)


def test_the_profile_falls_exponentially_from_the_first_class_to_the_last() -> None:
    shares = imbalance.profile(np.full(5, 30), 16.0)
    np.testing.assert_allclose(shares / shares[-1], [16, 8, 4, 2, 1])


def test_a_class_sequence_has_its_proportions_at_every_length() -> None:
    weights = np.array([5.0, 3.0, 0.0, 1.0, 0.25])
    sequence = imbalance.class_sequence(weights, 500)
    assert len(sequence) == 500
    for n in range(1, 501):
        got = np.bincount(sequence[:n], minlength=5)
        np.testing.assert_array_less(np.abs(got - n * weights / weights.sum()), 1.5)


def test_places_go_to_classes_as_webster_would_give_them_one_by_one() -> None:
    weights, given, expected = np.array([53.0, 24.0, 23.0, 7.0]), np.zeros(4), []
    for _ in range(60):
        c = int(np.argmax(weights / (2 * given + 1)))
        given[c] += 1
        expected.append(c)
    assert Counter(imbalance.class_sequence(weights, 60).tolist()) == Counter(expected)


@pytest.mark.parametrize("replication", PLANS, ids=lambda plan: plan.scheme)
def test_every_training_set_of_a_trial_has_the_same_counts_in_the_ratio_asked_for(replication: Replication) -> None:
    drawn = sets(replication, imbalance_ratio=10.0)
    first = counts(drawn[0])
    assert first.sum() == 100
    for pool in drawn:
        np.testing.assert_array_equal(counts(pool), first)
    pool_counts = counts(load("gaussians", seed=0).pool)
    expected = pool_counts * 10.0 ** (-np.arange(10) / 9)
    assert np.abs(first - 100 * expected / expected.sum()).max() < 1.5


@pytest.mark.parametrize("replication", PLANS[:4], ids=lambda plan: plan.scheme)
def test_smaller_training_sets_are_the_beginnings_of_larger_ones(replication: Replication) -> None:
    for small, large in zip(
        sets(replication, imbalance_ratio=10.0, n_train=60), sets(replication, imbalance_ratio=10.0), strict=True
    ):
        np.testing.assert_array_equal(small.images, large.images[:60])


def test_disjoint_training_sets_stay_disjoint() -> None:
    one, two, three = ({image.tobytes() for image in pool.images} for pool in sets(PLANS[1], imbalance_ratio=10.0))
    assert not (one & two or one & three or two & three)


def test_a_ratio_of_1_without_sampling_changes_nothing() -> None:
    config = TrialConfig(n_train=50)
    assert not imbalance.is_asked_for(config)


def test_a_pool_without_enough_of_a_class_says_what_to_lower() -> None:
    with pytest.raises(SpecError, match=r"imbalance_ratio = 100: 400 training examples take \d+ of class 0, .*lower"):
        sets(PLANS[1], imbalance_ratio=100.0, n_train=400)


# ---- sampling -----------------------------------------------------------------------------------------------------


def unequal() -> Pool:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 3], [30, 12, 7]).astype(np.int64)
    return Pool(rng.random((49, 1, 3, 4), dtype=np.float32), rng.permutation(labels))


def flat(pool: Pool) -> np.ndarray:
    return pool.images.reshape(len(pool), -1)


@pytest.mark.parametrize(
    ("sampling", "peer"),
    [("oversample", RandomOverSampler), ("undersample", RandomUnderSampler), ("smote", SMOTE)],
)
def test_counts_are_those_of_imbalanced_learn(sampling: str, peer: type) -> None:
    pool = unequal()
    _, labels = peer(random_state=0).fit_resample(flat(pool), pool.labels)
    got = imbalance.resampled(pool, sampling, generator(0, "rebalance", 0))
    assert Counter(got.labels.tolist()) == Counter(labels.tolist())
    assert got.images.shape[1:] == pool.images.shape[1:]


@pytest.mark.parametrize("sampling", ["oversample", "undersample"])
def test_sampling_repeats_or_leaves_out_and_invents_nothing(sampling: str) -> None:
    pool = unequal()
    known = {(image.tobytes(), label) for image, label in zip(pool.images, pool.labels, strict=True)}
    got = imbalance.resampled(pool, sampling, generator(0, "rebalance", 0))
    got_pairs = Counter((image.tobytes(), label) for image, label in zip(got.images, got.labels, strict=True))
    assert set(got_pairs) <= known
    if sampling == "oversample":
        assert set(got_pairs) == known
    else:
        assert max(got_pairs.values()) == 1


def test_smote_keeps_the_examples_and_puts_new_ones_on_lines_between_two_of_a_class() -> None:
    pool = unequal()
    got = imbalance.resampled(pool, "smote", generator(0, "rebalance", 0))
    np.testing.assert_array_equal(got.images[:49], pool.images)
    for image, label in list(zip(flat(got)[49:], got.labels[49:], strict=True))[:10]:
        members = flat(pool)[pool.labels == label].astype(np.float64)
        starts, ends = members[:, None], members[None]
        length = ((ends - starts) ** 2).sum(-1)
        share = ((image - starts) * (ends - starts)).sum(-1) / np.where(length > 0, length, 1)
        off = ((starts + share[..., None] * (ends - starts) - image) ** 2).sum(-1)
        assert off[(share >= 0) & (share <= 1) & (length > 0)].min() < 1e-10


def test_smote_gives_bytes_back_as_shares_of_255() -> None:
    pool = unequal()
    bytes_ = Pool((pool.images * 255).astype(np.uint8), pool.labels)
    got = imbalance.resampled(bytes_, "smote", generator(0, "rebalance", 0))
    assert got.images.dtype == np.float32
    assert 0 <= got.images.min() and got.images.max() <= 1


@pytest.mark.parametrize("sampling", ["oversample", "undersample", "smote"])
def test_training_sets_of_a_trial_are_balanced_and_of_one_size_and_repeat(sampling: str) -> None:
    drawn, again = (sets(PLANS[0], imbalance_ratio=10.0, sampling=sampling) for _ in range(2))
    for pool, same in zip(drawn, again, strict=True):
        assert len(set(counts(pool))) == 1
        assert len(pool) == len(drawn[0])
        np.testing.assert_array_equal(pool.images, same.images)


def test_smote_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    single = Pool(np.zeros((3, 1, 2, 2), np.float32), np.array([0, 0, 1]))
    with pytest.raises(SpecError, match="two examples of each class"):
        imbalance.resampled(single, "smote", generator(0, "rebalance", 0))
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(SpecError, match="pip install imbalanced-learn"):
        imbalance.resampled(unequal(), "smote", generator(0, "rebalance", 0))


def test_label_noise_and_sampling_together_are_refused() -> None:
    with pytest.raises(SpecError, match="choose one"):
        sets(PLANS[0], label_noise=0.1, sampling="oversample")


@pytest.mark.parametrize("sampling", ["oversample", "undersample"])
def test_a_replica_trains_on_all_of_its_balanced_set(sampling: str) -> None:
    from lab.training import fit

    config = TrialConfig(n_train=100, imbalance_ratio=5.0, sampling=sampling, epochs=2, width=4, depth=1)
    steps = list(fit(config, load("gaussians", seed=0, n_test=40), PLANS[0], seed=0, n_evaluations=2))
    assert np.isfinite(steps[-1].metrics["train_risk"]).all()
