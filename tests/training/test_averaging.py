"""Averages of weights against torch.optim.swa_utils and against sums written out."""

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from lab.knobs import TrialConfig
from lab.models import build
from lab.training.averaging import Averaging, recalibrated, share
from lab.training.moment import Moment

N_BATCHES, EPOCHS = 3, 8


def walk(n_steps):
    """Weights of two replicas after each step, starting at step 0."""
    steps = 0.1 * torch.randn(n_steps + 1, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 1 + steps.cumsum(dim=0)


def averaged(configs, path):
    averaging = Averaging(configs, path[0], n_batches=N_BATCHES)
    for step, theta in enumerate(path[1:]):
        if step % N_BATCHES == 0:
            averaging.begin(step)
        averaging.update(theta, Moment(step % N_BATCHES))
    return averaging.mean_RP


def config(**knobs):
    return TrialConfig(epochs=EPOCHS, **knobs)


def test_swa_is_the_mean_over_the_ends_of_the_last_epochs():
    path = walk(EPOCHS * N_BATCHES)
    found = averaged([config(averaging="swa", swa_start=0.75)] * 2, path)
    torch.testing.assert_close(found, path[N_BATCHES * torch.arange(6, EPOCHS + 1)].mean(dim=0))


def test_until_swa_begins_the_mean_is_the_weights_themselves():
    path = walk(5 * N_BATCHES)
    assert torch.equal(averaged([config(averaging="swa", swa_start=0.75)] * 2, path), path[-1])


@pytest.mark.parametrize(("start", "n_ends"), [(0.0, EPOCHS), (1.0, 1)])
def test_swa_may_begin_at_the_first_epoch_or_at_the_last(start, n_ends):
    path = walk(EPOCHS * N_BATCHES)
    found = averaged([config(averaging="swa", swa_start=start)] * 2, path)
    torch.testing.assert_close(found, path[N_BATCHES * torch.arange(EPOCHS - n_ends + 1, EPOCHS + 1)].mean(dim=0))


def test_ema_is_that_of_torch_once_its_decay_has_warmed_up():
    """With a decay of 0.5 the warm-up, (1 + n) / (10 + n), is over after eight steps; torch starts there."""
    path = walk(40)
    found = averaged([config(averaging="ema", ema_decay=0.5)] * 2, path)
    module = torch.nn.Linear(4, 2, bias=False, dtype=torch.float64)
    peer = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    with torch.no_grad():
        for theta in (averaged([config(averaging="ema", ema_decay=0.5)] * 2, path[:9]), *path[9:]):
            module.weight.copy_(theta)
            peer.update_parameters(module)
    torch.testing.assert_close(found, peer.module.weight.detach())


def test_the_shares_of_an_ema_forget_the_initial_weights():
    shares = [share(config(averaging="ema", ema_decay=0.99), n, N_BATCHES) for n in range(1, 31)]
    left = np.prod([1 - s for s in shares])  # the weight of the initial weights
    assert left < 1e-6
    assert 0.99**30 > 0.7  # what it would be without the warm-up


def test_replicas_of_a_pack_are_averaged_each_in_its_own_way_and_leave_one_by_one():
    path = walk(EPOCHS * N_BATCHES)
    kinds = [config(averaging="swa"), config(averaging="ema")]
    averaging = Averaging(kinds, path[0], n_batches=N_BATCHES)
    for step, theta in enumerate(path[1:]):
        if step == 2 * N_BATCHES:  # between two epochs
            averaging.keep(torch.tensor([1]))
        if step % N_BATCHES == 0:
            averaging.begin(step)
        averaging.update(theta if step < 2 * N_BATCHES else theta[1:], Moment(step % N_BATCHES))
    torch.testing.assert_close(averaging.mean_RP[0], averaged([kinds[1]] * 2, path)[1])
    both = averaged(kinds, path)
    torch.testing.assert_close(both[0], averaged([kinds[0]] * 2, path)[0])
    torch.testing.assert_close(both[1], averaged([kinds[1]] * 2, path)[1])


def test_without_averaging_the_mean_is_the_weights():
    path = walk(7)
    assert torch.equal(averaged([config()] * 2, path), path[-1])


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_recalibrated_statistics_are_those_of_torch(family):
    knobs = TrialConfig(family=family, norm="batch", width=3, depth=1)
    network = build(knobs, (1, 4, 4), 2)
    rng = torch.Generator().manual_seed(0)
    weights = {p.name: torch.randn(2, *p.shape, generator=rng, dtype=torch.float64) for p in network.parameters}
    buffers = {name: torch.ones(2, *shape, dtype=torch.float64) for name, shape in network.buffers.items()}
    images = torch.randn(2, 12, 1, 4, 4, generator=rng, dtype=torch.float64)
    found = recalibrated(network, weights, buffers, images.split(4, dim=1))
    for r in range(2):
        if family == "cnn":
            layers = [torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.BatchNorm2d(3)]
            weight = weights["block0.weight"][r]
        else:
            layers = [torch.nn.Flatten(), torch.nn.Linear(16, 3), torch.nn.BatchNorm1d(3)]
            weight = weights["hidden0.weight"][r].T
        module = torch.nn.Sequential(*layers).double()
        with torch.no_grad():
            module[-2].weight.copy_(weight)
            module[-2].bias.copy_(weights["block0.bias" if family == "cnn" else "hidden0.bias"][r])
        update_bn(images[r].split(4), module)
        torch.testing.assert_close(found["norm0.mean"][r], module[-1].running_mean)
        torch.testing.assert_close(found["norm0.var"][r], module[-1].running_var)


def test_unknown_averaging_is_an_error():
    with pytest.raises(ValueError, match="median"):
        share(type("Config", (), {"averaging": "median"})(), 1, 1)
