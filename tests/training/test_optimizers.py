"""Updates and learning rates are torch's own, replica by replica."""

import dataclasses

import pytest
import torch
from reference import scheduler

from lab.knobs import OPTIMIZERS, SCHEDULES, TrialConfig
from lab.training import optimizers
from lab.training.moment import Moment
from lab.training.optimizers import Optimizer


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n_steps", [8, 40])
def test_the_schedule_is_torchs(schedule, n_steps):
    config = TrialConfig(schedule=schedule, learning_rate=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = scheduler(config, optimizer, n_steps)
    for step in range(n_steps):
        ours = optimizers.learning_rate(config, step, n_steps)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        if step < n_steps - 1:
            optimizer.step()
            theirs.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n_steps", [1, 2, 3, 4])
def test_very_short_trainings_have_a_rate(schedule, n_steps):
    rates = [optimizers.learning_rate(TrialConfig(schedule=schedule), s, n_steps) for s in range(n_steps)]
    assert all(0 <= rate <= 1e-3 for rate in rates)
    assert max(rates) > 0


def torchs_own(config, theta_P):
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "foreach": False}
    if config.optimizer == "sgd":
        return torch.optim.SGD([theta_P], momentum=config.momentum, nesterov=config.nesterov, **options)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]([theta_P], **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("nesterov", [False, True])
def test_each_replica_is_updated_with_its_own_rates_as_torch_updates_it_alone(name, nesterov):
    first = TrialConfig(optimizer=name, learning_rate=0.1, weight_decay=0.3, momentum=0.5, nesterov=nesterov)
    second = dataclasses.replace(first, learning_rate=0.02, weight_decay=0.0, momentum=0.9, schedule="cosine")
    configs = [first, second, second, first]
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    alone = [row.clone().requires_grad_() for row in theta]
    theirs = [torchs_own(config, row) for config, row in zip(configs, alone, strict=True)]
    schedules = [scheduler(config, optimizer, 20) for config, optimizer in zip(configs, theirs, strict=True)]
    theta.grad = torch.zeros_like(theta)
    ours = Optimizer(configs, theta, n_steps=20)
    rows = [0, 1, 2, 3]
    for step in range(20):
        if step == 10:  # a replica leaves
            rows = [0, 2, 3]
            theta = theta[rows]
            theta.grad = torch.zeros_like(theta)
            ours.keep(torch.tensor(rows), theta)
        if step % 5 == 0:
            ours.begin(step, 5)
        theta.grad.copy_(torch.randn(4, 7, generator=generator, dtype=torch.float64)[rows])
        for k, r in enumerate(rows):
            alone[r].grad = theta.grad[k].clone()
            theirs[r].step()
            schedules[r].step()
        ours.step(Moment(step % 5))
    expected = torch.stack([alone[r] for r in rows])
    torch.testing.assert_close(theta, expected.detach(), rtol=1e-12, atol=1e-14)


def test_an_unknown_optimizer_or_schedule_is_an_error():
    theta = torch.zeros(1, 2)
    for change in ({"optimizer": "lion"}, {"schedule": "linear"}):
        config = TrialConfig()
        for name, value in change.items():
            object.__setattr__(config, name, value)
        with pytest.raises(ValueError, match=next(iter(change.values()))):
            Optimizer([config], theta, n_steps=1)
