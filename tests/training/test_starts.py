"""Replicas that start from weights of a file, with frozen blocks and a head of their own."""

import dataclasses

import numpy as np
import pytest
import torch

from lab import training, weights
from lab.data.datasets import load
from lab.errors import SpecError
from lab.knobs import TrialConfig
from lab.models.mlp import MLP
from lab.spec import Replication
from lab.training import features
from lab.training.sets import TrainingSets

PLAN = Replication(scheme="seeds", n_resamples=1, n_inits=3)
SOURCE = TrialConfig(width=6, depth=2, epochs=4, n_train=40, batch_size=8, learning_rate=0.01)
STILL = dict(epochs=1, learning_rate=1e-9)  # a training that changes nothing that float32 would show


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=20)


def last(config, dataset, plan=PLAN, **options):
    *_, evaluation = training.fit(config, dataset, plan, seed=3, n_evaluations=2, keep_weights=True, **options)
    return evaluation


def written(evaluation, folder):
    """The weights of an evaluation as a folder of export-weights."""
    n_replicas = len(evaluation.diverged_R)
    replicas, _ = weights.unpacked(weights.packed(evaluation.weights, range(n_replicas), {}))
    weights.write(folder, replicas, [{"replica": r} for r in range(n_replicas)], {})
    return str(folder)


@pytest.mark.parametrize(
    "change", [{}, {"norm": "batch"}, {"family": "cnn", "norm": "group"}, {"family": "resnet", "depth": 1, "width": 4}]
)
def test_seed_i_starts_as_replica_i_of_a_folder_ended(tmp_path, digits, change):
    config = dataclasses.replace(SOURCE, **change)
    source = last(config, digits)
    config = dataclasses.replace(config, weights=written(source, tmp_path / "w"), **STILL)
    started = last(config, digits, dtype=torch.float64)
    if "norm" in change and change["norm"] == "batch":  # an epoch moves the running statistics all the same
        assert np.abs(started.probabilities_test_DINC - source.probabilities_test_DINC).max() < 0.6
        config = dataclasses.replace(config, frozen=1.0)
        started = last(config, digits, dtype=torch.float64)
    np.testing.assert_allclose(started.probabilities_test_DINC, source.probabilities_test_DINC, rtol=1e-4, atol=1e-6)


def test_seeds_beyond_the_replicas_of_a_folder_begin_with_the_first_again_and_a_file_serves_all(tmp_path, digits):
    source = last(SOURCE, digits)
    folder = written(source, tmp_path / "w")
    p = source.probabilities_test_DINC[0]
    config = dataclasses.replace(SOURCE, weights=folder, **STILL)
    around = last(config, digits, first_init=2).probabilities_test_DINC[0]
    np.testing.assert_allclose(around, p[[2, 0, 1]], rtol=1e-4, atol=1e-6)
    config = dataclasses.replace(config, weights=f"{folder}/replica-0001.safetensors")
    np.testing.assert_allclose(last(config, digits).probabilities_test_DINC[0], p[[1, 1, 1]], rtol=1e-4, atol=1e-6)


def test_a_new_head_is_the_one_that_the_seed_would_have_had_and_the_rest_is_that_of_the_file(tmp_path, digits):
    source = last(SOURCE, digits)
    config = dataclasses.replace(SOURCE, weights=written(source, tmp_path / "w"), new_head=True, **STILL)
    mixed, fresh = last(config, digits).weights, last(dataclasses.replace(SOURCE, **STILL), digits).weights
    for name, values in mixed.items():
        expected = fresh if name.startswith("output.") else source.weights
        if not name.startswith("input."):
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 8}, r"hidden0.weight of .* has the shape \(64, 6\), and this mlp of width 8 needs \(64, 8\)"),
        ({"depth": 3}, r"has no hidden2.weight, which this mlp needs"),
        ({"depth": 1}, r"has hidden1.bias, which this mlp has not"),
        ({"norm": "batch"}, r"has no norm0.weight"),
        ({"family": "cnn"}, r"has no block0.weight, which this cnn needs"),
        ({"weights": "/nowhere"}, r"weights: /nowhere cannot be read \(No such file or directory\)"),
    ],
)
def test_weights_of_another_network_are_refused_in_a_sentence(tmp_path, digits, change, said):
    config = dataclasses.replace(SOURCE, weights=written(last(SOURCE, digits), tmp_path / "w"))
    with pytest.raises(SpecError, match=said):
        last(dataclasses.replace(config, **change), digits)


def test_for_other_classes_the_message_names_the_knob(tmp_path, digits):
    folder = written(last(SOURCE, digits), tmp_path / "w")
    few = dataclasses.replace(
        digits, **{part: getattr(digits, part).take(np.flatnonzero(getattr(digits, part).labels < 4))
                   for part in ("pool", "validation", "test")}, class_names=tuple("0123"),
    )  # fmt: skip
    config = dataclasses.replace(SOURCE, weights=folder)
    with pytest.raises(SpecError, match=r"output.weight .* needs \(6, 4\) \(for other classes set new_head=True\)"):
        last(config, few)
    shape = last(dataclasses.replace(config, new_head=True), few).probabilities_test_DINC.shape
    assert shape == (1, 3, len(few.test.labels), 4)


