"""Dropout masks are fair coins that depend on stream, step and layer alone."""

import numpy as np
import pytest
import torch

from lab.knobs import TrialConfig
from lab.training.pack import Dropout

CPU = torch.device("cpu")


def masks(rate, inits, n, *, step=0, layer=0, seed=0):
    dropout = Dropout(TrialConfig(dropout=rate), inits, seed=seed, device=CPU)
    dropout.step = step
    return dropout.kept(layer, n).numpy()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_units_are_kept_at_the_stated_rate(rate):
    n = 200_000
    share = masks(rate, [0, 1], n).mean(axis=1)
    assert np.abs(share - (1 - rate)).max() < 4 * np.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("lag", [1, 2, 3, 32, 64, 4096])
def test_neighbouring_units_are_dropped_independently(lag):
    kept = masks(0.5, [0], 200_000)[0].astype(float) - 0.5
    correlation = 4 * (kept[:-lag] * kept[lag:]).mean()
    assert abs(correlation) < 4.5 / np.sqrt(len(kept))


@pytest.mark.parametrize("change", [dict(step=1), dict(layer=1), dict(seed=1), dict(inits=[1])])
def test_another_step_layer_seed_or_stream_has_an_independent_mask(change):
    n = 200_000
    base = dict(inits=[0], step=0, layer=0, seed=0)
    first = masks(0.5, n=n, **base)[0].astype(float) - 0.5
    second = masks(0.5, n=n, **(base | change))[0].astype(float) - 0.5
    assert abs(4 * (first * second).mean()) < 4.5 / np.sqrt(n)


def test_a_stream_has_the_same_mask_in_any_company():
    assert (masks(0.3, [7, 2, 7], 999)[1] == masks(0.3, [7], 999)[0]).all()  # streams are sorted: 2, 7


def test_kept_units_are_scaled_so_that_the_mean_stays():
    dropout = Dropout(TrialConfig(dropout=0.25), [0, 1, 0], seed=0, device=CPU)
    x = torch.ones(3, 100, 400)
    y = dropout(0, x)
    assert sorted(y.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(y[0], y[2])
    assert not torch.equal(y[0], y[1])


def test_no_dropout_is_the_identity():
    x = torch.randn(2, 3, 4)
    assert Dropout(TrialConfig(), [0, 1], seed=0, device=CPU)(0, x) is x
