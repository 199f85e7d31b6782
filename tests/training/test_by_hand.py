"""The gradients that perceptrons compute by hand are those of autograd, bit for bit, whatever surrounds them."""

import dataclasses

import numpy as np
import pytest
import torch

from lab import models, training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.models import mlp
from lab.spec import Replication

CONFIG = TrialConfig(width=13, depth=2, epochs=2, n_train=30, batch_size=7, learning_rate=0.03)
CHANGES = [
    {},
    {"depth": 0},
    {"width": 99, "depth": 3},  # gradients of large weights are written to their places at once
    {"activation": "tanh", "dropout": 0.3},
    {"dropout": 0.5, "loss": "focal", "focal_gamma": 1.5, "class_weights": "balanced"},
    {"label_smoothing": 0.1, "clip_norm": 0.5, "l1": 0.01},
    {"mixup": 0.3, "optimizer": "sgd"},
    {"adversarial": "fgsm", "epsilon": 0.1},
]


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=33, n_validation=20)


def weights(config, dataset, dtype):
    plan = Replication("bootstrap", n_resamples=3, n_inits=2)
    *_, last = training.fit(config, dataset, plan, seed=1, n_evaluations=2, dtype=dtype, keep_weights=True)
    assert last.weights  # of the end of training
    return last.weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_gradients_by_hand_are_those_of_autograd(digits, monkeypatch, change, dtype):
    config = dataclasses.replace(CONFIG, **change)
    assert models.build(config, (1, 8, 8), 10).is_by_hand
    by_hand = weights(config, digits, dtype)
    monkeypatch.setattr(mlp, "SLOPES", {})
    assert not models.build(config, (1, 8, 8), 10).is_by_hand
    by_autograd = weights(config, digits, dtype)
    assert {name for name in by_hand if by_hand[name].tobytes() != by_autograd[name].tobytes()} == set()
    assert not any(np.isnan(value).any() for value in by_hand.values())


@pytest.mark.parametrize(
    "change", [{"norm": "batch"}, {"residual": "on"}, {"activation": "gelu"}, {"precision": "bf16"}], ids=str
)
def test_autograd_does_what_lies_between_other_than_an_activation(change):
    assert not models.build(dataclasses.replace(CONFIG, **change), (1, 8, 8), 10).is_by_hand
