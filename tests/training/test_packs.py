"""Replicas of several trials in one pack end as in a pack of their own, whoever their mates are."""

import dataclasses

import numpy as np
import pytest
import torch

from lab import training
from lab.data.datasets import load
from lab.fusion import OWN_KNOBS, shape_of
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import crew, graphs, loop
from lab.training.job import Job
from tests.scarce_memory import runs_out

CONFIG = TrialConfig(width=12, depth=2, epochs=6, n_train=30, batch_size=8, learning_rate=0.03)
REPLICATION = Replication(scheme="bootstrap", n_resamples=3, n_inits=2)
OTHERS = [
    {"learning_rate": 0.003, "schedule": "cosine"},
    {"weight_decay": 0.1, "init_scheme": "orthogonal", "init_gain": 2.0},
    {"dropout": 0.4, "clip_norm": 0.1, "l1": 0.01},
    {"patience": 1, "momentum": 0.0, "label_noise": 0.3},
]


# the same of techniques that all replicas of a pack use, each in its own strength
PAIRS = [
    ({"label_smoothing": 0.1}, {"label_smoothing": 0.3}),
    ({"loss": "focal", "focal_gamma": 1.0}, {"loss": "focal", "focal_gamma": 3.0}),
    ({"averaging": "ema", "ema_decay": 0.9}, {"averaging": "ema", "ema_decay": 0.5}),
    ({"averaging": "swa", "swa_start": 0.3}, {"averaging": "swa", "swa_start": 0.8}),
    ({"adversarial": "fgsm", "epsilon": 0.1}, {"adversarial": "fgsm", "epsilon": 0.02}),
    ({"attack_epsilon": 0.1}, {"attack_epsilon": 0.02}),
]


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=20)


def jobs_of(config):
    return [Job(config, REPLICATION), *(Job(dataclasses.replace(config, **change), REPLICATION) for change in OTHERS)]


def train(jobs, digits, **options):
    return list(training.fit_many(jobs, digits, seed=1, n_evaluations=4, **options))


def same_bits(first, second):
    assert first.epoch == second.epoch
    assert first.diverged_R.tolist() == second.diverged_R.tolist()
    assert first.probabilities_test_DINC.tobytes() == second.probabilities_test_DINC.tobytes()
    assert first.probabilities_val_DINC.tobytes() == second.probabilities_val_DINC.tobytes()
    assert {k: v.tobytes() for k, v in first.metrics.items()} == {k: v.tobytes() for k, v in second.metrics.items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("change", [{}, {"norm": "batch"}, {"family": "cnn"}], ids=lambda c: ",".join(c) or "plain")
def test_a_job_ends_as_alone_whatever_shares_its_pack(digits, optimizer, change):
    """In float64; each of the knobs in which replicas of a pack may differ does differ here.

    Before a batch norm the gradient of a bias is 0 but for rounding, which L1, by its sign, and weight decay with Adam,
    by its size, make grow: there the biases, and the running means that follow them, are chaotic, alone or stacked.
    """
    jobs = jobs_of(dataclasses.replace(CONFIG, optimizer=optimizer, **change))
    if "norm" in change:
        jobs = [
            dataclasses.replace(job, config=dataclasses.replace(job.config, l1=0.0, weight_decay=0.0)) for job in jobs
        ]
    *_, together = train(jobs, digits, dtype=torch.float64)
    for job, evaluation in zip(jobs, together, strict=True):
        ((*_, alone),) = zip(*train([job], digits, dtype=torch.float64), strict=True)
        np.testing.assert_allclose(
            evaluation.probabilities_test_DINC, alone.probabilities_test_DINC, rtol=2e-6, atol=1e-7
        )
        assert evaluation.metrics["val_risk"] == pytest.approx(alone.metrics["val_risk"], rel=1e-9)


def test_every_knob_in_which_replicas_may_differ_is_tried_here():
    changes = [*OTHERS, *(change for pair in PAIRS for change in pair)]
    elsewhere = {"nesterov", "noisy_targets", "spatial_dropout"}  # see test_optimizers; of no effect; see below
    assert {name for change in changes for name in change} - {
        "loss",
        "averaging",
        "adversarial",
    } | elsewhere == OWN_KNOBS


def test_a_perceptron_in_float32_has_the_same_bits_in_any_company(digits):
    jobs = jobs_of(CONFIG)
    whole = train(jobs, digits)
    for order in ([4, 0, 3, 1, 2], [2, 0], [1]):
        for found, expected in zip(train([jobs[j] for j in order], digits), whole, strict=True):
            for j, evaluation in zip(order, found, strict=True):
                same_bits(evaluation, expected[j])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: ",".join(pair[0]))
