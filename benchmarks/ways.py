"""Ways to train on the CPU that were tried, and the floors below all of them.

`python -m benchmarks.ways`: processor time of one step of one replica, one thread. What the lab does by default is made
from this and from benchmarks/strategy.py.
"""

import argparse
import contextlib
import functools
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import loops, records, throughput
from benchmarks.loops import Case
from lab import models
from lab.training.allocator import keep_freed_memory
from lab.training.losses import cross_entropy_gradient
from lab.training.moment import Moment
from lab.training.optimizers import Optimizer
from lab.training.pack import Pack

GRID = [
    Case("mlp", 3, 256, (1, 8, 8), 32, 32),
    *(Case("cnn", 2, width, (1, 28, 28), 64, 16) for width in (8, 32)),
    Case("resnet", 2, 8, (3, 32, 32), 64, 8),
]
ABOUT = """Processor time in milliseconds, one thread, least (of the targets: median) of n = {rounds} interleaved rounds
of {seconds} s and one epoch each, as many as fit into {minutes:g} minutes.

**Ways**: one optimiser step of one replica. `stack of` so many replicas is the lab's: one batched matrix product or
one grouped convolution for all; `vmap` is torch.func.vmap over torch.nn's network, `im2col` the same with each
convolution as unfolding and one matrix product. Processes keep freed memory unless it says otherwise. Two floors:
`arithmetic`, the multiplications and additions of forward and backward pass at the rate at which this core
multiplied matrices of {size} × {size} in the same run ({flops:.0f} GFLOP/s), and `memory`, what layers that are
computed one after the other and an Adam step read and write, at the rate at which it copied {megabytes} MB
({bytes:.1f} GB/s, reads and writes). A cache makes the latter faster than that, so it is a floor for what outgrows
the caches alone.

**Targets**: the speed of the lab as a multiple of the user's loop, the whole machine against the whole machine
(benchmarks/throughput.md): what it is meant to be, what the library's own calls allow, and what was reached here.
`products` are the forward and backward products of a step at the very shapes and in the very layout of a pack, each
called again and again by itself, `optimiser` the fused Adam on its weights, in the same way: milliseconds of a
replica-step, the lesser of packs of 1 and of as many as the lab chooses. In `allowed` all else is free, and all that
leaves the caches meanwhile. `threads` is what the user's loop gains by as many threads as cores, on the clock."""
SIZE = 1024  # of the matrices that the rate is measured with
COPIED = 2**24  # values of the tensor that is copied
TARGETS = {
    ("mlp", 16): 50.0, ("mlp", 64): 20.0, ("mlp", 256): 5.5, ("cnn", 8): 4.0, ("cnn", 32): 3.0, ("resnet", 8): 2.5,
}  # fmt: skip
aten = torch.ops.aten
PRODUCTS = frozenset({aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward})


@dataclass(frozen=True)
class Way:
    """How a network is trained."""

    measure: str
    pack: int | None = None
    keeps_memory: bool = True
    onednn: bool = True
    compiled: bool = False
    families: tuple[str, ...] = ("mlp", "cnn", "resnet")


