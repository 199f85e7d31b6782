"""Does it pay to fill up narrower perceptrons with zeros, so that trials of two widths share a pack?

`python -m benchmarks.padding --device cuda`: what the rule of lab.training.strategy.packs is reasoned for. On the CPU,
the default, the lab does not do so.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import loops, records
from benchmarks.loops import Case
from lab import training
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training.allocator import keep_freed_memory
from lab.training.job import Job
from lab.training.padding import built
from lab.training.strategy import packs

CASE = Case("mlp", 3, 1, (1, 8, 8), 32, 32)  # but for its width
PAIRS = [(16, 4), (64, 16), (96, 48), (128, 64), (192, 128), (256, 64), (256, 192), (512, 384)]
DROPOUTS = (0.0, 0.25)
ABOUT = """{time} in milliseconds of a step of {replicas} perceptrons (depth {depth}, 8 × 8 images, batch {batch}) of
each of two widths, in a pack for each width and in one pack, the narrower ones filled up with zeros. One process, least
of n = {rounds} interleaved rounds of at least {seconds} s and one epoch of four steps each, as many as fit into
{minutes:g} minutes. `rule` is what the lab does on a GPU (lab.training.strategy.packs)."""


def milliseconds(configs: Sequence[TrialConfig], seconds: float, device: str) -> float:
    """Return what a step of one pack takes, in which each configuration has its replicas; an evaluation not counted."""
    plan = Replication(scheme="bootstrap", n_resamples=CASE.replicas // 2, n_inits=2)
    jobs = [Job(config, plan) for config in configs]
    watch, begun = loops.Stopwatch(seconds, device), []  # type: ignore[var-annotated]
    try:
        for evaluations in training.fit_many(
            jobs, loops.dataset(CASE), seed=0, n_evaluations=2, device=device, pack_size=len(jobs) * CASE.replicas,
            on_epoch=lambda state: watch.lap() if begun else None,
        ):  # fmt: skip
            begun.append(evaluations)
    except loops.Full:
        pass
    work = watch.work(loops.N_BATCHES)
    return 1e3 * (work.cost if device == "cpu" else 1 / work.rate)


def configs_of(widths: Sequence[int], dropout: float) -> list[TrialConfig]:
    """Return the configuration of each width."""
    return [replace(CASE.config, width=width, dropout=dropout) for width in widths]


def main(arguments: list[str] | None = None, folder: Path = records.FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", type=loops.available)
    parser.add_argument("--minutes", type=float, default=5.0, help="that the rounds may take in all")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement, at the least")
    parser.add_argument("--quick", action="store_true", help="one pair, one round")
    options = parser.parse_args(arguments)
    if options.quick:
        options.minutes, options.seconds = 0.0, 0.01
    torch.set_num_threads(1)
    keep_freed_memory()
    facts = records.machine(**loops.gpu(options.device))
    keys = [(pair, dropout) for pair in (PAIRS[:1] if options.quick else PAIRS) for dropout in DROPOUTS]
    least = {key: [float("inf")] * 2 for key in keys}
    n_rounds = 0
    for number in records.rounds(60 * options.minutes):
        n_rounds = number + 1
        for pair, dropout in keys:
            configs = configs_of(pair, dropout)
            two = sum(milliseconds([config], options.seconds, options.device) for config in configs)
            one = milliseconds(configs, options.seconds, options.device)
            least[pair, dropout] = [min(times) for times in zip(least[pair, dropout], (two, one), strict=True)]
    rows = []
    for (pair, dropout), (two, one) in least.items():
        networks = built(configs_of(pair, dropout), CASE.image_shape, loops.N_CLASSES)
        rule = "one pack" if len(packs(networks, [CASE.replicas] * 2)) == 1 else "two packs"
        times = {"two packs": two, "one pack": one, "ratio": one / two}
        rows.append({"widths": " and ".join(map(str, pair)), "dropout": dropout, **times, "rule": rule})
    about = ABOUT.format(
        replicas=CASE.replicas, depth=CASE.depth, batch=CASE.batch, rounds=n_rounds, seconds=options.seconds,
        minutes=options.minutes, time="Processor time" if options.device == "cpu" else "Wall time",
    )  # fmt: skip
    flags = "" if options.device == "cpu" else f"--device {options.device}"
    records.write("_".join(["padding", *flags.split()[1:]]), about, {"Padding": rows}, facts, folder, flags)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
