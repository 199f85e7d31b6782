"""Replica-steps a second, the whole machine against the whole machine: the lab, and what one writes without it.

`python -m benchmarks.throughput` on the CPU, `--device cuda` on a GPU (torch is all it needs); `--study` times a whole
`capacity_sweep` and says where its time goes.
"""

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import loops, records
from benchmarks.loops import Case, Work
from lab.training.allocator import keep_freed_memory

DIGITS, FASHION, COLOUR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
GRID = [
    *(Case("mlp", 3, width, DIGITS, 32, 32) for width in (16, 64, 256)),
    *(Case("cnn", 2, width, FASHION, 64, 16) for width in (8, 32)),
    *(Case("resnet", 2, width, COLOUR, 64, 8) for width in (8, 16)),
]
GPU_GRID = [
    *(Case("mlp", 3, 64, DIGITS, 32, replicas) for replicas in (64, 256, 1024)),
    *(Case("cnn", 2, width, FASHION, batch, 64) for width in (8, 32) for batch in (64, 128)),
    *(Case("resnet", 2, 8, COLOUR, batch, 32) for batch in (64, 128)),
    Case("resnet", 2, 16, COLOUR, 128, 32),
]
ABOUT = """One replica-step is one optimiser step of one network on its own batch. `user` is one replica after another
with a DataLoader over a TensorDataset and default Adam; `loop` the best loop over single networks (tensors on the
device, fused Adam, channels last for images{compiled}); `lab` is `lab.training.fit`, epochs alone, with packs as it
chooses. {arrangement} Random images of the stated shape. n = {rounds} interleaved rounds of at least {seconds} s and
one epoch of four steps for each arrangement, as many as fit into {minutes:g} minutes; rates are medians of them,
ratios medians of the ratios within a round."""
CPU_ARRANGEMENT = """The whole machine: `user` gets one process with as many threads as cores, or with one thread,
whichever is faster; `loop` one process with as many threads as cores, or as many single-threaded processes as cores,
whichever is faster; `lab` as many single-threaded processes as cores, each with its own R replicas (another trial).
Processes of `loop` and `lab` keep freed memory (lab/training/allocator.py). `per core` is the ratio of processor time
of a replica-step in single-threaded processes, which a busy neighbour disturbs least."""
Measure = Callable[..., Work]
Rate = tuple[float, float]  # replica-steps a second, processor seconds of one


class Machine:
    """As many processes as cores, which do the same work at the same time."""

    def __init__(self, n_processes: int, initializer: Callable[[], object] | None = None) -> None:
        """Start processes that each run `initializer` first."""
        context = multiprocessing.get_context("spawn")
        self.pools = [ProcessPoolExecutor(1, mp_context=context, initializer=initializer) for _ in range(n_processes)]

    def rate(
        self, n_processes: int, threads: int, measure: Measure, case: Case, seconds: float, **options: object
    ) -> Rate:
        """Return replica-steps a second of these processes together, and their processor time for one."""
        futures = [
            pool.submit(_in_worker, threads, measure, case, seconds, options) for pool in self.pools[:n_processes]
        ]
        works = [future.result() for future in futures]
        return sum(work.rate for work in works), statistics.mean(work.cost for work in works)

    def close(self) -> None:
        for pool in self.pools:
            pool.shutdown()


def _in_worker(threads: int, measure: Measure, case: Case, seconds: float, options: dict[str, object]) -> Work:
    torch.set_num_threads(threads)
    return measure(case, seconds, **options)


