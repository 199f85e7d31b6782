"""Optimisers on the stacked weights, and learning-rate schedules.

The update rules of `sgd`, `adam` and `adamw` act on each value alone, so torch's own fused optimisers, given the one
buffer theta (R, P), update every replica exactly as if it had an optimiser of its own.

Shape suffixes: R replicas, S some of them, P parameters.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from lab.knobs import TrialConfig
from lab.training.moment import Moment, stored

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim's defaults for adam and adamw

STEP_AT = (1 / 2, 3 / 4)  # fractions of the training after which `step` divides the learning rate
STEP_FACTOR = 0.1
ONE_CYCLE_WARM_UP, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25e4  # torch's OneCycleLR defaults


MOMENTS = {"sgd": ("velocity",), "adam": ("mean", "square"), "adamw": ("mean", "square")}


class Optimizer:
    """One optimiser step of R replicas, each with its own rates, in one fused call a block of equal rates.

    `weight_decay` is added to the gradient for sgd and adam (L2 penalty) and decoupled for adamw, as in torch.optim.
    The fused calls are those of torch.optim, on rows of theta (R, P): every replica is updated as if alone.
    """

    def __init__(
        self, configs_R: Sequence[TrialConfig], theta_RP: Tensor, *, n_steps: int, head: slice = slice(0)
    ) -> None:
        """Take the weights of replicas that share the kind of optimiser; the whole training has `n_steps`.

        The columns `head` move by `head_rate_factor` times what they would: every rule here is linear in the rate.

        Raises:
            ValueError: The optimiser or the schedule is unknown.
        """
        kind, self._n_steps = configs_R[0].optimizer, n_steps
        self._head, self._head_factor = head, configs_R[0].head_rate_factor
        if kind not in MOMENTS:
            raise ValueError(f"unknown optimizer {kind!r}: choose sgd, adam or adamw")
        for config in configs_R:
            learning_rate(config, 0, n_steps)
        self.moments = {name: torch.zeros_like(theta_RP) for name in MOMENTS[kind]}
        self._bind(list(configs_R), theta_RP)

    def _bind(self, configs_R: list[TrialConfig], theta_RP: Tensor) -> None:
        self._configs_R, self._theta_RP = configs_R, theta_RP
        # what the fused kernels read: a float on a GPU, the host's double elsewhere
        self._rate_dtype = torch.float32 if theta_RP.device.type == "cuda" else torch.float64
        self._blocks: list[_Block] = []
        start = 0
        for config, rows in itertools.groupby(configs_R):
            end = start + len(list(rows))
            n_done = torch.zeros((), device=theta_RP.device)
            self._blocks.append(_Block(config, slice(start, end), n_done))
            start = end

    def keep(self, rows_S: Tensor, theta_SP: Tensor) -> None:
        """Go on with these replicas alone, whose weights now lie in theta_SP, from the next `begin` on."""
        self.moments = {name: value.index_select(0, rows_S) for name, value in self.moments.items()}
        self._bind([self._configs_R[r] for r in rows_S.tolist()], theta_SP)

    def begin(self, first_step: int, n_steps: int) -> None:
        """Begin an epoch: moments of `step` now count from this step of the training."""
        for block in self._blocks:
            block.n_done.fill_(first_step)
            block.rates = [learning_rate(block.config, first_step + k, self._n_steps) for k in range(n_steps)]
            block.table = stored(block.table, torch.tensor(block.rates, dtype=self._rate_dtype), self._theta_RP.device)

    def step(self, moment: Moment) -> None:
        """Update the weights by their gradients."""
        gradient_RP = self._theta_RP.grad
        assert gradient_RP is not None
        before_RP = self._theta_RP[:, self._head].clone() if self._head_factor != 1 else None
        for block in self._blocks:
            moments = [[moment_RP[block.rows]] for moment_RP in self.moments.values()]
            _update(block, [self._theta_RP[block.rows]], [gradient_RP[block.rows]], moments, block.rate(moment))
        if before_RP is not None:
            self._theta_RP[:, self._head].sub_(before_RP).mul_(self._head_factor).add_(before_RP)


@dataclass
class _Block:
    """Rows of equal configuration."""

    config: TrialConfig
    rows: slice
    n_done: Tensor  # steps before this one, on the device
    rates: list[float] = field(default_factory=list)  # of the steps of the epoch
    table: Tensor | None = None  # the same on the device

    def rate(self, moment: Moment) -> float | Tensor:
        if moment.counter is None:
            return self.rates[moment.k]
        assert self.table is not None
        return moment.of(self.table)


def _update(
    block: _Block,
    weights: list[Tensor],
    gradients: list[Tensor],
    moments: list[list[Tensor]],
    rate: float | Tensor,
) -> None:
    """Do one fused step; the moments are in the order of `MOMENTS`."""
    config = block.config
    if config.optimizer == "sgd":
        velocity: list[Tensor | None] = [*moments[0]]
        sgd(
            weights, gradients, velocity, fused=True, lr=rate, weight_decay=config.weight_decay,
            momentum=config.momentum, dampening=0.0, nesterov=config.nesterov and config.momentum > 0, maximize=False,
        )  # fmt: skip
        return
    mean, square = moments
    adam(
        weights, gradients, mean, square, [], [block.n_done], fused=True, lr=rate, weight_decay=config.weight_decay,
        beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON, amsgrad=False, maximize=False,
        decoupled_weight_decay=config.optimizer == "adamw",
    )  # fmt: skip


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
