"""How many replicas share one stacked program: all of them is not always the fastest.

The rule is made from what benchmarks/strategy.py measures. It changes the time that a training takes, and its results
by rounding alone: no replica sees another, in whichever packs they are.
"""

import torch

from lab.models import Network

PACK_WEIGHTS = 2**23  # of a pack of perceptrons: with Adam's moments and the gradient four times as many values
PACK_ACTIVATIONS = 2**20  # of the widest maps of a pack of convolutional networks, one batch


def pack_size(network: Network, device: torch.device) -> int:
    """Return the number of replicas that a pack should have, if there are as many: a power of two.

    On a GPU all share one. On the CPU a perceptron gains from company while a step is mostly calls, and loses when the
    pack outgrows the caches. A convolution is bound by arithmetic and memory: company pays while maps are small,
    and not through the many layers of a residual network.
    """
    if device.type != "cpu":
        return 2**20
    only_head = network.n_frozen == network.n_blocks and not network.is_own  # of features that were computed before
    if (network.config.family == "resnet" and not only_head) or network.why_alone is not None:
        return 1
    if only_head or all(len(parameter.shape) <= 2 for parameter in network.parameters):
        most = PACK_WEIGHTS // network.n_parameters
    else:
        most = PACK_ACTIVATIONS // (network.widest * network.config.batch_size)
    return 2 ** max(0, most.bit_length() - 1)
