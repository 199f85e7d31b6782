"""Every replica passes over its own training set once an epoch, in the order of its seed."""

import numpy as np
import pytest
import torch

from lab.data.pool import Pool
from lab.training.batches import Batches
from lab.training.moment import Moment
from lab.training.sets import TrainingSets

N = 10
INITS_R, SETS_R = np.array([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])


def batches_of(size):
    rng = np.random.default_rng(0)
    pools = [Pool(rng.random((N, 1, 2, 2), dtype=np.float32), rng.integers(0, 3, N)) for _ in range(2)]
    sets = TrainingSets(pools, 3, device=torch.device("cpu"), dtype=torch.float32)
    return Batches(INITS_R, SETS_R, sets, size=size, seed=7)


def epoch_of(batches, epoch):
    """The positions that each replica sees in an epoch, in order, (R, N)."""
    batches.begin(epoch)
    return torch.cat([batches.at(Moment(k)) for k in range(batches.n)], dim=1)


@pytest.mark.parametrize(("size", "sizes"), [(3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (16, [10])])
def test_an_epoch_shows_each_example_of_its_training_set_once_in_batches_of_a_size_and_what_is_left(size, sizes):
    batches = batches_of(size)
    batches.begin(1)
    assert [batches.at(Moment(k)).shape[1] for k in range(batches.n)] == sizes
    seen_RN = epoch_of(batches, 1)
    assert torch.equal(seen_RN.sort(dim=1).values, torch.arange(N) + N * SETS_R[:, None])


def test_the_order_is_that_of_the_seed_on_every_training_set_and_another_in_every_epoch_whatever_the_batches():
    order_RN = epoch_of(batches_of(3), 1) - N * SETS_R[:, None]
    assert torch.equal(order_RN[0], order_RN[2]) and torch.equal(order_RN[1], order_RN[3])
    assert not torch.equal(order_RN[0], order_RN[1])
    assert torch.equal(epoch_of(batches_of(5), 1) - N * SETS_R[:, None], order_RN)
    assert not torch.equal(epoch_of(batches_of(3), 2) - N * SETS_R[:, None], order_RN)


def test_those_that_go_on_alone_see_what_they_would_have_seen():
    whole, some = batches_of(3), batches_of(3)
    some.begin(1)
    some.keep(torch.tensor([1, 2]))
    assert torch.equal(epoch_of(some, 2), epoch_of(whole, 2)[[1, 2]])


def test_an_epoch_is_read_where_the_one_before_lay_for_a_graph_has_its_address():
    batches = batches_of(3)
    first, counter = epoch_of(batches, 1), torch.tensor([1])
    at = batches.at(Moment(0)).data_ptr()
    assert torch.equal(batches.at(Moment(0, counter)), first[:, 3:6])  # the row that the counter says
    second = epoch_of(batches, 2)
    assert batches.at(Moment(0)).data_ptr() == at
    assert torch.equal(batches.at(Moment(0, counter)), second[:, 3:6])
