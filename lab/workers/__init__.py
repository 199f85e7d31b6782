"""Engines: how tasks are carried out. `inline` in this process, `process`: local worker processes, `ray`: a cluster.

All stand behind `Engine`: `submit` a task, ask for the `next_done` outcome, `close`. Workers only train and write
outcomes to the spool (lab.trial); they never see Optuna or MLflow.
"""

from collections.abc import Callable

from lab.storage import Home
from lab.workers.choice import choose_device, choose_engine, n_gpus
from lab.workers.engine import Engine
from lab.workers.inline import InlineEngine
from lab.workers.processes import ProcessEngine
from lab.workers.ray import RayEngine

__all__ = ["Engine", "InlineEngine", "ProcessEngine", "RayEngine", "choose_device", "choose_engine", "open_engine"]


def open_engine(
    engine: str,
    n_workers: int,
    *,
    home: Home,
    device: str,
    tick: Callable[[], None] | None = None,
    ray_address: str | None = None,
) -> Engine:
    """Return the engine of that name; `tick` is called now and then while it works in this process."""
    if engine == "inline":
        return InlineEngine(home, device=device, tick=tick)
    if engine == "ray":
        return RayEngine(home, n_workers, device=device, address=ray_address)
    return ProcessEngine(home, n_workers, device=device, n_gpus=n_gpus(device))