FROZEN = [
    dict(frozen=0.5),
    dict(frozen=1.0, family="cnn", norm="batch", patience=1, epochs=6),
    dict(frozen=1.0, family="resnet", depth=1, width=4),
]


@pytest.mark.parametrize("change", FROZEN, ids=lambda c: ",".join(c))
def test_features_that_are_known_change_no_prediction(digits, change, monkeypatch):
    """But by rounding: a product of matrices of other sizes may sum in another order."""
    config = dataclasses.replace(SOURCE, **change)
    plan = Replication("bootstrap", 2, 2)
    known = last(config, digits, plan, dtype=torch.float64)
    monkeypatch.setattr(features, "MOST_VALUES", 0)
    anew = last(config, digits, plan, dtype=torch.float64)
    np.testing.assert_allclose(known.probabilities_test_DINC, anew.probabilities_test_DINC, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(known.probabilities_val_DINC, anew.probabilities_val_DINC, rtol=2e-6, atol=1e-7)
    for name, values in known.metrics.items():
        np.testing.assert_allclose(values, anew.metrics[name], rtol=1e-9)


def test_frozen_blocks_see_each_image_once(digits, monkeypatch):
    seen = []

    def counted(self, k, x, *rest, block=MLP.block):
        if x.device.type != "meta":
            seen.append((k, x.shape[0] * x.shape[1]))
        return block(self, k, x, *rest)

    monkeypatch.setattr(MLP, "block", counted)
    plan = Replication("bootstrap", 2, 2)
    list(training.fit(dataclasses.replace(SOURCE, frozen=0.5), digits, plan, seed=3, n_evaluations=4))
    assert sum(n for k, n in seen if k == 0) == 4 * (
        40 + 20 + 40
    )  # training, validation and test sets of four replicas
    assert sum(n for k, n in seen if k == 1) > 4 * 4 * (40 + 20 + 40)


@pytest.mark.parametrize(
    ("normalize", "n_starts", "n_images"),
    [
        ("training", 1, 2 * (40 + 20 + 40)),  # of two training sets, by whose statistics all images are standardised
        ("none", 1, 2 * 40 + 20 + 40),
        ("none", 3, 3 * (2 * 40 + 20 + 40)),
    ],
)
def test_replicas_of_one_start_share_what_its_frozen_blocks_make_of_the_images(
    tmp_path, digits, monkeypatch, normalize, n_starts, n_images
):
    config = dataclasses.replace(SOURCE, normalize=normalize)
    folder = written(last(config, digits), tmp_path / "w")
    path = folder if n_starts == 3 else f"{folder}/replica-0001.safetensors"
    config = dataclasses.replace(config, weights=path, new_head=True, frozen=1.0, patience=1, epochs=6)
    plan, seen = Replication("bootstrap", 2, 6), []
    whole = last(config, digits, plan)

    def counted(self, k, x, *rest, block=MLP.block):
        seen.append(x.shape[0] * x.shape[1] if x.device.type != "meta" else 0)
        return block(self, k, x, *rest)

    monkeypatch.setattr(MLP, "block", counted)
    again = last(config, digits, plan)
    assert sum(seen) == 2 * n_images  # two blocks
    assert whole.probabilities_test_DINC.tobytes() == again.probabilities_test_DINC.tobytes()
    alone = last(config, digits, plan, pack_size=1)
    np.testing.assert_allclose(alone.probabilities_test_DINC, whole.probabilities_test_DINC, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("change", "n_gathered"), [({}, 0), ({"flip": 0.5}, 2 * 5)])
def test_images_are_not_gathered_for_a_step_that_trains_on_features(digits, monkeypatch, change, n_gathered):
    gathered = []

    def counted(self, index_RB, batch=TrainingSets.batch):
        if index_RB.shape[1] == 8:  # of a step
            gathered.append(1)
        return batch(self, index_RB)

    monkeypatch.setattr(TrainingSets, "batch", counted)
    last(dataclasses.replace(SOURCE, frozen=0.5, epochs=2, **change), digits)
    assert len(gathered) == n_gathered


def test_images_of_which_the_features_are_known_are_not_converted_for_another_evaluation(digits, monkeypatch):
    converted = []

    def counted(self, images, pixels=TrainingSets.pixels):
        converted.append(len(images))
        return pixels(self, images)

    monkeypatch.setattr(TrainingSets, "pixels", counted)
    list(training.fit(dataclasses.replace(SOURCE, frozen=0.5), digits, PLAN, seed=3, n_evaluations=4))
    assert converted == [40, 20, 40]  # of training, validation and test, by the first of four evaluations


def test_training_with_frozen_blocks_taken_up_again_has_the_same_bits(digits):
    config = dataclasses.replace(SOURCE, frozen=0.5, norm="batch", head_rate_factor=3.0, patience=2, epochs=6)
    states = []
    whole = last(config, digits, on_epoch=lambda state: states.append({k: v.clone() for k, v in state().items()}))
    again = last(config, digits, resume=states[2])
    assert whole.probabilities_test_DINC.tobytes() == again.probabilities_test_DINC.tobytes()


def test_frozen_weights_are_not_counted_as_trained():
    assert training.count_parameters(dataclasses.replace(SOURCE, frozen=1.0), (1, 8, 8), 10) == 6 * 10 + 10
    assert training.count_parameters(dataclasses.replace(SOURCE, frozen=0.5), (1, 8, 8), 10) == 6 * 6 + 6 + 70
