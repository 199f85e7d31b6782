"""What holds for all tests of training."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, as in a worker and in the inline engine: bits are promised at a fixed number of threads.

    With two, a matrix product is cut at places that depend on its size, so that packs of other sizes round otherwise,
    and a training that is close to diverging makes much of it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
