"""Signals of health against numbers computed by hand, and what training records of them."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from lab import training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.models import build
from lab.spec import Replication
from lab.training import health
from lab.training.pack import Pack

CPU = torch.device("cpu")
TWO_BY_TWO = Replication(scheme="bootstrap", n_resamples=2, n_inits=2)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=20, n_validation=20)


def started(**knobs):
    """A pack of two replicas of one hidden layer of two units, on images of one pixel; float64."""
    config = TrialConfig(**({"width": 2, "depth": 1} | knobs))
    network = build(config, (1, 1, 1), 2)
    return Pack.start(network, [config] * 2, [0, 1], seed=0, device=CPU, dtype=torch.float64)


def images(*pixels):
    return torch.tensor(pixels, dtype=torch.float64).view(1, -1, 1, 1, 1).expand(2, -1, 1, 1, 1)


def with_hidden(pack, weight, bias):
    with torch.no_grad():
        pack.weights["hidden0.weight"].copy_(torch.tensor([weight], dtype=torch.float64))
        pack.weights["hidden0.bias"].copy_(torch.tensor(bias, dtype=torch.float64))


def test_a_unit_is_dead_if_no_example_activates_it():
    pack = started()
    with_hidden(pack, [1.0, 1.0], [0.0, -5.0])  # the second unit never exceeds 0
    found = health.measure(pack, pack.theta_RP.clone(), images(1.0, 2.0, -3.0))
    assert found["signal:dead:0"].tolist() == [0.5, 0.5]
    assert found["signal:rms:0"] == pytest.approx([math.sqrt((1 + 4) / 6)] * 2)
    assert "signal:saturated:0" not in found


@pytest.mark.parametrize(("activation", "edge"), [("tanh", math.atanh(math.sqrt(0.95))), ("sigmoid", 2.1785 * 2)])
def test_a_value_is_saturated_where_the_slope_is_below_a_twentieth_of_its_largest(activation, edge):
    x = torch.tensor([0.0, edge * 0.99, edge * 1.01, -edge * 1.01], dtype=torch.float64, requires_grad=True)
    function = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[activation]
    (slope,) = torch.autograd.grad(function(x).sum(), x)
    assert (slope / slope[0] < 0.05).tolist() == [False, False, True, True]
    pack = started(activation=activation)
    with_hidden(pack, [1.0, 1.0], [0.0, 0.0])
    found = health.measure(pack, pack.theta_RP.clone(), images(*x.tolist()))
    assert found["signal:saturated:0"].tolist() == [0.5, 0.5]
    assert "signal:dead:0" not in found


def test_gradients_weights_and_updates_are_those_of_the_last_step():
    pack = started()
    before = pack.theta_RP.clone()
    pack.theta_RP.grad[:, :10] = torch.arange(20, dtype=torch.float64).view(2, 10)
    with torch.no_grad():
        pack.theta_RP.add_(0.1)
    found = health.measure(pack, before.clone(), images(1.0))
    # theta: hidden weight (1, 2), hidden bias (2), output weight (2, 2), output bias (2)
    assert found["signal:gradient:hidden0"] == pytest.approx([math.sqrt(0.5), math.sqrt((100 + 121) / 2)])
    assert found["signal:gradient:output"][0] == pytest.approx(math.sqrt((16 + 25 + 36 + 49) / 4))
    start = before[1, 4:8].numpy()
    assert found["signal:weight:output"][1] == pytest.approx(np.sqrt(np.mean((start + 0.1) ** 2)))
    assert found["signal:update:output"][1] == pytest.approx(0.2 / np.linalg.norm(start))


def test_measuring_changes_nothing(digits):
    config = TrialConfig(width=6, depth=2, norm="batch", epochs=2, n_train=20)
    network = build(config, digits.image_shape, 10)
    pack = Pack.start(network, [config], [0], seed=0, device=CPU, dtype=torch.float32)
    state = {name: value.clone() for name, value in pack.state().items()}
    health.measure(pack, pack.theta_RP.clone(), torch.randn(1, 5, *digits.image_shape))
    for name, value in pack.state().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize(("family", "n_layers"), [("mlp", 3), ("cnn", 3), ("resnet", None)])
def test_watched_evaluations_of_a_training_have_signals_of_every_layer(digits, family, n_layers):
    config = TrialConfig(family=family, width=6, depth=2, epochs=4, n_train=20, activation="relu")
    for evaluation in training.fit(config, digits, TWO_BY_TWO, seed=0, n_evaluations=3):
        kinds = {name.split(":")[1] for name in evaluation.signals}
        assert kinds == {"rms", "dead", "gradient", "weight", "update"}
        layers = [name for name in evaluation.signals if name.startswith("signal:gradient:")]
        assert n_layers is None or len(layers) == n_layers
        assert all(np.isfinite(values).all() and values.shape == (4,) for values in evaluation.signals.values())


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 20, 1000])
def test_a_few_evaluations_are_watched_among_them_the_first_and_the_last(n):
    epochs = list(range(3, 3 + n))
    watched = health.watched(epochs)
    assert {epochs[0], epochs[-1]} <= watched <= set(epochs)
    assert min(n, 4) <= len(watched) <= health.N_EVALUATIONS


def test_a_deep_sigmoid_network_vanishes_and_a_relu_network_does_not(digits):
    from lab.analysis.signals import summary

    config = TrialConfig(width=16, depth=8, activation="sigmoid", epochs=1, n_train=40)
    ratios = {}
    for activation in ("sigmoid", "relu"):
        *_, last = training.fit(
            dataclasses.replace(config, activation=activation), digits, TWO_BY_TWO, seed=0, n_evaluations=2
        )
        ratios[activation] = summary(last.signals, last.signals)
    assert ratios["sigmoid"]["n_vanishing"] == 4
    assert ratios["relu"]["n_vanishing"] == 0


def test_replicas_that_have_stopped_have_no_signals_any_more(digits):
    config = TrialConfig(width=8, epochs=20, n_train=20, patience=1, learning_rate=0.03)
    evaluations = list(training.fit(config, digits, TWO_BY_TWO, seed=0, n_evaluations=20))
    watched = health.watched([e.epoch for e in evaluations])
    assert all(e.signals == {} for e in evaluations if e.epoch not in watched)
    counts = [
        np.isfinite(e.signals.get("signal:gradient:output", np.array([]))).sum()
        for e in evaluations
        if e.epoch in watched
    ]
    assert counts[0] == 4
    assert counts[-1] < 4
    assert sorted(counts, reverse=True) == counts
