"""The stacked trainer is the same as training each replica alone, and a replica does not notice its pack."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from reference import train_alone

from lab import models, training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import losses
from lab.training.dropout import Dropout
from lab.training.moment import Moment
from lab.training.optimizers import Optimizer
from lab.training.pack import Pack

CPU = torch.device("cpu")

SMALL = TrialConfig(width=6, depth=2, epochs=3, n_train=21, batch_size=8, learning_rate=0.01)
TWO_BY_TWO = Replication(scheme="bootstrap", n_resamples=2, n_inits=2)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=20)


def last(config, dataset, replication=TWO_BY_TWO, **options):
    *_, evaluation = training.fit(config, dataset, replication, seed=3, n_evaluations=2, **options)
    return evaluation


RESNET = {"family": "resnet", "depth": 1}

CASES = [
    *({"optimizer": o, "family": f, "weight_decay": 0.01} for o in ("sgd", "adam", "adamw") for f in ("mlp", "cnn")),
    {"optimizer": "sgd", "nesterov": True},
    *({"norm": n, "family": f} for n in ("batch", "group", "layer") for f in ("mlp", "cnn")),
    *({"activation": a} for a in ("tanh", "sigmoid", "gelu", "leaky_relu", "elu")),
    *({"dropout": 0.25, "family": f} for f in ("mlp", "cnn")),
    *({"schedule": s, "optimizer": "sgd"} for s in ("cosine", "step", "one_cycle")),
    {"init_scheme": "torch_default", "init_gain": 2.0},
    {"init_scheme": "orthogonal", "family": "cnn", "depth": 4},
    *(RESNET | {"norm": n} for n in ("none", "batch", "group", "layer")),
    RESNET | {"norm": "batch", "dropout": 0.25, "depth": 2},
    RESNET | {"norm": "batch", "spatial_dropout": 0.25, "dropout": 0.125, "depth": 2},
    {"family": "cnn", "spatial_dropout": 0.25, "convolutions": 2},
    RESNET | {"norm": "batch", "residual": "off"},
    {"family": "cnn", "pooling": "average"},
    {"family": "cnn", "convolutions": 2, "norm": "batch", "dropout": 0.25},
    *({"family": f, "residual": "on", "depth": 3} for f in ("mlp", "cnn")),
    {"depth": 0},
    *({"width": 96, "adversarial": a} for a in ("none", "fgsm")),  # gradients that are computed in their place
    {"normalize": "none"},
    {"normalize": "none", "adversarial": "fgsm", "epsilon": 0.1},
    {"batch_size": 21, "n_train": 21},
    {"batch_size": 64},
    *({"loss": loss} for loss in ("brier", "focal")),
    {"loss": "focal", "focal_gamma": 0.7},
    {"optimizer": "sgd", "momentum": 0.5},
    {"label_smoothing": 0.2},
    *({"class_weights": "balanced", "loss": loss} for loss in ("cross_entropy", "focal")),
    {"l1": 1e-3},
    *({"averaging": a, "norm": n, "epochs": 5} for a in ("ema", "swa") for n in ("none", "batch")),
    {"averaging": "swa", "norm": "batch", "family": "cnn", "epochs": 5, "dropout": 0.25},
    *({"adversarial": a, "epsilon": 0.1} for a in ("fgsm", "pgd")),
    {"adversarial": "fgsm", "norm": "batch", "family": "cnn", "dropout": 0.25},
    *({"frozen": 0.5, "family": f, "norm": "batch", "dropout": 0.25, "optimizer": "sgd"} for f in ("mlp", "cnn")),
    {"frozen": 1.0, "family": "cnn", "optimizer": "adamw", "weight_decay": 0.1},
    {"frozen": 0.5, "averaging": "ema", "norm": "batch", "epochs": 5},
    {"frozen": 0.5, "adversarial": "fgsm"},
    RESNET | {"frozen": 1.0, "norm": "batch", "dropout": 0.25},
    *({"head_rate_factor": 10.0, "optimizer": o, "weight_decay": 0.1} for o in ("sgd", "adam", "adamw")),
    {"head_rate_factor": 0.1, "frozen": 0.5, "schedule": "cosine"},
]


@pytest.mark.parametrize("change", CASES, ids=lambda c: ",".join(f"{k}={v}" for k, v in c.items()))
def test_a_stacked_replica_equals_the_same_replica_trained_alone(digits, change):
    config = dataclasses.replace(SMALL, **change)
    evaluation = last(config, digits, dtype=torch.float64)
    for d in range(2):
        for i in range(2):
            alone = train_alone(config, digits, scheme="bootstrap", n_blocks=2, seed=3, resample=d, init=i)
            # predictions are stored in float32: 6e-8 is half a unit in the last place of 1.0
            np.testing.assert_allclose(evaluation.probabilities_test_DINC[d, i], alone, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        {"family": "mlp", "norm": "batch", "dropout": 0.25},
        {"family": "cnn", "norm": "batch", "dropout": 0.25},
        {"family": "mlp", "norm": "none", "dropout": 0.25, "optimizer": "sgd"},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_replica_does_not_depend_on_its_pack_or_its_position(digits, change, dtype):
    """Replica (1, 1) of a 3 × 3 pack is replica (0, 0) of a 2 × 2 one that starts there.

    In float32 Adam divides the rounding noise in the gradient of a bias before a batch norm, whose true value is 0, by
    its own size: such a network is chaotic at float tolerance, alone or stacked, and is compared in float64 only.
    """
    if dtype == torch.float32 and change["norm"] == "batch":
        change = change | {"optimizer": "sgd"}
    config = dataclasses.replace(SMALL, **change)
    large = last(config, digits, Replication(scheme="bootstrap", n_resamples=3, n_inits=3), dtype=dtype)
    small = last(config, digits, first_resample=1, first_init=1, dtype=dtype)
    atol = 1e-7 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(large.probabilities_test_DINC[1:, 1:], small.probabilities_test_DINC, rtol=0, atol=atol)


def test_training_again_gives_the_same_bits(digits):
    config = dataclasses.replace(SMALL, dropout=0.2)
    first, second = last(config, digits), last(config, digits)
    assert first.probabilities_test_DINC.tobytes() == second.probabilities_test_DINC.tobytes()


def test_replicas_differ_by_resample_and_by_init(digits):
    p = last(SMALL, digits).probabilities_test_DINC
    distances = [np.abs(p[a] - p[b]).max() for a, b in [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 1), (1, 0))]]
    assert min(distances) > 1e-3


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_replica_that_turns_nan_leaves_the_others_bit_equal(norm):
    config = dataclasses.replace(SMALL, norm=norm, dropout=0.2)
    rng = torch.Generator().manual_seed(0)
    images, labels = torch.randn(5, 8, 1, 8, 8, generator=rng), torch.randint(0, 10, (5, 8), generator=rng)

    def trained(poison):
        configs, inits = [config] * 5, [0, 1, 2, 3, 4]
        network = models.build(config, (1, 8, 8), 10)
        pack = Pack.start(network, configs, inits, seed=0, device=CPU, dtype=torch.float32)
        if poison:
            pack.theta_RP[2, 0] = float("nan")
        dropout = Dropout([config.dropout] * 5, inits, seed=0, device=CPU)
        optimizer = Optimizer(configs, pack.theta_RP, n_steps=3)
        dropout.begin(0, 3)
        optimizer.begin(0, 3)
        for k in range(3):
            dropout.moment = Moment(k)
            logits = network.forward(pack.weights, pack.buffers, images, dropout)
            pack.differentiate(logits, losses.cross_entropy_gradient(logits, labels))
            pack.clip(torch.full((5, 1), 0.5))
            optimizer.step(Moment(k))
        return pack

    healthy, poisoned = trained(False), trained(True)
    others = [0, 1, 3, 4]
    assert torch.equal(healthy.theta_RP[others], poisoned.theta_RP[others])
    assert poisoned.finite_R().tolist() == [True, True, False, True, True]


def test_a_diverged_replica_is_masked_and_stays_masked(digits):
    config = dataclasses.replace(
        SMALL, optimizer="sgd", learning_rate=100.0, init_gain=5.0, activation="leaky_relu", epochs=6
    )
    evaluations = list(training.fit(config, digits, TWO_BY_TWO, seed=3, n_evaluations=6))
    final = evaluations[-1]
    assert final.diverged_R.any()
    for before, after in itertools.pairwise(evaluations):
        assert not (before.diverged_R & ~after.diverged_R).any()
    gone = final.diverged_R.reshape(2, 2)
    assert np.isnan(final.probabilities_test_DINC[gone]).all()
    assert np.isnan(final.metrics["train_loss"]).tolist() == final.diverged_R.tolist()


def test_metrics_are_those_of_the_predictions(digits):
    evaluation = last(SMALL, digits)
    p = evaluation.probabilities_test_DINC.reshape(4, -1, 10).astype(float)
    y = digits.test.labels
    right = np.take_along_axis(p, np.broadcast_to(y, (4, len(y)))[..., None], axis=-1)[..., 0]
    one_hot = np.eye(10)[y]
    assert evaluation.metrics["test_loss"] == pytest.approx(-np.log(right).mean(axis=1), rel=1e-5)
    assert evaluation.metrics["test_risk"] == pytest.approx(((p - one_hot) ** 2).sum(axis=-1).mean(axis=1), rel=1e-5)
    assert evaluation.metrics["test_error"] == pytest.approx((p.argmax(axis=-1) != y).mean(axis=1))
    assert set(evaluation.metrics) == {f"{s}_{m}" for s in ("train", "val", "test") for m in ("loss", "risk", "error")}


def test_training_lowers_the_training_loss(digits):
    config = dataclasses.replace(SMALL, epochs=30, width=32)
    evaluations = list(training.fit(config, digits, TWO_BY_TWO, seed=3, n_evaluations=5))
    assert (evaluations[-1].metrics["train_loss"] < 0.3 * evaluations[0].metrics["train_loss"]).all()


def test_evaluation_in_pieces_changes_nothing(digits, monkeypatch):
    whole = last(SMALL, digits)
    monkeypatch.setattr("lab.training.evaluation.EVALUATION_VALUES", 64 * 4 * 7)  # seven images a call
    pieces = last(SMALL, digits)
    np.testing.assert_allclose(whole.probabilities_test_DINC, pieces.probabilities_test_DINC, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("n_epochs", "n_evaluations", "n_found"), [(60, 20, 20), (5, 20, 5), (1, 2, 1), (10_000, 20, 20), (2, 2, 2)]
)
def test_evaluations_include_the_first_and_the_last_epoch(n_epochs, n_evaluations, n_found):
    epochs = training.evaluation_epochs(n_epochs, n_evaluations)
    assert epochs[0] == 1
    assert epochs[-1] == n_epochs
    assert sorted(set(epochs)) == epochs
    assert len(epochs) == n_found


def test_a_single_evaluation_is_that_of_the_end():
    assert training.evaluation_epochs(60, 1) == [60]


def test_evaluations_are_log_spaced():
    epochs = np.array(training.evaluation_epochs(10_000, 20))
    ratios = epochs[8:] / epochs[7:-1]
    assert ratios.max() / ratios.min() < 1.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_the_gpu_gives_what_the_cpu_gives(digits, family):
    config = dataclasses.replace(SMALL, family=family, dropout=0.2)
    cpu = last(config, digits, dtype=torch.float64)
    gpu = last(config, digits, dtype=torch.float64, device="cuda")
    np.testing.assert_allclose(cpu.probabilities_test_DINC, gpu.probabilities_test_DINC, rtol=1e-5, atol=1e-6)
