"""A replica that stops early is as it was at its best, costs nothing more, and the others do not notice."""

import dataclasses

import numpy as np
import pytest
import torch

from lab import models, training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import loop
from lab.training.pack import Pack

CONFIG = TrialConfig(width=32, depth=1, epochs=60, n_train=30, batch_size=8, learning_rate=0.03)
REPLICATION = Replication(scheme="bootstrap", n_resamples=3, n_inits=2)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=50)


def evaluations(digits, config, **options):
    return list(training.fit(config, digits, REPLICATION, seed=1, n_evaluations=20, **options))


def stopping_places(risk_ER, patience):
    """For each replica, the evaluation at which it stops and its best one until then, by going through the curve."""
    found = []
    for curve in risk_ER.T:
        best = 0
        for k in range(len(curve)):
            if curve[k] < curve[best]:
                best = k
            if k - best >= patience:
                break
        found.append((k, best))
    return found


@pytest.mark.parametrize("change", [{}, {"dropout": 0.3}, {"norm": "batch", "optimizer": "sgd"}])
@pytest.mark.parametrize("patience", [1, 3])
def test_a_replica_stops_where_its_curve_says_and_goes_back_to_its_best(digits, patience, change):
    config = dataclasses.replace(CONFIG, **change)
    free = evaluations(digits, config)
    risk_ER = np.stack([evaluation.metrics["val_risk"] for evaluation in free])
    places = stopping_places(risk_ER, patience)
    stopped = evaluations(digits, dataclasses.replace(config, patience=patience))
    assert [e.epoch for e in stopped] == [e.epoch for e in free]
    assert len({k for k, _ in places}) > 1  # they stop at different evaluations, so the crew shrinks on the way
    for r, (k, best) in enumerate(places):
        d, i = divmod(r, REPLICATION.n_inits)
        for late in stopped[k:]:
            assert late.metrics["val_risk"][r] == pytest.approx(risk_ER[best, r], rel=1e-5)
            np.testing.assert_allclose(
                late.probabilities_test_DINC[d, i], free[best].probabilities_test_DINC[d, i], rtol=1e-4, atol=1e-6
            )


def test_patience_that_never_runs_out_still_ends_at_the_best_evaluation(digits):
    risk_ER = np.stack([e.metrics["val_risk"] for e in evaluations(digits, CONFIG)])
    patient = evaluations(digits, dataclasses.replace(CONFIG, patience=10_000))
    assert patient[-1].metrics["val_risk"] == pytest.approx(risk_ER.min(axis=0), rel=1e-5)
    assert (risk_ER[-1] > risk_ER.min(axis=0)).any()


def test_replicas_that_stopped_take_no_further_steps(digits, monkeypatch):
    n_replicas, step = [], loop._differentiate

    def counted(crew, sets, moment):
        n_replicas.append(len(crew))
        step(crew, sets, moment)

    monkeypatch.setattr(loop, "_differentiate", counted)
    config = dataclasses.replace(CONFIG, patience=1)
    free = evaluations(digits, CONFIG)
    n_free = sum(n_replicas)
    n_replicas.clear()
    places = stopping_places(np.stack([e.metrics["val_risk"] for e in free]), 1)
    evaluations(digits, config)
    epochs = training.evaluation_epochs(config.epochs, 20)
    assert sum(n_replicas) == sum(epochs[k] * 4 for k, _ in places) < n_free  # 4 batches an epoch


def test_diverged_replicas_leave_and_the_others_do_not_notice(digits):
    wild = dataclasses.replace(
        CONFIG, optimizer="sgd", learning_rate=0.2, activation="leaky_relu", init_gain=3.0, width=12, depth=2, epochs=9
    )
    together = evaluations(digits, wild)[-1]
    gone = together.diverged_R
    assert gone.any()
    assert not gone.all()
    alone = evaluations(digits, wild, pack_size=1)[-1]
    assert np.array_equal(alone.diverged_R, gone)
    kept = ~gone.reshape(3, 2)
    np.testing.assert_allclose(
        together.probabilities_test_DINC[kept], alone.probabilities_test_DINC[kept], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("clip_norm", [0.05, 1.0])
def test_gradients_are_clipped_replica_by_replica_as_torch_clips_one_network(clip_norm):
    config = dataclasses.replace(CONFIG, clip_norm=clip_norm)
    pack = Pack.start(
        models.build(config, (1, 8, 8), 10), [config] * 3, [0, 1, 2], seed=0, device=torch.device("cpu"),
        dtype=torch.float64,
    )  # fmt: skip
    gradient = torch.randn(pack.theta_RP.shape, dtype=torch.float64) * torch.tensor([[1e-4], [1.0], [float("nan")]])
    pack.theta_RP.grad.copy_(gradient)
    pack.clip(torch.full((3, 1), clip_norm, dtype=torch.float64))
    for r in range(2):
        alone = torch.zeros(pack.theta_RP.shape[1], dtype=torch.float64, requires_grad=True)
        alone.grad = gradient[r].clone()
        torch.nn.utils.clip_grad_norm_([alone], clip_norm)
        torch.testing.assert_close(pack.theta_RP.grad[r], alone.grad, rtol=1e-12, atol=0)
    assert pack.theta_RP.grad[2].isnan().all()
