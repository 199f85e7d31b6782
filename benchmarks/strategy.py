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

MLP_PACKS = (1, 4, 16, 32, 64, 128)
CONVOLUTION_PACKS = (1, 2, 4, 8, 16)
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
beside the best loop over single networks (tensors on the device, fused Adam, channels last where there are images).
Random images; {clock}; least of {rounds} interleaved rounds of {seconds} s and one epoch each, in a process that keeps
freed memory. `chosen` is what the lab chooses by
itself where many replicas are asked for, `loss` its time over that of the best column, less 1."""


def main(arguments: list[str] | None = None, folder: Path = records.FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--quick", action="store_true", help="two small cases")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    grid = [GRID[0], GRID[6]] if options.quick else GRID
    tables: dict[str, list[dict[str, object]]] = {}
    for case in grid:
        print(case.name, flush=True)
        tables.setdefault(case.family, []).append(measure(case, options.rounds, options.seconds, options.device))
    clock = "processor time, one thread" if options.device == "cpu" else "wall time"
    about = ABOUT.format(clock=clock, rounds=options.rounds, seconds=options.seconds)
    name = "strategy" if options.device == "cpu" else f"strategy_{options.device}"
    records.write(name, about, tables, records.machine(**loops.gpu(options.device)), folder)
    return 0


def measure(case: Case, rounds: int, seconds: float, device: str) -> dict[str, object]:
    """Return the row of a case."""
    packs = MLP_PACKS if case.family == "mlp" else CONVOLUTION_PACKS
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for column, work in [
            ("loop", loops.best_loop(case, seconds, device=device)),
            *((f"pack {pack}", loops.lab(case, seconds, device=device, pack=pack)) for pack in packs),
        ]:
            times.setdefault(column, []).append(1e3 * (work.cost if device == "cpu" else 1 / work.rate))
    least = {column: min(values) for column, values in times.items()}  # a neighbour on the machine only adds to a time
    chosen = loops.chosen_pack(case, max(packs), device)
    loss = least[f"pack {chosen}"] / min(least.values()) - 1
    return {"case": case.name, **least, "chosen": chosen, "loss": round(loss, 3)}


if __name__ == "__main__":
    raise SystemExit(main())
