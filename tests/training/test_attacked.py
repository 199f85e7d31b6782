"""Predictions under attack: measured at the end, for every replica, with its own gradients."""

import dataclasses

import numpy as np
import pytest

from lab import training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.spec import Replication

CONFIG = TrialConfig(width=16, epochs=15, n_train=40, learning_rate=0.01, attack_epsilon=0.15)
TWO_BY_TWO = Replication(scheme="bootstrap", n_resamples=2, n_inits=2)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=60, n_validation=40)


def evaluations(dataset, **changes):
    return list(training.fit(dataclasses.replace(CONFIG, **changes), dataset, TWO_BY_TWO, seed=0, n_evaluations=8))


@pytest.mark.parametrize("changes", [{}, {"patience": 1, "learning_rate": 0.05}, {"averaging": "ema", "norm": "batch"}])
def test_an_attack_raises_the_error_of_every_replica_also_of_one_that_stopped(digits, changes):
    last = evaluations(digits, **changes)[-1]
    assert (last.metrics["attacked_loss"] > last.metrics["test_loss"]).all()
    assert (last.metrics["attacked_error"] >= last.metrics["test_error"]).all()
    p_DINC = last.probabilities_shifted["attacked"]
    assert p_DINC.shape == last.probabilities_test_DINC.shape
    right = np.take_along_axis(p_DINC.reshape(4, 60, 10), digits.test.labels[None, :, None], axis=2)[..., 0]
    assert last.metrics["attacked_loss"] == pytest.approx(-np.log(right.astype(float)).mean(axis=1), rel=1e-4)


def test_nothing_is_attacked_that_was_not_asked_for_and_the_rest_stays_as_it_is(digits):
    plain, attacked = evaluations(digits, attack_epsilon=0.0)[-1], evaluations(digits)[-1]
    assert plain.probabilities_shifted == {}
    assert "attacked_loss" not in plain.metrics
    assert plain.probabilities_test_DINC.tobytes() == attacked.probabilities_test_DINC.tobytes()


def test_adversarial_training_lowers_the_error_under_attack(digits):
    plain = evaluations(digits, epochs=40)[-1]
    trained = evaluations(digits, epochs=40, adversarial="pgd", epsilon=0.15)[-1]
    assert trained.metrics["attacked_risk"].mean() < 0.8 * plain.metrics["attacked_risk"].mean()