def test_a_technique_of_two_strengths_in_one_pack_gives_each_job_the_bits_that_it_has_alone(digits, pair):
    first, second = (Job(dataclasses.replace(CONFIG, **change), REPLICATION) for change in pair)
    for found, (alone,) in zip(train([first, second], digits), train([second], digits), strict=True):
        same_bits(found[1], alone)
        for name, values in alone.probabilities_shifted.items():
            assert found[1].probabilities_shifted[name].tobytes() == values.tobytes()
        assert {k: v.tolist() for k, v in found[1].signals.items()} == {k: v.tolist() for k, v in alone.signals.items()}


@pytest.mark.parametrize("family", ["cnn", "resnet"])
def test_each_job_of_a_pack_drops_channels_at_its_own_rate(digits, family):
    plain = dataclasses.replace(CONFIG, family=family, depth=1, width=4, epochs=2, optimizer="sgd")
    jobs = [Job(dataclasses.replace(plain, spatial_dropout=rate), REPLICATION) for rate in (0.0, 0.5, 0.2)]
    *_, together = train(jobs, digits, dtype=torch.float64)
    for job, evaluation in zip(jobs, together, strict=True):
        ((*_, alone),) = zip(*train([job], digits, dtype=torch.float64), strict=True)
        np.testing.assert_allclose(evaluation.probabilities_test_DINC, alone.probabilities_test_DINC, rtol=2e-6)
    assert not np.allclose(together[0].probabilities_test_DINC, together[1].probabilities_test_DINC, atol=1e-3)


@pytest.mark.parametrize("pack_size", [1, 7, 16])
def test_how_packs_are_cut_changes_no_bit_of_a_perceptron(digits, pack_size):
    jobs = jobs_of(CONFIG)
    for found, expected in zip(train(jobs, digits, pack_size=pack_size), train(jobs, digits), strict=True):
        for first, second in zip(found, expected, strict=True):
            same_bits(first, second)


def test_a_replica_that_turns_nan_leaves_its_mates_of_other_trials_bit_equal(digits):
    wild = dataclasses.replace(CONFIG, optimizer="sgd", learning_rate=50.0, activation="leaky_relu", init_gain=5.0)
    calm = dataclasses.replace(wild, learning_rate=0.01, init_gain=1.0)
    for mate in (calm, wild):
        *_, (gone, kept) = train([Job(mate, REPLICATION), Job(calm, REPLICATION)], digits)
        assert gone.diverged_R.any() == (mate is wild)
        *_, (alone,) = train([Job(calm, REPLICATION)], digits)
        same_bits(kept, alone)


def test_jobs_of_different_shapes_are_an_error(digits):
    normed = dataclasses.replace(CONFIG, norm="layer")
    for config, change in ((CONFIG, {"depth": 3}), (normed, {"width": 13})):
        other = dataclasses.replace(config, **change)
        assert shape_of(other) != shape_of(config)
        with pytest.raises(ValueError, match="2 jobs have 2 shapes"):
            train([Job(config, REPLICATION), Job(other, REPLICATION)], digits)


