"""What a frozen trunk makes of images lies on the disk for the next trial, and changes no bit of it."""

import errno
import os

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from lab import training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.models.pretrained import Pretrained
from lab.replication import Grid
from lab.training import feature_store
from lab.training.feature_store import FeatureStore

PLAN = Grid("bootstrap", 2, 2)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=10, n_validation=10)


@pytest.fixture(scope="module")
def trunks(tmp_path_factory):
    """Files of random weights of two networks."""
    folder = tmp_path_factory.mktemp("trunks")
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            save_file(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), folder / f"{seed}.safetensors")
    return folder


@pytest.fixture
def seen(monkeypatch):
    """Images that go through the first block of a trunk."""
    counts: list[int] = []

    def counted(self, k, x, *rest, block=Pretrained.block):
        if k == 0 and x.device.type != "meta":
            counts.append(x.shape[0] * x.shape[1])
        return block(self, k, x, *rest)

    monkeypatch.setattr(Pretrained, "block", counted)
    return counts


@pytest.fixture
def train(digits, trunks, tmp_path):
    def trained(*, features_in=tmp_path / "f", trunk=0, **knobs):
        config = TrialConfig(
            **dict(family="pretrained", backbone="mobilenet_v3_small", weights=str(trunks / f"{trunk}.safetensors"),
                   new_head=True, frozen=1.0, epochs=2, n_train=12) | knobs
        )  # fmt: skip
        *_, last = training.fit(config, digits, PLAN, seed=3, n_evaluations=2, features_in=features_in)
        return last.probabilities_test_DINC.tobytes()

    return trained


IMAGES = 2 * (12 + 10 + 10)  # of two training sets, and what their learners see of two other sets


def test_the_next_trial_takes_them_from_the_disk_with_the_same_bits(train, seen):
    alone = train(features_in=None)
    assert train() == alone
    assert sum(seen) == 2 * IMAGES
    other = train(learning_rate=0.02)
    assert train() == alone != other
    assert sum(seen) == 2 * IMAGES


@pytest.mark.parametrize(
    "change", [{"trunk": 1}, {"frozen": 0.5}, {"normalize": "none"}, {"resize": 16}, {"precision": "bf16"}]
)
def test_what_they_follow_from_is_what_they_are_found_by(train, seen, change, digits):
    train()
    n_before = sum(seen)
    changed = train(**change)
    assert sum(seen) > n_before
    assert changed == train(features_in=None, **change)


def test_another_edition_of_the_lab_computes_them_anew(train, seen, monkeypatch):
    train()
    monkeypatch.setattr("lab.__version__", "0.0.0")
    train()
    assert sum(seen) == 2 * IMAGES


def test_a_damaged_file_is_not_used_and_replaced(train, seen, tmp_path):
    whole = train()
    for path in (tmp_path / "f").iterdir():
        content = bytearray(path.read_bytes())
        content[-1] ^= 64
        path.write_bytes(content)
    assert train() == whole
    assert sum(seen) == 2 * IMAGES
    assert train() == whole
    assert sum(seen) == 2 * IMAGES


def test_a_link_is_not_followed(train, seen, tmp_path):
    whole = train()
    for path in (tmp_path / "f").iterdir():
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    assert train() == whole
    assert sum(seen) == 2 * IMAGES


def test_a_full_disk_costs_time_alone(train, monkeypatch, tmp_path):
    def full(path, content):
        path.write_bytes(content[:10])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(feature_store, "write_synced", full)
    assert train() == train(features_in=None)
    assert list((tmp_path / "f").iterdir()) == []


def test_all_files_together_have_a_bound_and_those_that_were_not_used_for_longest_go_first(tmp_path, monkeypatch):
    store, values = FeatureStore(tmp_path), {key: torch.full((100,), float(k)) for k, key in enumerate("abc")}
    for key in "ab":
        store.save(key, values[key])
    size = next(tmp_path.iterdir()).stat().st_size
    monkeypatch.setattr(feature_store, "MOST_BYTES", 2 * size)
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    assert torch.equal(store.load("a"), values["a"])  # used, so b goes
    store.save("c", values["c"])
    assert store.load("b") is None
    assert torch.equal(store.load("a"), values["a"])
    assert torch.equal(store.load("c"), values["c"])


def test_blocks_of_the_lab_are_as_fast_as_a_disk_and_leave_nothing(digits, tmp_path):
    config = TrialConfig(family="cnn", depth=1, width=4, frozen=1.0, epochs=1, n_train=12)
    list(training.fit(config, digits, PLAN, seed=3, n_evaluations=2, features_in=tmp_path / "f"))
    assert not (tmp_path / "f").exists()