def on_cpu(plain: Machine, machine: Machine, case: Case, seconds: float, compiled: bool) -> dict[str, float]:
    """Return what one round measures: rates of the whole machine, and the two ratios of a core.

    Loop and lab run in processes that keep freed memory, as the lab's workers do; the user's in plain ones.
    """
    n = len(machine.pools)
    user = [plain.rate(1, threads, loops.user, case, seconds) for threads in sorted({1, n})]
    loop = [machine.rate(n, 1, loops.best_loop, case, seconds)]
    if n > 1:
        loop.append(machine.rate(1, n, loops.best_loop, case, seconds))
    if compiled:
        loop.append(machine.rate(n, 1, loops.best_loop, case, seconds, compiled=True))
    lab = machine.rate(n, 1, loops.lab, case, seconds)
    return {
        "user": max(rate for rate, _ in user), "loop": max(rate for rate, _ in loop), "lab": lab[0],
        "per core lab / user": user[0][1] / lab[1], "per core lab / loop": loop[0][1] / lab[1],
    }  # fmt: skip


def on_gpu(device: str, case: Case, seconds: float, compiled: bool) -> dict[str, float]:
    """Return what one round measures on one GPU."""
    loop = [loops.best_loop(case, seconds, device=device)]
    if compiled:
        loop.append(loops.best_loop(case, seconds, device=device, compiled=True))
    return {
        "user": loops.user(case, seconds, device=device).rate,
        "loop": max(work.rate for work in loop),
        "lab": loops.lab(case, seconds, device=device).rate,
    }


def row(case: Case, rounds: list[dict[str, float]]) -> dict[str, object]:
    """Return the row of a case: medians over the rounds."""

    def ratio(to: str) -> float:
        return statistics.median(values["lab"] / values[to] for values in rounds)

    median = {name: statistics.median(values[name] for values in rounds) for name in rounds[0]}
    rates = {f"{name}, steps/s": median.pop(name) for name in ("user", "loop", "lab")}
    return {
        "case": case.name,
        "R": case.replicas,
        **rates,
        "lab / user": ratio("user"),
        "lab / loop": ratio("loop"),
    } | median


def main(arguments: list[str] | None = None, folder: Path = records.FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", type=loops.available)
    parser.add_argument("--minutes", type=float, default=7.0, help="that the rounds may take in all")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--compile", action="store_true", help="let the loop be compiled too (needs a C++ compiler)")
    parser.add_argument("--quick", action="store_true", help="two tiny cases, one round")
    parser.add_argument("--study", action="store_true", help="a whole capacity_sweep instead (needs all of the lab)")
    options = parser.parse_args(arguments)
    if options.study:
        from benchmarks import whole_study

        return whole_study.main(quick=options.quick, folder=folder)
    is_cpu = options.device == "cpu"
    grid = GRID if is_cpu else GPU_GRID
    if options.quick:
        grid = [replace(GRID[0], replicas=4), Case("cnn", 1, 2, DIGITS, 8, 4)]
        options.minutes, options.seconds = 0.0, 0.05
    n_processes = (os.cpu_count() or 1) if is_cpu else 0
    plain, machine = Machine(n_processes), Machine(n_processes, keep_freed_memory)
    rounds: dict[Case, list[dict[str, float]]] = {case: [] for case in grid}
    facts = records.machine(**loops.gpu(options.device))
    try:
        for number in records.rounds(60 * options.minutes):
            for case in grid:
                print(f"round {number + 1}: {case.name}", flush=True)
                one = (
                    on_cpu(plain, machine, case, options.seconds, options.compile)
                    if is_cpu
                    else on_gpu(options.device, case, options.seconds, options.compile)
                )
                rounds[case].append(one)
    finally:
        plain.close()
        machine.close()
    about = ABOUT.format(
        compiled=", compiled where that is faster" if options.compile else "",
        arrangement=CPU_ARRANGEMENT if is_cpu else "One process, one GPU.",
        rounds=len(rounds[grid[0]]), seconds=options.seconds, minutes=options.minutes,
    )  # fmt: skip
    tables: dict[str, list[dict[str, object]]] = {}
    for case in grid:
        tables.setdefault(case.family, []).append(row(case, rounds[case]))
    name, flags = ("throughput", "") if is_cpu else (f"throughput_{options.device}", f"--device {options.device}")
    records.write(name, about, tables, facts, folder, flags)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
