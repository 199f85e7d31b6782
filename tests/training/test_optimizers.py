"""Learning rates follow torch's own schedulers at every step."""

import pytest
import torch
from reference import scheduler

from lab.knobs import OPTIMIZERS, SCHEDULES, TrialConfig
from lab.training import optimizers


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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_named_optimizer_can_be_built(name):
    theta = torch.zeros(2, 3)
    theta.grad = torch.ones(2, 3)
    optimizers.build(TrialConfig(optimizer=name, learning_rate=0.1), theta).step()
    assert (theta < 0).all()
