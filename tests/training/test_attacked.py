"""Predictions under attack: measured at the end, for every replica, with its own gradients."""

import dataclasses

import numpy as np
import pytest
import torch
from reference import train_alone

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


@pytest.mark.parametrize("changes", [{}, {"patience": 1, "learning_rate": 0.05}])
def test_several_strengths_are_measured_in_one_trial_each_as_by_itself(digits, changes):
    whole = evaluations(digits, attack_strengths=3, **changes)[-1]
    assert set(whole.probabilities_shifted) == {"attacked_1", "attacked_2", "attacked_3"}
    for k in (1, 2, 3):
        alone = evaluations(digits, attack_epsilon=CONFIG.attack_epsilon * (k / 3), **changes)[-1]
        expected = alone.probabilities_shifted["attacked"]
        assert whole.probabilities_shifted[f"attacked_{k}"].tobytes() == expected.tobytes()
        assert whole.metrics[f"attacked_{k}_risk"].tobytes() == alone.metrics["attacked_risk"].tobytes()
    risks = [whole.metrics[name] for name in ("test_risk", "attacked_1_risk", "attacked_2_risk", "attacked_3_risk")]
    assert (np.diff(risks, axis=0) > 0).all()


@pytest.mark.parametrize("changes", [{}, {"family": "cnn", "norm": "batch"}, {"averaging": "ema"}])
def test_predictions_under_attack_are_those_that_torch_finds(digits, changes):
    small = {"width": 6, "depth": 2, "epochs": 3, "n_train": 21, "batch_size": 8}
    config = dataclasses.replace(CONFIG, attack_strengths=2, **small, **changes)
    *_, last = training.fit(config, digits, TWO_BY_TWO, seed=3, n_evaluations=2, dtype=torch.float64)
    for name, epsilon in (("attacked_1", 0.075), ("attacked_2", 0.15)):
        for d, i in ((0, 1), (1, 0)):
            alone = train_alone(
                config, digits, scheme="bootstrap", n_blocks=2, seed=3, resample=d, init=i, attack_epsilon=epsilon
            )
            np.testing.assert_allclose(last.probabilities_shifted[name][d, i], alone, rtol=2e-6, atol=1e-7)
