"""Which device and which engine, with defaults where none are asked for."""

import os
import sys
from pathlib import Path

from lab.errors import SpecError

ENGINES = ("inline", "process", "ray")
MAX_WORKERS = 8  # by default: beyond, memory (0.47 GB a worker of capacity_sweep) is what a small machine lacks first


def choose_device(name: str = "auto", *, elsewhere: bool = False) -> str:
    """Return the device to train on: "auto" takes cuda, then mps, then cpu.

    A name is compared with what this machine has, unless the training happens `elsewhere`.

    Raises:
        SpecError: Unknown, or not on this machine.
    """
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"  # without torch: the coordinator of a CPU study needs it for nothing else, and it takes 0.5 GB
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise SpecError(f"--device {name!r} is unknown: choose auto, cpu, cuda, cuda:0 … or mps") from None
    if elsewhere and kind in ("cpu", "cuda", "mps"):
        return name
    if kind == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"--device {name}: this machine has no usable CUDA GPU: choose cpu")
    if kind == "cuda" and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise SpecError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA GPUs, counted from 0")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SpecError(f"--device {name}: this machine has no usable MPS device: choose cpu")
    if kind not in ("cpu", "cuda", "mps"):
        raise SpecError(f"--device {name!r} is not supported: choose cpu, cuda or mps")
    return name


def _may_have_gpu() -> bool:
    """Return False where torch could not find a GPU: on Linux without a device node of any driver that it knows."""
    if sys.platform != "linux":
        return True
    nodes = ("nvidiactl", "nvhost-ctrl", "nvmap", "dxg", "kfd")  # CUDA, Jetson (2), CUDA in WSL, ROCm
    return any(Path("/dev", node).exists() for node in nodes)


def n_gpus(device: str) -> int:
    """Return how many GPUs local workers share out: all for "cuda", none but the one for "cuda:1" and the like."""
    if device != "cuda":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def choose_engine(engine: str | None, n_workers: int | None, *, device: str, smoke: bool) -> tuple[str, int]:
    """Return the engine and the number of workers, with defaults where none are asked for.

    One process for a GPU (its packs fill it), so one worker for each if there are several; this process for one GPU,
    for smoke runs (they end before workers have started) and for one worker; else one a CPU core, at most
    `MAX_WORKERS`. 0 workers of Ray stand for as many as there is room for.

    Raises:
        SpecError: An unknown engine, or a number of workers that it cannot have.
    """
    if engine is not None and engine not in ENGINES:
        raise SpecError(f"--engine {engine!r} is unknown: choose {', '.join(ENGINES)}")
    if n_workers is not None and not 1 <= n_workers <= 1024:
        raise SpecError(f"--workers {n_workers}: give 1 to 1024")
    if engine == "inline" and n_workers not in (None, 1):
        raise SpecError(f"--engine inline has one worker, not {n_workers}: leave --workers out, or choose process")
    if engine is None:
        small = n_workers == 1 or (n_workers is None and (smoke or (device != "cpu" and n_gpus(device) == 1)))
        engine = "inline" if small else "process"
    if engine == "inline":
        return engine, 1
    if engine == "ray":
        return engine, n_workers or 0
    return engine, n_workers or (min(_n_cpus(), MAX_WORKERS) if device == "cpu" else n_gpus(device))


def _n_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
