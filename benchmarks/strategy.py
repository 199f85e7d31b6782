"""How many replicas should share a pack? Processor time of a replica-step for every pack size, one thread.

`python -m benchmarks.strategy` measures on the CPU, `--device cuda` on a GPU (wall time there). The rule in
lab/training/strategy.py is made from the table.
"""

import argparse
from pathlib import Path

import torch

from benchmarks import loops, records
from benchmarks.loops import Case
from lab.training.allocator import keep_freed_memory
from lab.training.strategy import cache_bytes

MLP_PACKS = (1, 4, 8, 16, 32, 64, 128)
CONVOLUTION_PACKS = (1, 2, 4, 8, 16)
AROUND = 4  # convolutional packs are measured up to this many times the one that is chosen
DIGITS, FASHION, COLOUR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
GRID = [
    *(Case("mlp", 3, width, DIGITS, 32, 0) for width in (16, 64, 256)),
    *(Case("mlp", 2, width, FASHION, 64, 0) for width in (32, 128)),
    *(Case("cnn", 2, width, DIGITS, 32, 0) for width in (4, 16, 64)),
    *(Case("cnn", 2, width, FASHION, 64, 0) for width in (4, 8, 16, 32, 64)),
    *(Case("cnn", 3, width, COLOUR, 32, 0) for width in (8, 32)),
    *(Case("resnet", 1, width, DIGITS, 32, 0) for width in (4, 16)),
    *(Case("resnet", 2, width, COLOUR, 64, 0) for width in (4, 8, 16)),
]
ABOUT = """One optimiser step of one replica, in milliseconds: packs of so many replicas, trained by `lab.training.fit`,
beside the best loop over single networks (tensors on the device, fused Adam, channels last where there are
images). Random images; {clock}; least of n = {rounds} rounds over all cases, each of at least {seconds} s
and one epoch of four steps, in a process that keeps freed memory. `chosen` is what the lab chooses by itself where
many replicas are asked for, `loss` its time over that of the best column, less 1. Packs of convolutions of more than
{around} times what is chosen were not measured."""


def main(arguments: list[str] | None = None, folder: Path = records.FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", type=loops.available)
    parser.add_argument("--minutes", type=float, default=8.0, help="that the rounds may take in all")
    parser.add_argument("--seconds", type=float, default=0.15, help="of each measurement, at the least")
    parser.add_argument("--quick", action="store_true", help="two small cases")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    grid = [GRID[0], GRID[6]] if options.quick else GRID
    least: dict[Case, dict[str, float]] = {case: {} for case in grid}
    n_rounds = 0
    for _ in records.rounds(60 * options.minutes):
        n_rounds += 1
        for case in grid:
            print(f"round {n_rounds}: {case.name}", flush=True)
            for column, time in measure(case, options.seconds, options.device).items():
                least[case][column] = min(time, least[case].get(column, time))  # a neighbour only adds to a time
    tables: dict[str, list[dict[str, object]]] = {}
    for case in grid:
        tables.setdefault(case.family, []).append(row(case, least[case], options.device))
    clock = "processor time, one thread" if options.device == "cpu" else "wall time"
    about = ABOUT.format(clock=clock, rounds=n_rounds, seconds=options.seconds, around=AROUND)
    is_cpu, facts = options.device == "cpu", records.machine(cache_bytes=cache_bytes(), **loops.gpu(options.device))
    name, flags = ("strategy", "") if is_cpu else (f"strategy_{options.device}", f"--device {options.device}")
    records.write(name, about, tables, facts, folder, flags)
    return 0


def packs(case: Case) -> tuple[int, ...]:
    """Return all sizes of pack that a table has columns for."""
    return MLP_PACKS if case.family == "mlp" else CONVOLUTION_PACKS


def measure(case: Case, seconds: float, device: str) -> dict[str, float]:
    """Return column → milliseconds of a replica-step, of one round."""
    works = {"loop": loops.best_loop(case, seconds, device=device)}
    chosen = loops.chosen_pack(case, max(packs(case)), device)
    for pack in packs(case):
        if case.family == "mlp" or pack <= AROUND * chosen:
            works[f"pack {pack}"] = loops.lab(case, seconds, device=device, pack=pack)
    return {column: 1e3 * (work.cost if device == "cpu" else 1 / work.rate) for column, work in works.items()}


def row(case: Case, least: dict[str, float], device: str) -> dict[str, object]:
    """Return the row of a case; None where nothing was measured."""
    chosen = loops.chosen_pack(case, max(packs(case)), device)
    loss = least[f"pack {chosen}"] / min(least.values()) - 1
    columns = ["loop", *(f"pack {pack}" for pack in packs(case))]
    times = {column: least.get(column) for column in columns}
    return {"case": case.name, **times, "chosen": chosen, "loss": round(loss, 3)}


if __name__ == "__main__":
    raise SystemExit(main())
