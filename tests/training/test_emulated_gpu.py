"""What runs on a GPU, on an emulated one (tests/emulated_gpu.py): it ends as on the CPU, and the host does not wait."""

import contextlib
import dataclasses
import json
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import padding, throughput
from lab import models, spool, training, trial
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.models import ways
from lab.spec import Replication
from lab.storage import Home
from lab.training import batches, counters, evaluation, loop, optimizers, sets
from lab.training.job import Job
from lab.trial import evaluate_together
from lab.workers import InlineEngine
from tests.emulated_gpu import emulated_gpu
from tests.test_bundles import task

# a rate of few bits: on a GPU rates are float32
CONFIG = TrialConfig(width=6, depth=2, epochs=12, n_train=30, batch_size=8, learning_rate=2.0**-5)
PLAN = Replication(scheme="bootstrap", n_resamples=2, n_inits=2)
OTHERS = [
    {"learning_rate": 2.0**-8},
    {"init_scheme": "orthogonal", "init_gain": 2.0},
    {"dropout": 0.4, "clip_norm": 0.1},
    {"patience": 1, "momentum": 0.0, "label_noise": 0.3},
]
DECAYS = [{"weight_decay": 0.125, "l1": 0.01}]  # not with batch norm, see test_packs.py
KNOBS = [
    {},
    {"optimizer": "sgd", "nesterov": True},
    {"optimizer": "adamw", "schedule": "one_cycle"},
    {"n_train": 32},  # all batches are of one size
    {"n_train": 6},  # there is but one, a short one
    {"norm": "layer", "activation": "gelu", "residual": "on"},
    {"family": "cnn", "norm": "batch", "optimizer": "sgd"},  # Adam makes steps of the rounding of a bias before a norm
    {"family": "cnn", "pooling": "average", "spatial_dropout": 0.3},
    {"family": "cnn", "frozen": 0.5, "depth": 2},
    {"family": "cnn", "frozen": 1.0, "head_rate_factor": 4.0},
    {"family": "resnet", "norm": "group", "depth": 1, "width": 3, "epochs": 5, "optimizer": "sgd"},
    {"loss": "focal", "class_weights": "balanced"},
    {"loss": "brier", "label_smoothing": 0.1},
    {"averaging": "ema", "norm": "batch"},
    {"averaging": "swa"},
    {"adversarial": "pgd", "epsilon": 0.1},
    {"adversarial": "fgsm", "attack_epsilon": 0.05, "attack_strengths": 2},
    {"mixup": 0.5},
    {"flip": 0.5, "shift": 0.1, "cutout": 0.3, "brightness": 0.2, "contrast": 0.2},
    {"rotation": 10.0, "zoom": 0.2, "pixel_noise": 0.1},
    {"corruption": "gaussian_noise", "normalize": "none"},
    {"noisy_targets": True, "label_noise": 0.2, "imbalance_ratio": 3.0},
]


def stacked(config, n_classes):
    """A module of the user's. No batch norm: torch.func makes constants for it in C++, which are not emulated."""
    return nn.Sequential(
        nn.Conv2d(1, config.width, 3, padding=1), nn.Tanh(), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(64 * config.width, n_classes),
    )  # fmt: skip


class Asking(nn.Identity):
    """A layer that keeps a module from being stacked: Python asks for the value of a tensor."""

    def forward(self, x):
        assert x.sum() > -1e9
        return x


def one_by_one(config, n_classes):
    return nn.Sequential(Asking(), stacked(config, n_classes))


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=20)


def jobs_of(config):
    others = OTHERS if config.norm == "batch" else OTHERS + DECAYS
    return [Job(config, PLAN), *(Job(dataclasses.replace(config, **other), PLAN) for other in others)]


def train(jobs, digits, **options):
    return list(training.fit_many(jobs, digits, seed=1, n_evaluations=3, dtype=torch.float64, **options))


def same(found, expected):
    for of_jobs, wanted in zip(found, expected, strict=True):
        for first, second in zip(of_jobs, wanted, strict=True):
            assert first.epoch == second.epoch
            assert first.diverged_R.tolist() == second.diverged_R.tolist()
            for name in ("probabilities_test_DINC", "probabilities_val_DINC"):
                np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-5, atol=1e-7)
            assert first.metrics.keys() == second.metrics.keys()
            for name, values in first.metrics.items():
                np.testing.assert_allclose(values, second.metrics[name], rtol=1e-5, atol=1e-7, err_msg=name)


