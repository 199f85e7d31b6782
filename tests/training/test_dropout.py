"""Dropout masks are fair coins that depend on stream, step and layer alone."""

import numpy as np
import pytest
import torch

from lab.training import dropout as dropout_module
from lab.training.dropout import Dropout
from lab.training.moment import Moment

CPU = torch.device("cpu")


def masks(rate, inits, n, *, step=0, layer=0, seed=0):
    dropout = Dropout([rate] * len(inits), inits, seed=seed, device=CPU)
    dropout.begin(step, 1)
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
    dropout = Dropout([0.25] * 3, [0, 1, 0], seed=0, device=CPU)
    x = torch.ones(3, 100, 400)
    y = dropout(0, x)
    assert sorted(y.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(y[0], y[2])
    assert not torch.equal(y[0], y[1])


def test_each_replica_has_its_own_rate_and_the_mask_that_it_would_have_alone():
    rates, inits = [0.5, 0.0, 0.2, 0.5], [3, 3, 3, 1]
    x = torch.ones(4, 50, 40)
    together = Dropout(rates, inits, seed=0, device=CPU)
    for r, (rate, init) in enumerate(zip(rates, inits, strict=True)):
        assert torch.equal(together(0, x)[r], Dropout([rate], [init], seed=0, device=CPU)(0, x[r : r + 1])[0])
    together.keep(torch.tensor([3, 2]))
    alone = Dropout([0.2], [3], seed=0, device=CPU)
    assert torch.equal(together(0, x[:2])[1], alone(0, x[:1])[0])


def test_no_dropout_is_the_identity():
    x = torch.randn(2, 3, 4)
    assert Dropout([0.0, 0.0], [0, 1], seed=0, device=CPU)(0, x) is x


def test_a_channel_is_dropped_whole_or_not_at_all_at_the_stated_rate_and_another_in_each_image():
    dropout = Dropout([0.0, 0.0], [0, 1], seed=0, device=CPU, channel_rates_R=[0.25, 0.25])
    x = 1 + torch.rand(2, 200, 50, 3, 4)
    factors = (dropout(0, x) / x).flatten(3)
    assert (factors.amax(dim=3) - factors.amin(dim=3)).max() < 1e-6
    assert sorted({round(value, 5) for value in factors.flatten().tolist()}) == [0, round(4 / 3, 5)]
    kept = factors[..., 0] > 0
    assert abs(kept.float().mean().item() - 0.75) < 4 * np.sqrt(0.25 * 0.75 / kept.numel())
    assert not (kept[:, :1] == kept).all()
    assert not torch.equal(kept[0], kept[1])


def test_masks_of_channels_and_of_units_are_independent_and_know_no_company():
    together = Dropout([0.5] * 2, [4, 3], seed=0, device=CPU, channel_rates_R=[0.5, 0.0])
    units, channels = (kept.float() - 0.5 for kept in (together.kept(0, 9999)[1], together.kept_channels(0, 9999)[-1]))
    assert abs(4 * (units * channels).mean().item()) < 4.5 / np.sqrt(9999)
    x = torch.ones(2, 30, 6, 2, 2)
    alone = Dropout([0.5], [4], seed=0, device=CPU, channel_rates_R=[0.5])
    assert torch.equal(together(0, x)[0], alone(0, x[:1])[0])
    assert torch.equal(together(0, x)[1], Dropout([0.5], [3], seed=0, device=CPU)(0, x[1:])[0])


@pytest.mark.parametrize("ahead", [1, 200, 2**16])
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_multiplied_by_is_what_is_kept_at_every_step_however_many_are_worked_out_ahead(
    monkeypatch, ahead, turned
):
    monkeypatch.setattr(dropout_module, "AHEAD", ahead)
    rates, inits = [0.25, 0.5, 0.25], [3, 1, 3]
    dropout = Dropout(rates, inits, seed=5, device=CPU)
    for first in (0, 7):  # two epochs of six steps, the last of which has fewer examples
        dropout.begin(first, 6)
        for k in [*range(6), 2, 5]:
            dropout.moment = Moment(k)
            x = torch.ones(3, 4 if k < 5 else 3, 9)
            x = x.mT.contiguous().mT if turned else x
            found = dropout.factors(1, x)
            assert found.stride() == x.stride()
            kept_Un = dropout.kept(1, x[0].numel())
            for r, row in enumerate([1, 0, 1]):  # the pairs in order: stream 1, stream 3
                expected = kept_Un[row].view(x.shape[1:]) / (1 - rates[r])
                torch.testing.assert_close(found[r], expected)


def test_only_what_is_worked_out_for_several_steps_is_kept():
    dropout = Dropout([0.5, 0.25], [0, 1], seed=0, device=CPU)
    dropout.begin(0, 2)
    for n, is_kept in ((dropout_module.AHEAD // 4, True), (dropout_module.AHEAD // 4 + 1, False)):
        first, again = (dropout._units.factors(dropout.moment, n, torch.zeros(1), n) for _ in range(2))
        assert torch.equal(first, again)
        assert (first.data_ptr() == again.data_ptr()) == is_kept
