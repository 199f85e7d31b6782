"""Perceptrons of several widths in one pack, the narrower filled up with zeros, end as each does alone."""

import dataclasses

import numpy as np
import pytest
import torch

from lab import models, training
from lab.data.datasets import load
from lab.fusion import fills_up, form_of, shape_of
from lab.knobs import KNOBS, TrialConfig
from lab.spec import Replication
from lab.training import crew, graphs, padding, strategy
from lab.training.dropout import Dropout
from lab.training.job import Job
from tests.scarce_memory import runs_out

CONFIG = TrialConfig(width=5, depth=2, epochs=6, n_train=30, batch_size=7, learning_rate=0.03)
WIDTHS = (5, 9, 3, 5)
REPLICATION = Replication(scheme="bootstrap", n_resamples=3, n_inits=2)
CPU = torch.device("cpu")

TECHNIQUES = [
    {},
    *({"activation": name} for name in ("tanh", "gelu", "leaky_relu", "elu")),
    *({"depth": depth} for depth in (0, 1, 4)),
    {"residual": "off"},
    {"dropout": 0.4},
    *({"init_scheme": name, "init_gain": 1.5} for name in ("orthogonal", "torch_default", "normal")),
    *({"optimizer": name, "weight_decay": 0.1} for name in ("adam", "adamw")),
    {"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    {"head_rate_factor": 3.0, "new_head": True},
    {"schedule": "cosine"},
    {"clip_norm": 0.05},
    {"patience": 1},
    {"loss": "focal", "focal_gamma": 1.0, "label_smoothing": 0.1, "class_weights": "balanced"},
    {"l1": 0.01},
    {"averaging": "ema", "ema_decay": 0.9},
    {"averaging": "swa", "swa_start": 0.3},
    {"adversarial": "pgd", "epsilon": 0.1},
    {"attack_epsilon": 0.1, "attack_strengths": 2},
    {"corruption": "blur", "severity": 2},
    {"precision": "bf16"},
]
# what a network does not know of: its images and labels
OF_THE_DATA = {
    "n_train", "resize", "normalize", "flip", "shift", "rotation", "zoom", "brightness", "contrast", "pixel_noise",
    "cutout", "mixup", "imbalance_ratio", "sampling", "label_noise", "noisy_targets",
}  # fmt: skip
OTHERS = [  # networks that are not filled up, and may be none that can be built
    {"family": "cnn"}, {"family": "resnet"}, {"family": "pretrained"}, {"family": "mine"}, {"activation": "sigmoid"},
    {"norm": "layer"}, {"norm": "group"}, {"norm": "batch"}, {"residual": "on"}, {"weights": "a_folder"},
    {"frozen": 0.5},
]  # fmt: skip
OF_OTHER_FAMILIES = {"pooling", "convolutions", "backbone", "spatial_dropout"}


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=20)


def jobs_of(widths=WIDTHS, **knobs):
    return [Job(dataclasses.replace(CONFIG, width=w, **knobs), REPLICATION, keep_weights=True) for w in widths]


def train(jobs, digits, *, dtype=torch.float64, **options):
    return list(training.fit_many(jobs, digits, seed=1, n_evaluations=4, dtype=dtype, **options))


def trained_alone(job, digits, **options):
    return [evaluation for (evaluation,) in train([job], digits, **options)]


