"""Optimisers on the stacked weights, and learning-rate schedules.

The update rules of `sgd`, `adam` and `adamw` act on each value alone, so torch's own fused optimisers, given the one
buffer theta (R, P), update every replica exactly as if it had an optimiser of its own.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lab.knobs import TrialConfig

STEP_AT = (1 / 2, 3 / 4)  # fractions of the training after which `step` divides the learning rate
STEP_FACTOR = 0.1
ONE_CYCLE_WARM_UP, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25e4  # torch's OneCycleLR defaults


def build(config: TrialConfig, theta_RP: Tensor) -> torch.optim.Optimizer:
    """Return the optimiser of a configuration on the weights of all replicas.

    `weight_decay` is added to the gradient for sgd and adam (L2 penalty) and decoupled for adamw, as in torch.optim.

    Raises:
        ValueError: The optimiser is unknown.
    """
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return torch.optim.SGD(
            [theta_RP], lr=rate, momentum=config.momentum, nesterov=nesterov, weight_decay=decay, fused=True
        )
    if config.optimizer == "adam":
        return torch.optim.Adam([theta_RP], lr=rate, weight_decay=decay, fused=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW([theta_RP], lr=rate, weight_decay=decay, fused=True)
    raise ValueError(f"unknown optimizer {config.optimizer!r}: choose sgd, adam or adamw")


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _constant(step: int, n_steps: int) -> float:
    return 1.0


def _cosine(step: int, n_steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / n_steps))  # Loshchilov & Hutter 2017, one period, to 0


def _step(step: int, n_steps: int) -> float:
    return STEP_FACTOR ** sum(step >= fraction * n_steps for fraction in STEP_AT)


def _one_cycle(step: int, n_steps: int) -> float:
    """Warm up from 1/25, then anneal to 1/250000, both along a cosine (Smith & Topin 2018; no momentum cycle)."""
    peak = ONE_CYCLE_WARM_UP * n_steps - 1
    if step <= peak:
        start, end, fraction = ONE_CYCLE_START, 1.0, step / peak
    else:
        start, end, fraction = 1.0, ONE_CYCLE_END, (step - peak) / (n_steps - 1 - peak)
    return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "step": _step,
    "one_cycle": _one_cycle,
}


def learning_rate(config: TrialConfig, step: int, n_steps: int) -> float:
    """Return the learning rate of step 0 … n_steps − 1.

    Raises:
        ValueError: The schedule is unknown.
    """
    if config.schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {config.schedule!r}: choose one of {', '.join(SCHEDULES)}")
    return config.learning_rate * SCHEDULES[config.schedule](step, n_steps)