def test_jobs_may_differ_in_their_resamples_and_seeds(digits):
    later = Job(CONFIG, REPLICATION, first_resample=1, first_init=1)
    *_, (first, second) = train([Job(CONFIG, REPLICATION), later], digits)
    np.testing.assert_array_equal(first.probabilities_test_DINC[1:, 1:], second.probabilities_test_DINC[:2, :1])


def test_a_trial_trained_among_others_can_be_taken_up_again_alone(digits):
    jobs = jobs_of(dataclasses.replace(CONFIG, dropout=0.2))
    states = []

    def note(state):
        states.append({name: value.clone() for name, value in state(4).items()})

    whole = train(jobs, digits, on_epoch=note)
    rest = train(jobs[4:], digits, resume=states[3])
    assert 0 < len(rest) < len(whole)
    for (found,), expected in zip(rest, whole[-len(rest) :], strict=True):
        same_bits(found, expected[4])


# -- steps as graphs


@pytest.mark.parametrize("n_train", [30, 32], ids=["a shorter last batch", "equal batches"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_steps_that_read_their_tables_at_a_counter_are_the_same_steps(digits, monkeypatch, n_train, optimizer):
    config = dataclasses.replace(CONFIG, n_train=n_train, optimizer=optimizer, patience=2, norm="batch")
    jobs = jobs_of(dataclasses.replace(config, averaging="ema", adversarial="fgsm", label_smoothing=0.1, mixup=0.5))
    expected = train(jobs, digits)
    n_captured = []

    def capture(body):
        n_captured.append(body)
        return body  # replaying is running again

    class Counted(crew.Crew):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.graphs = graphs.Graphs(torch.device("cpu"), capture)

        def keep(self, stays_R):
            super().keep(stays_R)
            self.graphs = graphs.Graphs(torch.device("cpu"), capture)

    monkeypatch.setattr(crew, "Crew", Counted)
    for found, wanted in zip(train(jobs, digits), expected, strict=True):
        for first, second in zip(found, wanted, strict=True):
            same_bits(first, second)
    assert n_captured


# -- memory


class Scarce:
    """An allocator that has room for so many replicas at once."""

    def __init__(self, room, step):
        self.room, self.step, self.tried = room, step, []

    def __call__(self, crew, sets, moment):
        self.tried.append(len(crew))
        if len(crew) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.step(crew, sets, moment)


@pytest.mark.parametrize("room", [5, 1])
def test_a_pack_that_does_not_fit_is_halved_until_it_does_with_the_same_results(digits, monkeypatch, room):
    jobs, events = jobs_of(CONFIG), []
    expected = train(jobs, digits)
    scarce = Scarce(room, loop._differentiate)
    monkeypatch.setattr(loop, "_differentiate", scarce)
    for found, wanted in zip(train(jobs, digits, on_event=events.append), expected, strict=True):
        for first, second in zip(found, wanted, strict=True):
            same_bits(first, second)
    assert events[0] == "30 replicas did not fit in the memory of cpu together: their pack was halved"
    assert len(events) == sum(n > room for n in scarce.tried)


def test_memory_that_runs_out_later_costs_no_evaluation_and_no_bit(digits, monkeypatch):
    config = dataclasses.replace(CONFIG, patience=1, averaging="ema", dropout=0.2)
    expected = train([Job(config, REPLICATION)], digits)
    runs_out(monkeypatch, steps=(0, 9, 21))
    events = []
    for found, wanted in zip(train([Job(config, REPLICATION)], digits, on_event=events.append), expected, strict=True):
        same_bits(found[0], wanted[0])
    assert len(events) == 3


def test_one_replica_that_does_not_fit_is_an_error_with_a_way_out(digits, monkeypatch):
    monkeypatch.setattr(loop, "_differentiate", Scarce(0, None))
    with pytest.raises(torch.OutOfMemoryError, match="one replica does not fit in the memory of cpu: lower width"):
        train([Job(CONFIG, REPLICATION)], digits)
