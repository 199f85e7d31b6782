"""Products in bfloat16 are close to those in float32 and not the same; switches are as they were afterwards."""

import dataclasses

import numpy as np
import pytest
import torch

from lab import training
from lab.data.datasets import load
from lab.data.pool import Dataset, Pool
from lab.knobs import PRECISIONS, TrialConfig
from lab.models.convolution import convolution
from lab.models.layout import channels_last
from lab.spec import Replication
from lab.training.precision import arithmetic

CPU = torch.device("cpu")


def switches():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_switches_of_tf32_are_set_and_put_back(precision):
    before = switches()
    with arithmetic(precision, CPU):
        assert switches() == (precision == "tf32",) * 2
    assert switches() == before


@pytest.mark.parametrize(("family", "width"), [("mlp", 8), ("mlp", 128), ("cnn", 8)])
def test_bfloat16_is_close_to_float32_and_weights_stay_float32(family, width):
    dataset = load("digits", seed=0, n_test=40, n_validation=20)
    config = TrialConfig(family=family, width=width, epochs=3, n_train=30, batch_size=8, norm="batch", dropout=0.1)
    found, states = {}, []
    for precision in PRECISIONS:
        *_, last = training.fit(
            dataclasses.replace(config, precision=precision), dataset, Replication("bootstrap", 2, 2), seed=0,
            on_epoch=lambda state: states.append(state()),
        )  # fmt: skip
        found[precision] = last.probabilities_test_DINC
    assert {value.dtype for state in states for name, value in state.items() if "theta" in name} == {torch.float32}
    assert np.array_equal(found["tf32"], found["float32"])  # a CPU has no TF32
    difference = np.abs(found["bf16"] - found["float32"])
    assert 1e-4 < difference.max() < 0.2
    assert difference.mean() < 0.02


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 5), (3, 3), (2, 5)])
def test_convolutions_in_bfloat16_keep_what_is_not_finite_in_its_replica(n_in, n_out):
    generator = torch.Generator().manual_seed(0)
    x = channels_last(torch.randn(4, 3, n_in, 6, 6, generator=generator))
    weight = torch.randn(4, n_out, n_in, 3, 3, generator=generator)
    found = []
    for broken in (False, True):
        given, own = x.clone().requires_grad_(), weight.clone().requires_grad_()
        if broken:
            with torch.no_grad():
                given[3] = float("inf")
        with arithmetic("bf16", CPU):
            y = convolution(given, own, None)
        found.append((y, *torch.autograd.grad(y.float().square().sum(), [given, own])))
    for healthy, other in zip(*found, strict=True):
        assert torch.equal(healthy[:3], other[:3])
    assert not torch.isfinite(found[1][0][3]).all()


def test_a_training_in_bfloat16_does_not_read_memory_that_others_have_left():
    """Maps of 3 × 3 pixels and less: what lay in memory before came into torch's own convolutions."""
    rng = np.random.default_rng(0)
    pools = [Pool(rng.random((n, 3, 3, 3), dtype=np.float32), rng.integers(0, 3, n)) for n in (60, 9, 9)]
    dataset = Dataset("random", ("a", "b", "c"), *pools, digest="", source="random")
    config = TrialConfig(
        family="resnet", width=4, depth=1, norm="batch", precision="bf16", epochs=2, n_train=30, batch_size=8
    )
    plan, found = Replication("bootstrap", n_resamples=3, n_inits=2), []
    for _ in range(4):
        left = [torch.full((2**k,), float("nan")) for k in range(8, 20)]
        del left
        *_, last = training.fit(config, dataset, plan, seed=1, n_evaluations=2, keep_weights=True)
        found.append(last.weights)
    assert all(np.isfinite(values).all() for values in found[0].values())
    assert all(values.tobytes() == again[name].tobytes() for again in found for name, values in found[0].items())
