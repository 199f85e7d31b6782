"""On the CPU a replica has the same bits wherever in a pack of some size it sits, whoever the others are.

Vector instructions compute whole vectors; what is left over at the end of a row is rounded otherwise. Sizes here leave
something over: no width, batch or pack is a multiple of a vector, except where two of them are.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from lab import training
from lab.data.datasets import load
from lab.data.pool import Dataset, Pool
from lab.knobs import TrialConfig
from lab.models import convolution
from lab.spec import Replication
from lab.training import crew, evaluation

SMALL = TrialConfig(width=6, depth=2, epochs=1, n_train=15, batch_size=7, learning_rate=0.03)
PLAN = Replication(scheme="bootstrap", n_resamples=5, n_inits=3)
SHUFFLED = [4, 14, 0, 9, 11, 1, 6, 12, 3, 8, 13, 5, 10, 2, 7]  # another place in a pack, and other mates, for each
FAMILIES = {"mlp": {}, "cnn": {"family": "cnn"}, "resnet": {"family": "resnet", "depth": 1}}
TECHNIQUES = [
    *({"activation": activation} for activation in ("tanh", "sigmoid", "gelu", "leaky_relu", "elu")),
    {"loss": "focal", "focal_gamma": 1.5},
    {"loss": "brier", "label_smoothing": 0.1},
    {"class_weights": "balanced"},
    {"dropout": 0.3, "clip_norm": 0.5, "l1": 0.01},
    {"averaging": "ema", "norm": "batch"},
    {"adversarial": "pgd", "epsilon": 0.1},
    {"rotation": 15.0, "zoom": 0.1, "shift": 0.1, "pixel_noise": 0.2, "brightness": 0.2, "mixup": 0.3},
    {"optimizer": "sgd", "weight_decay": 0.01, "nesterov": True},
    {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine"},
]


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=33, n_validation=20)


def trained(config, digits, monkeypatch, order, pack_size, dtype):
    """Train the 15 replicas in packs of this size, in this order; return the last evaluation."""
    crews = np.split(np.array(order), len(order) // pack_size)
    monkeypatch.setattr(crew, "_crew_rows", lambda n_replicas, most, resume: crews)
    *_, last = training.fit(config, digits, PLAN, seed=1, n_evaluations=1, keep_weights=True, dtype=dtype)
    return last


def assert_positions_do_not_matter(config, digits, monkeypatch, pack_size, dtype=torch.float32):
    first = trained(config, digits, monkeypatch, range(15), pack_size, dtype)
    second = trained(config, digits, monkeypatch, SHUFFLED, pack_size, dtype)
    assert not first.diverged_R.any()
    assert first.probabilities_test_DINC.tobytes() == second.probabilities_test_DINC.tobytes()
    for found, expected in ((first.weights, second.weights), (first.metrics, second.metrics)):
        assert {name for name in found if found[name].tobytes() != expected[name].tobytes()} == set()


@pytest.mark.parametrize("width", [4, 6, 8, 12, 20])
@pytest.mark.parametrize("norm", ["none", "batch", "group", "layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_replica_has_the_same_bits_at_every_place_of_its_pack(digits, monkeypatch, family, norm, width):
    config = dataclasses.replace(SMALL, norm=norm, width=width, **FAMILIES[family])
    for pack_size in (5,) if family == "resnet" else (3, 5, 15):
        assert_positions_do_not_matter(config, digits, monkeypatch, pack_size)


@pytest.mark.parametrize("family", FAMILIES)
def test_so_it_has_on_larger_images(monkeypatch, family):
    rng = np.random.default_rng(0)
    pools = [Pool(rng.random((n, 3, 19, 17), dtype=np.float32), rng.integers(0, 3, n)) for n in (60, 20, 33)]
    random = Dataset("random", ("a", "b", "c"), *pools, digest="", source="random")
    for norm in ("none", "batch", "layer"):
        config = dataclasses.replace(SMALL, norm=norm, **FAMILIES[family])
        assert_positions_do_not_matter(config, random, monkeypatch, 5)


def test_so_it_has_where_gradients_are_computed_in_their_place(digits, monkeypatch):
    assert_positions_do_not_matter(dataclasses.replace(SMALL, width=99), digits, monkeypatch, 5)


@pytest.mark.parametrize("norm", ["none", "batch", "group", "layer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_so_it_has_where_products_lie_the_other_way_round(digits, monkeypatch, norm, dtype):
    for width in (6, 13, 16):
        config = dataclasses.replace(SMALL, norm=norm, width=width, dropout=0.3, n_train=33, batch_size=32)
        assert_positions_do_not_matter(config, digits, monkeypatch, 3, dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_so_it_has_in_attacks_on_networks_with_batch_norm(digits, monkeypatch, family):
    for width in (1, 6):
        config = dataclasses.replace(
            SMALL, norm="batch", width=width, adversarial="fgsm", attack_epsilon=0.1, **FAMILIES[family]
        )
        assert_positions_do_not_matter(config, digits, monkeypatch, 5)


def test_so_it_has_where_an_evaluation_takes_some_replicas_at_a_time(digits, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_VALUES", 2 * 6 * 64 * 33)  # of two replicas, so that one is left over
    assert_positions_do_not_matter(dataclasses.replace(SMALL, **FAMILIES["cnn"]), digits, monkeypatch, 5)


def test_so_it_has_where_what_is_pooled_is_convolved_in_pieces(digits, monkeypatch):
    monkeypatch.setattr(convolution, "PIECE_VALUES", 3 * 5 * 6 * 64)  # of three images of a batch of seven
    assert_positions_do_not_matter(dataclasses.replace(SMALL, **FAMILIES["cnn"]), digits, monkeypatch, 5)


@pytest.mark.parametrize("family", ["mlp", "cnn"])
@pytest.mark.parametrize("change", TECHNIQUES, ids=lambda change: ",".join(f"{k}={v}" for k, v in change.items()))
def test_so_it_has_with_every_technique(digits, monkeypatch, change, family):
    config = dataclasses.replace(SMALL, **FAMILIES[family] | change)
    for dtype in (torch.float32, torch.float64):
        assert_positions_do_not_matter(config, digits, monkeypatch, 5, dtype)


def test_products_of_before_the_training_do_not_make_bits_follow_the_pack():
    code = """
from lab.data import datasets
datasets.load("teacher", seed=0, n_test=33, n_validation=20)  # trains a network
from lab import training
from lab.knobs import TrialConfig
from lab.spec import Replication
digits = datasets.load("digits", seed=0, n_test=33, n_validation=20)
config = TrialConfig(depth=2, width=6, epochs=2, n_train=30)
found = set()
for pack_size in (1, 3, 5):
    *_, last = training.fit(config, digits, Replication("disjoint", 5, 3), seed=1, n_evaluations=1, pack_size=pack_size)
    found.add(last.probabilities_test_DINC.tobytes())
assert len(found) == 1, len(found)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
