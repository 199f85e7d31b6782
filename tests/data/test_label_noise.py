"""Injected noise is what it says, nested in its share and its size, and its posterior is what the counts show."""

import dataclasses

import numpy as np
import pytest

from lab.data import Pool, label_noise, load
from lab.data.pool import draw_labels
from lab.data.resampling import draw_resample, training_sets
from lab.knobs import TrialConfig
from lab.replication import Replication
from lab.seeds import generator

N, C = 20_000, 5


def pool(n: int = N) -> Pool:
    return Pool(np.zeros((n, 1, 1, 1), dtype=np.float32), np.arange(n) % C)


def redrawn(share: float, n: int = N, key: int = 0) -> np.ndarray:
    return label_noise.redrawn(pool(n), share, n_classes=C, rng=generator(0, "label_noise", key)).labels


@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
def test_every_class_turns_into_every_other_equally_often(share: float) -> None:
    counts_CC = np.zeros((C, C))
    np.add.at(counts_CC, (pool().labels, redrawn(share)), 1)
    expected = (1 - share) * np.eye(C) + share / C
    error = np.sqrt(expected * (1 - expected) * C / N)
    assert np.all(np.abs(counts_CC * C / N - expected) < 4.5 * error + 1e-12)


def test_no_noise_changes_nothing() -> None:
    np.testing.assert_array_equal(redrawn(0.0), pool().labels)


def test_the_noise_of_a_small_share_is_part_of_that_of_a_large_one() -> None:
    small, large, clean = redrawn(0.1), redrawn(0.4), pool().labels
    changed = small != clean
    np.testing.assert_array_equal(small[changed], large[changed])
    assert 0 < changed.sum() < (large != clean).sum()


def test_the_noise_of_the_first_examples_does_not_depend_on_how_many_follow() -> None:
    np.testing.assert_array_equal(redrawn(0.3, n=50), redrawn(0.3)[:50])


def test_two_draws_of_the_noise_are_independent() -> None:
    first, second = (redrawn(0.5, key=k) != pool().labels for k in (0, 1))
    share = 0.5 * (1 - 1 / C)
    assert (first & second).mean() == pytest.approx(share**2, abs=4.5 * np.sqrt(share**2 / N))


def test_labels_drawn_from_a_posterior_follow_it() -> None:
    posterior_NC = np.tile([0.5, 0.0, 0.3, 0.2, 0.0], (N, 1))
    labels = draw_labels(posterior_NC, generator(0, "label_noise", 3).random(N))
    shares = np.bincount(labels, minlength=C) / N
    assert np.abs(shares - posterior_NC[0]).max() < 0.02
    assert shares[1] == shares[4] == 0


def test_rounding_of_a_posterior_cannot_give_a_class_that_does_not_exist() -> None:
    row = np.array([[0.1] * 10])
    assert draw_labels(row, np.array([np.nextafter(1, 0)]))[0] == 9


def test_the_posterior_after_noise_is_that_of_the_clean_labels_mixed_with_an_even_one() -> None:
    even = label_noise.posterior(pool(10), 0.2, C)
    np.testing.assert_allclose(even[0], [0.84, 0.04, 0.04, 0.04, 0.04])
    known = dataclasses.replace(pool(1), posterior=np.array([[0.5, 0.5, 0, 0, 0]]))
    np.testing.assert_allclose(label_noise.posterior(known, 0.2, C)[0], [0.44, 0.44, 0.04, 0.04, 0.04])


def test_a_data_set_is_scored_against_the_noise_only_where_the_configuration_says_so() -> None:
    digits = load("digits", seed=0)
    assert label_noise.scored(digits, TrialConfig(label_noise=0.3)) is digits
    noisy = label_noise.scored(digits, TrialConfig(label_noise=0.3, noisy_targets=True))
    np.testing.assert_array_equal(noisy.test.labels, digits.test.labels)
    assert noisy.test.posterior is not None
    np.testing.assert_allclose(noisy.test.posterior.max(axis=1), 0.73)
    assert noisy.digest == digits.digest


def test_training_sets_share_their_images_with_the_clean_ones_and_redraw_their_labels() -> None:
    digits, plan = load("digits", seed=0), Replication("disjoint", 4, 2)
    clean, noisy = (
        training_sets(TrialConfig(label_noise=share), digits, plan, seed=0, first_resample=2) for share in (0.0, 0.4)
    )
    changed = []
    for d, (without, with_noise) in enumerate(zip(clean, noisy, strict=True)):
        expected = draw_resample(digits, "disjoint", n_train=150, n_blocks=4, seed=0, index=2 + d)
        np.testing.assert_array_equal(without.labels, expected.labels)
        np.testing.assert_array_equal(with_noise.images, expected.images)
        changed.append(tuple(with_noise.labels != expected.labels))
    assert len(set(changed)) == 4
    assert np.mean(changed) == pytest.approx(0.36, abs=0.08)  # 4 standard errors


def test_draws_of_the_noise_are_the_same_for_every_resample_and_numbered_on() -> None:
    digits, plan = load("digits", seed=0), Replication("disjoint", 2, 2, n_noise_draws=3)
    config = TrialConfig(label_noise=0.5)
    clean = training_sets(TrialConfig(), digits, plan, seed=0)
    sets = training_sets(config, digits, plan, seed=0)
    later = training_sets(config, digits, plan, seed=0, first_noise=2)
    assert len(sets) == 6
    np.testing.assert_array_equal(sets[2].labels, later[0].labels)
    np.testing.assert_array_equal(sets[5].labels, later[3].labels)
    for k in range(3):  # of the examples of another resample, the same places get the same labels
        places = (sets[k].labels != clean[k].labels) & (sets[3 + k].labels != clean[3 + k].labels)
        assert places.sum() > 30
        np.testing.assert_array_equal(sets[k].labels[places], sets[3 + k].labels[places])
    assert len({tuple(one.labels) for one in sets}) == 6
