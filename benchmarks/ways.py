"""Ways to train convolutional networks on the CPU that were tried, and the floor below all of them.

`python -m benchmarks.ways`: processor time of one step of one replica, one thread. What the lab does by default is made
from this and from benchmarks/strategy.py.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import loops, records
from benchmarks.loops import Case
from lab import models
from lab.training.allocator import keep_freed_memory

GRID = [
    *(Case("cnn", 2, width, (1, 28, 28), 64, 16) for width in (8, 32)),
    Case("resnet", 2, 8, (3, 32, 32), 64, 8),
]
ABOUT = """Processor time of one optimiser step of one replica in milliseconds, one thread, least of {rounds}
interleaved rounds of {seconds} s and one epoch each. `grouped` are the lab's stacks of so many replicas, one grouped
convolution for all; `vmap` is torch.func.vmap over torch.nn's network, `im2col` the same with each convolution as
unfolding and one matrix product. Processes keep freed memory unless it says otherwise. `arithmetic` is the floor: the
multiplications and additions of forward and backward pass at the rate at which this core multiplied matrices of {size}
× {size} in the same run ({rate:.0f} GFLOP/s); it leaves out the reading and writing of activations."""
SIZE = 1024  # of the matrices that the rate is measured with


@dataclass(frozen=True)
class Way:
    """How a network is trained."""

    measure: str
    pack: int | None = None
    keeps_memory: bool = True
    onednn: bool = True
    compiled: bool = False


WAYS = {
    "loop as a user writes it": Way("user", keeps_memory=False),
    "best loop": Way("loop"),
    "best loop, compiled": Way("loop", compiled=True),
    "grouped, 1": Way("lab", 1),
    "grouped, 4": Way("lab", 4),
    "grouped, 16": Way("lab", 16),
    "grouped, 4, memory given back": Way("lab", 4, keeps_memory=False),
    "grouped, 4, without oneDNN": Way("lab", 4, onednn=False),
    "vmap, 4": Way("vmapped", 4),
    "im2col, 4": Way("unfolded", 4),
}


class Unfolded(nn.Module):
    """A convolution as unfolding and a matrix product."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.shape = (convolution.kernel_size, convolution.stride, convolution.padding)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride, padding = self.shape
        patches = F.unfold(x, kernel, padding=padding, stride=stride)
        height = (x.shape[-2] + 2 * padding[0] - kernel[0]) // stride[0] + 1
        y = (self.weight.flatten(1) @ patches).unflatten(2, (height, -1))
        return y if self.bias is None else y + self.bias[:, None, None]


def unfolded(module: nn.Module) -> nn.Module:
    """Return the module with its convolutions replaced."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, Unfolded(child))
    return module


def milliseconds(way: Way, case: Case, seconds: float) -> float:
    """Return the processor time of a replica-step; run in a process of its own."""
    torch.set_num_threads(1)
    if way.keeps_memory:
        keep_freed_memory()
    if way.measure in ("vmapped", "unfolded"):
        change: Callable[[nn.Module], nn.Module] = unfolded if way.measure == "unfolded" else lambda module: module
        models.register(way.measure, lambda: change(loops.alone(case)))
    with contextlib.nullcontext() if way.onednn else torch.backends.mkldnn.flags(enabled=False):
        if way.measure == "user":
            work = loops.user(case, seconds)
        elif way.measure == "loop":
            work = loops.best_loop(case, seconds, compiled=way.compiled)
        else:
            family = case.family if way.measure == "lab" else way.measure
            work = loops.lab(replace(case, family=family), seconds, pack=way.pack)
    return 1e3 * work.cost


def flops(case: Case) -> int:
    """Return the floating-point operations of one step of one network, forward and backward."""
    module = loops.alone(case)
    with FlopCounterMode(display=False) as counter:
        logits = module(torch.from_numpy(loops.images(case, case.batch)[0]))
        logits.sum().backward()
    return int(counter.get_total_flops())


def matrix_rate(seconds: float) -> float:
    """Return floating-point operations a second of one thread that multiplies matrices."""
    torch.set_num_threads(1)
    a, rates = torch.randn(SIZE, SIZE), []
    end = time.perf_counter() + seconds
    while not rates or time.perf_counter() < end:
        began = time.process_time()
        a @ a
        rates.append(2 * SIZE**3 / (time.process_time() - began))
    return max(rates)


def main(arguments: list[str] | None = None, folder: Path = records.FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--quick", action="store_true", help="one small case, three ways")
    options = parser.parse_args(arguments)
    grid = [Case("cnn", 1, 2, (1, 8, 8), 8, 4)] if options.quick else GRID
    ways = {n: w for n, w in WAYS.items() if not options.quick or n in ("best loop", "grouped, 4", "im2col, 4")}
    facts = records.machine()
    pools = {name: ProcessPoolExecutor(1, mp_context=get_context("spawn")) for name in ways}
    least: dict[Case, dict[str, float]] = {case: {} for case in grid}
    rate = 0.0
    try:
        for number in range(options.rounds):
            rate = max(rate, matrix_rate(options.seconds))
            for case in grid:
                print(f"round {number + 1} of {options.rounds}: {case.name}", flush=True)
                for name, way in ways.items():
                    found = pools[name].submit(milliseconds, way, case, options.seconds).result()
                    least[case][name] = min(found, least[case].get(name, found))
    finally:
        for pool in pools.values():
            pool.shutdown()
    rows = [
        {"way": name, **{case.name: least[case][name] for case in grid}} for name in ways
    ] + [{"way": "arithmetic", **{case.name: 1e3 * flops(case) / rate for case in grid}}]  # fmt: skip
    about = ABOUT.format(rounds=options.rounds, seconds=options.seconds, size=SIZE, rate=rate / 1e9)
    records.write("ways", about, {"Milliseconds": rows}, facts, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
