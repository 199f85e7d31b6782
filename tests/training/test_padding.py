"""A narrower network, filled up with zeros to the width of another, trains in one pack with it as if alone.

That is so where a unit that gives 0 keeps giving 0: its activation is 0 at 0, and no norm shares a mean among units.
Perceptrons without normalisation of several trials are trained so on a GPU (lab.fusion, test_widths.py); on the CPU it
pays too little (benchmarks/ways.md, CONTRIBUTING.md).
"""

import pytest
import torch
import torch.nn.functional as F

from lab import models
from lab.knobs import TrialConfig
from lab.training.losses import cross_entropy_gradient
from lab.training.moment import Moment
from lab.training.optimizers import Optimizer
from lab.training.pack import Pack

NARROW, WIDE, R, STEPS = 3, 5, 2, 6
FAMILIES = {"mlp": {"depth": 2}, "cnn": {"depth": 2}, "resnet": {"depth": 1}}


def corner(values, shape):
    """Fill up (R, …) with zeros to (R, *shape)."""
    missing = [n for size, wanted in zip(values.shape[:0:-1], shape[::-1], strict=True) for n in (0, wanted - size)]
    return F.pad(values, missing)


def started(config, images):
    network = models.build(config, images.shape[2:], 10)
    start = Pack.start(network, [config] * R, [0, 1], seed=0, device=torch.device("cpu"), dtype=torch.float64)
    return network, {name: value.clone() for name, value in start.tensors().items()}


def together(network, *stacks):
    """One pack of several stacks of tensors, each filled up to the shapes of the network."""
    shapes = {p.name: p.shape for p in network.parameters}
    rows = [torch.cat([corner(stack[name], shapes[name]).flatten(1) for name in shapes], dim=1) for stack in stacks]
    buffers = {n: torch.cat([corner(stack[n], shape) for stack in stacks]) for n, shape in network.buffers.items()}
    return Pack(network, torch.cat(rows), buffers)


def train(pack, config, images, labels):
    optimizer = Optimizer([config] * len(pack), pack.theta_RP, n_steps=STEPS)
    optimizer.begin(0, STEPS)
    for k in range(STEPS):
        logits = pack.network.forward(pack.weights, pack.buffers, images, lambda layer, x, rate=None: x)
        pack.differentiate(logits, cross_entropy_gradient(logits, labels))
        optimizer.step(Moment(k))
    return {name: value.clone() for name, value in pack.tensors().items()}


def trained_both_ways(family, **knobs):
    """Return the tensors of the narrow networks alone, and in a pack with the wide ones."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(R, 9, 1, 8, 8, generator=rng, dtype=torch.float64)
    labels = torch.randint(0, 10, (R, 9), generator=rng)
    narrow, wide = (
        TrialConfig(family=family, width=width, learning_rate=0.05, **FAMILIES[family] | knobs)
        for width in (NARROW, WIDE)
    )
    narrow_network, narrow_start = started(narrow, images)
    wide_network, wide_start = started(wide, images)
    alone = train(together(narrow_network, narrow_start), narrow, images, labels)
    pack = together(wide_network, narrow_start, wide_start)
    both = train(pack, wide, torch.cat([images, images]), torch.cat([labels, labels]))
    return alone, {name: value[:R] for name, value in both.items()}


def difference(alone, filled):
    return max((corner(alone[name], value.shape[1:]) - value).abs().max().item() for name, value in filled.items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "gelu", "elu"])
@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_a_network_filled_up_with_zeros_trains_as_alone(family, activation, optimizer):
    alone, filled = trained_both_ways(family, activation=activation, optimizer=optimizer, weight_decay=0.01)
    assert difference(alone, filled) < 1e-12


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_so_does_a_residual_network(norm):
    alone, filled = trained_both_ways("resnet", norm=norm, optimizer="sgd")
    assert difference(alone, filled) < 1e-10


def test_units_that_were_filled_up_stay_exactly_0():
    _, filled = trained_both_ways("mlp", activation="relu")
    assert not filled["hidden0.weight"][..., NARROW:].any()
    assert not filled["hidden1.weight"][:, NARROW:].any()
    assert not filled["output.weight"][:, NARROW:].any()


@pytest.mark.parametrize("knobs", [{"activation": "sigmoid"}, {"norm": "layer"}, {"norm": "group"}], ids=str)
def test_where_a_unit_of_zeros_does_not_give_0_or_counts_in_a_mean_it_is_another_network(knobs):
    alone, filled = trained_both_ways("mlp", optimizer="sgd", **knobs)
    assert difference(alone, filled) > 1e-3