WAYS = {
    "loop as a user writes it": Way("user", keeps_memory=False),
    "best loop": Way("loop"),
    "best loop, compiled": Way("loop", compiled=True),
    "stack of 1": Way("lab", 1),
    "stack of 4": Way("lab", 4),
    "stack of 16": Way("lab", 16),
    "stack of 32": Way("lab", 32, families=("mlp",)),
    "stack of 4, memory given back": Way("lab", 4, keeps_memory=False, families=("cnn", "resnet")),
    "stack of 4, without oneDNN": Way("lab", 4, onednn=False, families=("cnn",)),
    "vmap, 4": Way("vmapped", 4, families=("mlp", "cnn")),
    "im2col, 4": Way("unfolded", 4, families=("cnn",)),
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


def moved(case: Case) -> int:
    """Return the bytes that one step of one network reads and writes, every layer on its own.

    Forward a layer reads its input and writes its output; backward it reads both its input and the gradient of its
    output, and writes the gradient of its input. A weight is read in both directions, its gradient written; Adam reads
    weight, gradient and two moments and writes all but the gradient.
    """
    module, values = loops.alone(case), 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        values += 3 * inputs[0].numel() + 2 * output.numel()

    for layer in module.modules():
        if not isinstance(layer, nn.Sequential | nn.Flatten | nn.Identity | loops.Block):
            layer.register_forward_hook(count)
    module(torch.from_numpy(loops.images(case, case.batch)[0]))
    return 4 * (values + 10 * sum(p.numel() for p in module.parameters()))


def best_rate(work: Callable[[], object], amount: float, seconds: float) -> float:
    """Return the most that one thread did in a second of its time, where each call does this amount."""
    torch.set_num_threads(1)
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while not rates or time.perf_counter() < end:
        began = time.process_time()
        work()
        if (spent := time.process_time() - began) > 0:  # a clock may stand still for the smallest of products
            rates.append(amount / spent)
    return max(rates)


class Products(TorchDispatchMode):
    """Takes note of the products that are computed, so that each can be called again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = functools.partial(func, *args, **kwargs or {})
        if func.overloadpacket in PRODUCTS:
            self.calls.append(call)
        return call()


def floor(case: Case, n_replicas: int, seconds: float) -> tuple[float, float]:
    """Return the milliseconds that the products and the optimiser of a replica-step take by themselves, in a pack."""
    config = case.config
    network = models.build(config, case.image_shape, loops.N_CLASSES)
    pack = Pack.start(
        network, [config] * n_replicas, range(n_replicas), seed=0, device=torch.device("cpu"), dtype=torch.float32
    )
    images_RBCHW = torch.rand(n_replicas, case.batch, *case.image_shape)
    labels_RB = torch.randint(loops.N_CLASSES, (n_replicas, case.batch))
    optimizer = Optimizer([config] * n_replicas, pack.theta_RP, n_steps=1)
    optimizer.begin(0, 1)
    with Products() as products:
        logits_RBC = network.forward(pack.weights, pack.buffers, images_RBCHW, lambda layer, x, rate=None: x)
        pack.differentiate(logits_RBC, cross_entropy_gradient(logits_RBC, labels_RB))
    calls = [products.calls, [functools.partial(optimizer.step, Moment(0))]]
    with torch.no_grad():
        of_products, of_optimizer = (sum(1e3 / best_rate(call, n_replicas, seconds) for call in part) for part in calls)
    return of_products, of_optimizer


def measured(case: Case, seconds: float) -> dict[str, float]:
    """Return what one round measures for a target; in a process that keeps freed memory."""
    n_cpus = os.cpu_count() or 1
    torch.set_num_threads(n_cpus)
    with_all = loops.user(case, seconds).rate
    torch.set_num_threads(1)
    user, lab = loops.user(case, seconds), loops.lab(case, seconds)
    sizes = {1, loops.chosen_pack(case, case.replicas, "cpu")}
    of_products, of_optimizer = min((floor(case, n, seconds / 30) for n in sorted(sizes)), key=sum)
    threads = max(1.0, with_all / user.rate)
    times = {"user": user.cost, "lab": lab.cost, "products": of_products / 1e3, "optimiser": of_optimizer / 1e3}
    return {
        "allowed": n_cpus / threads * times["user"] / (times["products"] + times["optimiser"]),
        "reached": n_cpus / threads * times["user"] / times["lab"],
        **{f"{name}, ms": 1e3 * time for name, time in times.items()},
        "threads": threads,
    }


def target_row(case: Case, found: list[dict[str, float]]) -> dict[str, object]:
    """Return the row of a target: medians over the rounds."""
    medians = {name: statistics.median(values[name] for values in found) for name in found[0]}
    return {"case": case.name, "target": TARGETS.get((case.family, case.width)), **medians}


def main(arguments: list[str] | None = None, folder: Path = records.FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="that the rounds may take in all")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement, at the least")
    parser.add_argument("--quick", action="store_true", help="one small case, three ways, one round")
    options = parser.parse_args(arguments)
    grid = [Case("cnn", 1, 2, (1, 8, 8), 8, 4)] if options.quick else GRID
    ways = {n: w for n, w in WAYS.items() if not options.quick or n in ("best loop", "stack of 4", "im2col, 4")}
    facts = records.machine()
    pools = {name: ProcessPoolExecutor(1, mp_context=get_context("spawn")) for name in ways}
    least: dict[Case, dict[str, float]] = {case: {} for case in grid}
    targets = grid if options.quick else [c for c in throughput.GRID if (c.family, c.width) in TARGETS]
    found_of: dict[Case, list[dict[str, float]]] = {case: [] for case in targets}
    matrix, (source, target) = torch.randn(SIZE, SIZE), torch.randn(2, COPIED)
    flop_rate = byte_rate = 0.0
    n_rounds = 0
    try:
        for number in records.rounds(0.0 if options.quick else 60 * options.minutes):
            n_rounds = number + 1
            flop_rate = max(flop_rate, best_rate(lambda: matrix @ matrix, 2 * SIZE**3, options.seconds))
            byte_rate = max(byte_rate, best_rate(lambda: target.copy_(source), 8 * COPIED, options.seconds))
            for case in grid:
                print(f"round {n_rounds}: {case.name}", flush=True)
                for name, way in ways.items():
                    if case.family in way.families:
                        found = pools[name].submit(milliseconds, way, case, options.seconds).result()
                        least[case][name] = min(found, least[case].get(name, found))
            for case in targets:
                print(f"round {n_rounds}: target of {case.name}", flush=True)
                found_of[case].append(pools["best loop"].submit(measured, case, options.seconds).result())
    finally:
        for pool in pools.values():
            pool.shutdown()
    rows = [{"way": name, **{case.name: least[case].get(name) for case in grid}} for name in ways]
    rows.append({"way": "arithmetic", **{case.name: 1e3 * flops(case) / flop_rate for case in grid}})
    rows.append({"way": "memory", **{case.name: 1e3 * moved(case) / byte_rate for case in grid}})
    about = ABOUT.format(
        rounds=n_rounds, seconds=options.seconds, minutes=options.minutes, size=SIZE, flops=flop_rate / 1e9,
        megabytes=4 * COPIED // 2**20, bytes=byte_rate / 1e9,
    )  # fmt: skip
    of_targets = [target_row(case, found) for case, found in found_of.items()]
    records.write("ways", about, {"Ways": rows, "Targets": of_targets}, facts, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