@contextlib.contextmanager
def no_waiting(monkeypatch, gpu):
    """Have the host's waiting refused in every step but those of a first epoch, which lays tables out."""

    def watched(part):
        def step(crew, *args):
            gpu.is_busy = crew.epoch > 0
            try:
                part(crew, *args)
            finally:
                gpu.is_busy = False

        return step

    with monkeypatch.context() as patch:
        for name in ("_differentiate", "_update"):
            patch.setattr(loop, name, watched(getattr(loop, name)))
        yield


@pytest.mark.parametrize("knobs", KNOBS, ids=lambda knobs: ",".join(map(str, knobs)) or "plain")
def test_a_training_ends_as_on_the_cpu_and_no_step_has_the_host_wait(digits, monkeypatch, knobs):
    jobs = jobs_of(dataclasses.replace(CONFIG, **knobs))
    expected = train(jobs, digits)
    with emulated_gpu(monkeypatch) as gpu, no_waiting(monkeypatch, gpu):
        same(train(jobs, digits, device="cuda"), expected)
    assert gpu.n_replays > 0


@pytest.mark.parametrize("way", ways.WAYS)
@pytest.mark.parametrize("family", ["cnn", "resnet"])
def test_whichever_way_of_convolution_is_fastest_it_ends_as_on_the_cpu(digits, monkeypatch, family, way):
    jobs, timed = jobs_of(dataclasses.replace(CONFIG, family=family, width=3, depth=1, epochs=5, optimizer="sgd")), []
    expected = train(jobs, digits)

    def seconds(measured, x, weight, stride):
        timed.append((x.shape[2:], weight.shape[1:], stride))
        return 1.0 if measured is way else 2.0

    monkeypatch.setattr(ways, "_seconds", seconds)
    before = dict(ways._chosen)
    with emulated_gpu(monkeypatch) as gpu:
        same(train(jobs, digits, device="cuda"), expected)
        assert set(ways._chosen.values()) == {way}
    assert ways._chosen == before
    assert gpu.n_replays > 0
    assert all(timed.count(shape) == len(ways.WAYS) for shape in timed)  # each shape once


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_products_are_computed_in_bfloat16_there_too(digits, monkeypatch, family):
    config = dataclasses.replace(CONFIG, family=family, depth=1, precision="bf16", epochs=5)
    # as the CPU does in bfloat16: another way rounds otherwise
    monkeypatch.setattr(ways, "_seconds", lambda way, *_: 1.0 if way is ways.by_products else 2.0)

    def risk(**options):
        *_, last = training.fit(config, digits, PLAN, seed=1, n_evaluations=3, **options)
        return last.metrics["test_risk"]

    expected = risk()
    with emulated_gpu(monkeypatch) as gpu:
        np.testing.assert_allclose(risk(device="cuda"), expected, atol=1e-3)
    assert gpu.n_replays > 0


