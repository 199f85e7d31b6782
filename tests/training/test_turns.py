"""The time of an epoch: two configurations by turns, all replicas of both, nothing but their steps."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import epoch_seconds, fit, loop, optimizers, strategy

SMALL = TrialConfig(width=6, depth=1, epochs=3, n_train=21, batch_size=8)
PLAN = Replication("disjoint", 2, 2)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=20)


def test_they_go_by_turns_and_what_slows_evenly_favours_neither(digits, monkeypatch):
    order, own = [], loop.one_epoch

    def noted(crew, sets, *, is_watched):
        assert len(crew) == PLAN.n_replicas
        order.append(crew.config.width)
        own(crew, sets, is_watched=is_watched)

    monkeypatch.setattr(loop, "one_epoch", noted)
    # a machine on which every epoch takes one second longer than the one before
    times = itertools.accumulate((second for k in range(1, 9) for second in (0, k)), initial=0)
    next(times)
    pair = (SMALL, digits), (dataclasses.replace(SMALL, width=12), digits)
    seconds_K2 = epoch_seconds(pair, PLAN, seed=0, n_pairs=4, clock=lambda: next(times))
    assert order == [6, 12, 6, 12, 12, 6, 6, 12, 12, 6]  # the first of each is not counted
    np.testing.assert_array_equal(seconds_K2, [[1, 2], [4, 3], [5, 6], [8, 7]])
    assert np.diff(seconds_K2, axis=1).mean() == 0


@pytest.mark.parametrize("change", [{"norm": "batch", "averaging": "swa"}, {"adversarial": "fgsm", "patience": 1}])
def test_it_takes_the_steps_of_a_training_of_fewer_epochs_too_and_draws_nothing_from_it(digits, monkeypatch, change):
    asked, rate = [], optimizers.learning_rate

    def noted(config, step, n_steps):
        asked.append((step, n_steps))
        return rate(config, step, n_steps)

    monkeypatch.setattr(optimizers, "learning_rate", noted)
    config = dataclasses.replace(SMALL, epochs=1, **change)
    before = torch.random.get_rng_state()
    seconds_K2 = epoch_seconds(((SMALL, digits), (config, digits)), PLAN, seed=0, n_pairs=3)
    assert seconds_K2.shape == (3, 2)
    assert (seconds_K2 > 0).all()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(step < n_steps for step, n_steps in asked)  # a schedule has no steps beyond its end


@pytest.mark.parametrize("change", [{}, dict(family="cnn", frozen=1.0)])
def test_the_packs_are_those_of_fit(digits, monkeypatch, change):
    sizes, own = [], strategy.pack_size

    def asked(*args, **options):
        sizes.append(own(*args, **options))
        return sizes[-1]

    monkeypatch.setattr(strategy, "pack_size", asked)
    config = dataclasses.replace(SMALL, **change)
    list(fit(config, digits, PLAN, seed=3, n_evaluations=2))
    epoch_seconds(((config, digits), (config, digits)), PLAN, seed=3, n_pairs=1)
    assert len(sizes) == 3
    assert len(set(sizes)) == 1


def test_the_steps_are_those_of_fit(digits, monkeypatch):
    crews, own = [], loop.one_epoch

    def kept(crew, sets, *, is_watched):
        crews.append(crew)
        own(crew, sets, is_watched=False)

    monkeypatch.setattr(loop, "one_epoch", kept)
    list(fit(SMALL, digits, PLAN, seed=3, n_evaluations=2))
    expected = crews[-1].pack.theta_RP.clone()
    crews.clear()
    epoch_seconds(
        ((SMALL, digits), (SMALL, digits)), PLAN, seed=3, n_pairs=2
    )  # with the one that is not counted, three epochs
    assert crews[0].epoch == 3
    assert torch.equal(crews[0].pack.theta_RP, expected)
