"""Products in bfloat16 are close to those in float32 and not the same; switches are as they were afterwards."""

import dataclasses

import numpy as np
import pytest
import torch

from lab import training
from lab.data.datasets import load
from lab.knobs import PRECISIONS, TrialConfig
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