def test_memory_that_runs_out_in_a_step_or_in_a_capture_costs_no_result(digits, monkeypatch):
    jobs, events = jobs_of(dataclasses.replace(CONFIG, dropout=0.25)), []
    expected = train(jobs, digits)
    with emulated_gpu(monkeypatch) as gpu:
        # theta of 24 replicas fits; in a capture there is less room
        n_values = 12 * -(-training.count_parameters(CONFIG, (1, 8, 8), 10) // 16) * 16
        capturing = gpu.capturing

        @contextlib.contextmanager
        def narrow(*args, **options):
            gpu.most = n_values
            with capturing(*args, **options):
                yield
            gpu.most = 2**40

        monkeypatch.setattr(torch.cuda, "graph", narrow)
        same(train(jobs, digits, device="cuda", on_event=events.append), expected)
    assert events
    assert all("did not fit in the memory of cuda" in event for event in events)


def test_images_go_to_the_device_once_an_evaluation_in_however_many_pieces_they_are_looked_at(digits, monkeypatch):
    jobs, sent = [Job(dataclasses.replace(CONFIG, corruption="contrast", attack_epsilon=0.1), PLAN)], []
    expected = train(jobs, digits)
    for values in (evaluation.GPU_EVALUATION_VALUES, 64 * 7):  # seven images of one replica
        monkeypatch.setattr(evaluation, "GPU_EVALUATION_VALUES", values)
        with emulated_gpu(monkeypatch) as gpu:
            same(train(jobs, digits, device="cuda"), expected)
        sent.append(gpu.n_waits["copy from cpu to cuda"])
    assert sent[0] == sent[1]


def test_one_pool_of_images_at_a_time_is_on_the_device(digits, monkeypatch):
    """Room for more could not be made by halving the pack."""
    there, most, pixels = [], [], sets.TrainingSets.pixels

    def noted(*args):
        found = pixels(*args)
        there.append(weakref.ref(found))
        most.append(sum(pool() is not None for pool in there))
        return found

    monkeypatch.setattr(sets.TrainingSets, "pixels", noted)
    config = dataclasses.replace(CONFIG, corruption="contrast", severity=0, attack_epsilon=0.1, attack_strengths=2)
    with emulated_gpu(monkeypatch):
        train([Job(config, PLAN)], digits, device="cuda")
    assert len(most) > 8
    assert max(most) == 1


def test_a_trial_goes_on_from_a_state_written_down(digits, monkeypatch):
    jobs, states = jobs_of(dataclasses.replace(CONFIG, dropout=0.25, averaging="ema"))[-1:], []
    expected = train(jobs, digits)

    def note(state):
        states.append({name: value.cpu().clone() for name, value in state().items()})

    with emulated_gpu(monkeypatch):
        same(train(jobs, digits, device="cuda", on_epoch=note), expected)
        rest = train(jobs, digits, device="cuda", resume=states[4])
    same(rest, expected[-len(rest) :])
    assert 0 < len(rest) < len(expected)


@pytest.mark.parametrize("family", [stacked, one_by_one])
def test_a_module_of_the_users_own_is_trained_there_too(digits, monkeypatch, family):
    models.register("net", family)
    jobs = [Job(dataclasses.replace(CONFIG, family="net", epochs=3), PLAN)]
    expected = train(jobs, digits)
    with emulated_gpu(monkeypatch):
        same(train(jobs, digits, device="cuda"), expected)


def test_the_outcomes_of_trials_trained_together_are_those_of_the_cpu(monkeypatch, tmp_path):
    def outcomes(device):
        tasks = [task(k, device=device, learning_rate=2.0**-k, dropout=0.25, epochs=8) for k in (4, 6)]
        return [spool.read_outcome(folder) for folder in evaluate_together(tasks, Home(tmp_path / device))]

    expected = outcomes("cpu")
    # alone, after an error in a bundle, they would be as good: it must not be that
    monkeypatch.setattr("lab.trial.evaluate", None)
    with emulated_gpu(monkeypatch) as gpu:
        found = outcomes("cuda")
    assert gpu.n_replays > 0
    for first, second in zip(found, expected, strict=True):
        assert first.status == second.status == "finished"
        assert first.contents.keys() == second.contents.keys()
        one, other = (json.loads(o.contents["decomposition.json"])["final"] for o in (first, second))
        for name in ("risk", "bias_sq", "variance_resample", "variance_hi"):
            assert one[name] == pytest.approx(other[name], abs=1e-3)


@pytest.mark.parametrize("knobs", [{"optimizer": "sgd"}, {"averaging": "ema"}, {"n_train": 32}], ids=str)
def test_perceptrons_of_several_widths_share_a_pack_there(digits, monkeypatch, knobs):
    config = dataclasses.replace(CONFIG, **knobs)
    changes = [
        {"width": 9, "dropout": 0.25},
        {"width": 4, "dropout": 0.5, "clip_norm": 0.1},
        {"width": 6, "patience": 1},
    ]
    jobs = [Job(dataclasses.replace(config, **change), PLAN) for change in changes]
    expected = [[evaluations[0] for evaluations in train([job], digits)] for job in jobs]
    with emulated_gpu(monkeypatch) as gpu, no_waiting(monkeypatch, gpu):
        same(train(jobs, digits, device="cuda"), list(zip(*expected, strict=True)))
    assert gpu.n_replays > 0


def test_a_study_of_widths_is_trained_there_in_packs_of_several(monkeypatch, tmp_path):
    sizes, together = [], trial._train_together
    monkeypatch.setattr(
        trial, "_train_together", lambda tasks, *args: sizes.append(len(tasks)) or together(tasks, *args)
    )

    def outcomes(device):
        engine = InlineEngine(Home(tmp_path / device), device=device)
        for k, width in enumerate((8, 5, 8, 12)):
            engine.submit(task(k, device=device, width=width, learning_rate=2.0**-5, dropout=0.25))
        return [spool.read_outcome(engine.next_done(1.0)[1]) for _ in range(4)]

    expected = outcomes("cpu")
    assert not sizes
    with emulated_gpu(monkeypatch):
        found = outcomes("cuda")
    assert sizes == [4]
    for first, second in zip(found, expected, strict=True):
        assert first.status == second.status == "finished"
        request, other = (json.loads(o.contents["config.json"]) for o in (first, second))
        assert request["device"] == "cuda"
        assert request | {"device": "cpu"} == other
        one, other = (json.loads(o.contents["decomposition.json"])["final"] for o in (first, second))
        for name in ("risk", "bias_sq", "variance_resample", "variance_hi"):
            assert one[name] == pytest.approx(other[name], abs=1e-3)


@pytest.mark.slow
def test_the_benchmark_of_throughput_runs_there(monkeypatch, tmp_path):
    with emulated_gpu(monkeypatch):
        assert throughput.main(["--device", "cuda", "--quick"], tmp_path) == 0
    content = json.loads((tmp_path / "throughput_cuda.json").read_text())
    assert content["machine"]["gpu"] == "emulated"


@pytest.mark.slow
def test_the_benchmark_of_padding_runs_there(monkeypatch, tmp_path):
    with emulated_gpu(monkeypatch):
        assert padding.main(["--device", "cuda", "--quick"], tmp_path) == 0
    rows = json.loads((tmp_path / "padding_cuda.json").read_text())["tables"]["Padding"]
    assert [(row["widths"], row["dropout"], row["rule"]) for row in rows] == [
        ("16 and 4", 0.0, "one pack"), ("16 and 4", 0.25, "one pack"),
    ]  # fmt: skip
    assert all(row["ratio"] == row["one pack"] / row["two packs"] > 0 for row in rows)


def test_epochs_are_timed_there(digits, monkeypatch):
    with emulated_gpu(monkeypatch) as gpu:
        seconds = training.epoch_seconds(((CONFIG, digits), (CONFIG, digits)), PLAN, seed=0, n_pairs=2, device="cuda")
    assert seconds.shape == (2, 2)
    assert gpu.n_replays > 0


def test_packs_are_as_large_as_the_free_memory_says(digits, monkeypatch):
    sizes, own = [], loop._one_step

    def noted(crew, sets, moment):
        sizes.append(len(crew))
        own(crew, sets, moment)

    monkeypatch.setattr(loop, "_one_step", noted)
    jobs = jobs_of(CONFIG)
    expected = train(jobs, digits)
    sizes.clear()
    with emulated_gpu(monkeypatch, free=200_000):
        same(train(jobs, digits, device="cuda"), expected)
    assert 1 < max(sizes) < 24


# -- what a real device would not do either


def replayed_alone(digits, monkeypatch):
    with emulated_gpu(monkeypatch) as gpu, no_waiting(monkeypatch, gpu):
        return train([Job(dataclasses.replace(CONFIG, dropout=0.25, schedule="cosine"), PLAN)], digits, device="cuda")


def test_a_graph_that_reads_numbers_of_the_host_or_memory_that_was_left_is_found_out(digits, monkeypatch):
    job = Job(dataclasses.replace(CONFIG, dropout=0.25, schedule="cosine"), PLAN)
    expected = train([job], digits)
    same(replayed_alone(digits, monkeypatch), expected)
    mutants = {
        (optimizers._Block, "rate"): lambda block, moment: block.rates[moment.k],
        (batches, "stored"): lambda old, new, device: new.to(device),
        (counters, "stored"): lambda old, new, device: new.to(device),
    }
    for (where, name), mutant in mutants.items():
        with monkeypatch.context() as patch:
            patch.setattr(where, name, mutant)
            with pytest.raises(AssertionError, match="Not equal to tolerance"):
                same(replayed_alone(digits, monkeypatch), expected)


def test_a_step_that_asks_the_host_is_found_out(digits, monkeypatch):
    own = loop._update

    def asking(crew, moment):
        own(crew, moment)
        assert crew.pack.theta_RP.sum().item() != 0.5

    monkeypatch.setattr(loop, "_update", asking)
    with pytest.raises((AssertionError, RuntimeError), match=r"the host waits|when stream is capturing"):
        replayed_alone(digits, monkeypatch)


def test_tensors_of_two_devices_do_not_meet(monkeypatch):
    with emulated_gpu(monkeypatch):
        there, here = torch.ones(2, 3, device="cuda"), torch.ones(2, 3)
        assert there.device.type == there.sum(dim=0).device.type == torch.zeros_like(there).device.type == "cuda"
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there.cpu() + here).tolist() == [[2.0] * 3] * 2