def same(found, expected):
    """Both evaluations agree in all that leaves a pack; predictions and weights are kept in float32."""
    np.testing.assert_array_equal(found.diverged_R, expected.diverged_R)
    for group, tolerance in (
        ("metrics", 1e-12),
        ("signals", 1e-11),
        ("probabilities_shifted", 1e-6),
        ("weights", 1e-6),
    ):
        theirs, ours = getattr(expected, group), getattr(found, group)
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            np.testing.assert_allclose(ours[name], values, rtol=tolerance, atol=1e-13, err_msg=name)
    for name in ("log_probabilities_test_DINC", "probabilities_val_DINC"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("knobs", TECHNIQUES, ids=lambda knobs: ",".join(f"{k}={v}" for k, v in knobs.items()))
def test_a_job_ends_as_alone_whatever_the_widths_of_those_that_share_its_pack(digits, knobs):
    jobs = jobs_of(**knobs)
    together = train(jobs, digits)
    for j, job in enumerate(jobs):
        for found, expected in zip(together, trained_alone(job, digits), strict=True):
            same(found[j], expected)


def test_every_knob_is_tried_here_or_keeps_widths_apart_or_is_of_the_data():
    tried = {name for knobs in [*TECHNIQUES, *OTHERS] for name in knobs}
    of_all = {"width", "epochs", "batch_size", "learning_rate"}
    assert tried | of_all | OF_THE_DATA | OF_OTHER_FAMILIES == set(KNOBS)


@pytest.mark.parametrize("knobs", OTHERS, ids=str)
def test_networks_that_would_be_others_once_filled_up_have_the_form_of_their_width_alone(knobs):
    config = dataclasses.replace(CONFIG, **knobs)
    wider = dataclasses.replace(config, width=9)
    assert not fills_up(config)
    assert form_of(config) != form_of(wider)
    assert form_of(config) == shape_of(config)


def test_perceptrons_of_one_form_differ_in_width_and_in_what_may_differ_in_one_shape():
    wider = dataclasses.replace(CONFIG, width=9, learning_rate=0.1, dropout=0.2)
    assert form_of(CONFIG) == form_of(wider)
    assert shape_of(CONFIG) != shape_of(wider)
    assert form_of(CONFIG) != form_of(dataclasses.replace(wider, depth=3))


def test_jobs_may_differ_in_width_and_in_every_number_at_once(digits):
    changes = [{"width": 9, "dropout": 0.2}, {"learning_rate": 0.003, "l1": 0.01}, {"width": 2, "patience": 1}]
    jobs = [Job(dataclasses.replace(CONFIG, **change), REPLICATION) for change in changes]
    together = train(jobs, digits)
    for j, job in enumerate(jobs):
        for found, expected in zip(together, trained_alone(job, digits), strict=True):
            same(found[j], expected)


# -- what is filled up


def test_what_is_filled_up_stays_exactly_0_in_training(digits, monkeypatch):
    started, packs = crew.Pack.start, []

    def noted(*args, **options):
        packs.append(started(*args, **options))
        return packs[-1]

    monkeypatch.setattr(crew.Pack, "start", noted)
    train(jobs_of((3, 5), dropout=0.2, weight_decay=0.1), digits)
    (pack,) = packs
    narrow = models.build(dataclasses.replace(CONFIG, width=3), digits.image_shape, 10)
    own = torch.zeros(pack.theta_RP.shape[1], dtype=torch.bool)
    own[padding.columns(narrow, pack.network)] = True
    n = REPLICATION.n_replicas
    assert own.sum() == narrow.n_parameters
    assert not pack.theta_RP[:n, ~own].any()
    assert (pack.theta_RP[:n, own] != 0).any(dim=0).all()


def test_a_unit_has_the_mask_that_it_has_in_its_own_width():
    rates, inits, widths = [0.5, 0.5, 0.2, 0.5], [3, 3, 1, 3], [7, 4, 3, 7]
    x = torch.ones(4, 5, 7)
    together = Dropout(rates, inits, seed=0, device=CPU, filled_R=[7 - width for width in widths])
    for r, (rate, init, width) in enumerate(zip(rates, inits, widths, strict=True)):
        alone = Dropout([rate], [init], seed=0, device=CPU)(2, x[r : r + 1, :, :width])
        assert torch.equal(together(2, x)[r, :, :width], alone[0])


# -- checkpoints and memory


@pytest.mark.parametrize("knobs", [{}, {"dropout": 0.2, "averaging": "ema"}, {"patience": 2, "optimizer": "sgd"}])
def test_a_trial_trained_among_wider_ones_can_be_taken_up_again_alone(digits, knobs):
    jobs, states = jobs_of(**knobs), []

    def note(state):
        states.append({name: value.clone() for name, value in state(2).items()})

    whole = train(jobs, digits, on_epoch=note)
    rest = [evaluation for (evaluation,) in train([jobs[2]], digits, resume=states[3])]
    assert 0 < len(rest) < len(whole)
    for found, expected in zip(rest, whole[-len(rest) :], strict=True):
        same(found, expected[2])


def test_its_checkpoint_has_the_tensors_of_one_trained_alone(digits):
    jobs, shapes = jobs_of(patience=3, averaging="swa"), []
    for given, j in ((jobs, 2), ([jobs[2]], 0)):
        train(given, digits, on_epoch=lambda state, j=j: shapes.append({k: v.shape for k, v in state(j).items()}))
    assert shapes[CONFIG.epochs - 1] == shapes[-1]


@pytest.mark.parametrize("pack_size", [1, 5, 16])
def test_how_packs_are_cut_does_not_matter(digits, pack_size):
    jobs = jobs_of(dropout=0.2)
    for found, expected in zip(train(jobs, digits, pack_size=pack_size), train(jobs, digits), strict=True):
        for ours, theirs in zip(found, expected, strict=True):
            same(ours, theirs)


def test_memory_that_runs_out_costs_nothing(digits, monkeypatch):
    jobs, events = jobs_of(patience=1, averaging="ema", dropout=0.2), []
    expected = train(jobs, digits)
    runs_out(monkeypatch, steps=(0, 9, 21))
    for found, wanted in zip(train(jobs, digits, on_event=events.append), expected, strict=True):
        for first, second in zip(found, wanted, strict=True):
            same(first, second)
    assert len(events) == 3


def test_a_replica_that_turns_nan_leaves_its_mates_of_other_widths_alone(digits):
    wild = dataclasses.replace(CONFIG, optimizer="sgd", learning_rate=50.0, activation="leaky_relu", init_gain=5.0)
    calm = dataclasses.replace(wild, width=4, learning_rate=0.01, init_gain=1.0)
    *_, (gone, kept) = train([Job(wild, REPLICATION), Job(calm, REPLICATION)], digits, dtype=torch.float32)
    assert gone.diverged_R.any()
    assert not kept.diverged_R.any()
    *_, alone = trained_alone(Job(calm, REPLICATION), digits, dtype=torch.float32)
    np.testing.assert_allclose(kept.metrics["test_risk"], alone.metrics["test_risk"], rtol=1e-4)


def test_steps_as_graphs_are_the_same_steps(digits, monkeypatch):
    jobs = jobs_of(dropout=0.3)
    expected = train(jobs, digits)

    class Captured(crew.Crew):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.graphs = graphs.Graphs(CPU, lambda body: body)  # replaying is running again

    monkeypatch.setattr(crew, "Crew", Captured)
    for found, wanted in zip(train(jobs, digits), expected, strict=True):
        for first, second in zip(found, wanted, strict=True):
            same(first, second)


# -- where it pays


def packs(widths, *, n_replicas=32, image_shape=(1, 8, 8), **knobs):
    configs = [dataclasses.replace(CONFIG, width=width, batch_size=32, **knobs) for width in widths]
    found = strategy.packs(padding.built(configs, image_shape, 10), [n_replicas] * len(widths))
    assert sorted(k for pack in found for k in pack) == list(range(len(widths)))
    return [[widths[k] for k in pack] for pack in found]


def test_small_networks_share_a_pack_and_large_ones_have_one_for_each_width():
    assert packs([4, 30, 8, 16, 30]) == [[30, 30, 16, 8, 4]]
    assert packs([512, 256, 512]) == [[512, 512], [256]]
    assert packs([8, 1024, 1020, 12]) == [[1024, 1020], [12, 8]]


def test_what_is_filled_up_counts_with_replicas_images_and_batch():
    assert packs([48, 64]) == [[64, 48]]
    assert packs([48, 64], n_replicas=512) == [[64], [48]]
    assert packs([48, 64], image_shape=(3, 64, 64)) == [[64], [48]]


def test_a_step_keeps_a_gpu_busy_by_what_it_moves_and_multiplies():
    (network,) = padding.built([dataclasses.replace(CONFIG, depth=1, batch_size=32)], (1, 8, 8), 10)
    n_weights, n_units = 64 * 5 + 5 + 5 * 10 + 10, 5 + 10
    expected = 40 * (n_weights + 32 * n_units) / 1e12 + 6 * 32 * n_weights / 1e13
    assert strategy.busy_seconds(network) == pytest.approx(expected)
    assert packs([5, 6], n_replicas=10**5) == [[6], [5]]
