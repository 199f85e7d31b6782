"""How many replicas share one stacked program: all of them is not always the fastest.

The rule is made from what benchmarks/strategy.py measures. It changes the time that a training takes, and its results
by rounding alone: no replica sees another, in whichever packs they are.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lab.models import Network

PACK_WEIGHTS = 1  # of a pack of perceptrons, a byte of level-2 cache; 16 bytes each with gradient and moments
IN_PIECES = 2  # times as many, where maps are never there as a whole
PACK_VALUES = {"cnn": 2.4, "resnet": 1.0}  # of a pack's widest maps, one batch, a byte of level-2 cache; for a cnn with
# what training keeps of its weights: small maps of many channels have more weights than values
CACHE_FILE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
USUAL_CACHE = 2**19  # bytes, where the file is not there

STATES = 7  # values a weight at the most: itself, gradient, two moments, mean, best so far, and one in passing
SHARE = 0.8  # of the free memory of a GPU that a pack is meant to take: sizes are estimates

# What a GPU does in the time that another pack's step takes at the least, be its networks ever so small: a step of a
# perceptron has 25 (depth 1) to 127 (depth 4, dropout) operations (counted on the CPU, torch 2.14, views left out), and
# one that is next to nothing takes some 1.5 µs in a graph, so 40 µs at the least; memory moves 1 to 3 TB/s, arithmetic
# in float32 goes at 10 to 60 TFLOP/s. Reasoned from what is known of such devices, the lower ends taken, and not
# measured: there was no GPU. `python -m benchmarks.padding --device cuda` would.
STEP_SECONDS = 40e-6
BYTES_A_SECOND, FLOPS = 1e12, 1e13


@functools.cache
def cache_bytes() -> int:
    """Return the size of a core's second-level cache."""
    try:
        kibibytes = CACHE_FILE.read_text().strip().removesuffix("K")
        return 2**10 * int(kibibytes) or USUAL_CACHE
    except (OSError, ValueError):
        return USUAL_CACHE


def free_memory(device: torch.device) -> int:
    """Return the bytes of a GPU that this process may still use, its allocator's idle ones included."""
    free, _total = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def replica_bytes(network: Network, known: int | None = None) -> int:
    """Return about how many bytes the training of one replica takes in float32.

    Every weight tensor stands for a layer, which keeps its input and output, both taken as large as the widest. What is
    frozen is there once a replica, as if no two of them had one start; and so are the `known` bytes of features.
    """
    n_layers = sum(parameter.kind in ("weight", "own") for parameter in network.trained)
    widest = network.trained[0].shape[0] if network.is_head_alone and known else network.widest
    activations = 2 * n_layers * widest * network.config.batch_size
    n_frozen = sum(math.prod(p.shape) for p in network.parameters) - network.n_parameters
    return 4 * (STATES * network.n_parameters + n_frozen + activations) + (known or 0)


def pack_size(
    network: Network,
    device: torch.device,
    free_memory: Callable[[torch.device], int] = free_memory,
    *,
    known: int | None = None,
    cache: int | None = None,
) -> int:
    """Return the number of replicas that a pack should have, if there are as many.

    `known` are the bytes of the features of one replica, if it is trained on those (lab.training.features); `cache`
    those of the second-level cache, if not this machine's.

    On a GPU as many as its free memory has room for: should the estimate be too high, packs are halved when it runs
    out. On the CPU a power of two: a perceptron gains from company while a step is mostly calls, and loses when the
    pack outgrows the caches. A convolution is bound by arithmetic and memory: company pays while maps are small, and
    less through the many layers of a residual network. How far goes with the cache: with 2 MiB a core (Intel Xeon)
    packs of four times the maps were best of those that were best on an AMD EPYC (studies/LOG.md, 2026-11-26, "packs
    on another machine" and "figures measured again"), and packs of about twice the weights.
    """
    if device.type == "cuda":
        return max(1, int(SHARE * free_memory(device)) // replica_bytes(network, known))
    if device.type != "cpu":
        return 2**20
    only_head = network.is_head_alone and known is not None
    if network.why_alone is not None and not only_head:
        return 1
    cache = cache or cache_bytes()
    if only_head or all(len(parameter.shape) <= 2 for parameter in network.parameters):
        most = PACK_WEIGHTS * cache // network.n_parameters
    else:
        values = network.widest * network.config.batch_size
        values += 0 if network.config.family == "resnet" else STATES * network.n_parameters
        cache *= IN_PIECES if network.in_pieces else 1
        most = int(PACK_VALUES.get(network.config.family, PACK_VALUES["cnn"]) * cache) // values
    return 2 ** max(0, most.bit_length() - 1)


def packs(networks: Sequence[Network], n_replicas: Sequence[int]) -> list[list[int]]:
    """Return which trials train in one pack on a GPU, as lists of their places: filled up to a common width if it pays.

    Given the network and the number of replicas of each trial; the networks are perceptrons that differ in width at the
    most. From the widest down, the trials of the next width join if what they are filled up with takes no longer than
    the step of a further pack would, see `STEP_SECONDS`.
    """

    def width(k: int) -> int:
        return networks[k].config.width

    found: list[list[int]] = []
    for _, same in itertools.groupby(sorted(range(len(networks)), key=width, reverse=True), width):
        trials = list(same)
        n = sum(n_replicas[k] for k in trials)
        if found and n * (busy_seconds(networks[found[-1][0]]) - busy_seconds(networks[trials[0]])) <= STEP_SECONDS:
            found[-1] += trials
        else:
            found.append(trials)
    return found


def busy_seconds(network: Network) -> float:
    """Return how long memory and arithmetic of a GPU are busy with a step of one perceptron, one after the other."""
    batch = network.config.batch_size
    units = sum(p.shape[-1] for p in network.trained if p.kind == "weight")
    moved = 10 * (network.n_parameters + batch * units)  # values: weights with Adam, activations; as in benchmarks/ways
    return 4 * moved / BYTES_A_SECOND + 6 * batch * network.n_parameters / FLOPS
