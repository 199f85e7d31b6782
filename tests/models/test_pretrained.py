"""Trunks of torchvision: with a file of weights they compute what torchvision computes, and train as torch does."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from lab import search, seeds, training, weights
from lab.data.datasets import load
from lab.data.resampling import draw_resample
from lab.errors import SpecError
from lab.knobs import BACKBONES, TrialConfig
from lab.models import build
from lab.models.initialization import initial_values
from lab.models.pretrained import Pretrained
from lab.replication import Grid
from lab.spec import Study
from lab.training.pack import Pack

CPU = torch.device("cpu")


def published(backbone, folder):
    """A file as the README's command makes it, of random weights and statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(torchvision.models, backbone)(weights=None).eval()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    path = folder / f"{backbone}.safetensors"
    save_file(network.state_dict(), path)
    return network, str(path)


def trunk(network):
    return nn.Sequential(*list(network.children())[:-2]) if hasattr(network, "fc") else network.features


# resnet50 and vgg16 are built as the others are, and take seconds each
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_with_the_weights_of_a_file_a_trunk_computes_what_torchvision_computes(backbone, tmp_path):
    network, path = published(backbone, tmp_path)
    config = TrialConfig(family="pretrained", backbone=backbone, weights=path, new_head=True, frozen=0.5)
    ours = build(config, (3, 40, 40), 7)
    pack = Pack.start(ours, [config], [0], seed=0, device=CPU, dtype=torch.float64)
    images = torch.randn(1, 2, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = ours.forward(pack.weights, pack.buffers, images, None)
        features = trunk(network.double())(images[0]).mean(dim=(2, 3))
        expected = features @ pack.weights["output.weight"][0] + pack.weights["output.bias"][0]
        torch.testing.assert_close(logits[0], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_blocks_of_a_trunk_hold_all_of_torchvisions_weights_once(backbone):
    with torch.device("meta"):
        theirs = trunk(getattr(torchvision.models, backbone)(weights=None))
    ours = build(TrialConfig(family="pretrained", backbone=backbone), (3, 32, 32), 7)
    n_head = sum(int(np.prod(p.shape)) for p in ours.parameters if p.name.startswith("output."))
    assert ours.n_parameters - n_head == sum(p.numel() for p in theirs.parameters())
    assert n_head % 7 == 0


def test_a_replica_trains_as_torch_trains_it(tmp_path):
    """Grey images of 8 × 8, enlarged; half of the blocks frozen, batch norms by the statistics of the file."""
    network, path = published("mobilenet_v3_small", tmp_path)
    digits = load("digits", seed=0, n_test=10, n_validation=10)
    config = TrialConfig(
        family="pretrained", backbone="mobilenet_v3_small", weights=path, new_head=True, frozen=0.5, epochs=1,
        n_train=12, batch_size=6, optimizer="sgd", learning_rate=0.05, head_rate_factor=2.0,
    )  # fmt: skip
    *_, found = training.fit(
        config, digits, Grid("bootstrap", 1, 1), seed=3, first_resample=1, first_init=1, n_evaluations=2,
        dtype=torch.float64,
    )  # fmt: skip
    pool = draw_resample(digits, "bootstrap", n_train=12, n_blocks=1, seed=3, index=1)
    mean, std = np.float32(pool.images.mean(dtype=np.float64)), np.float32(pool.images.std(dtype=np.float64))

    def prepared(images):
        x = torch.from_numpy((images.astype(np.float64) - mean) / std).expand(-1, 3, -1, -1)
        return F.interpolate(x, size=(32, 32), mode="bilinear", antialias=True)

    body, head = trunk(network.double()).eval(), nn.Linear(576, 10).double()
    ours = build(config, (1, 8, 8), 10)
    drawn = initial_values(ours.parameters, "he_normal", 1.0, seeds.generator(3, "init", 1))[-5770:]
    head.weight.data, head.bias.data = (
        torch.from_numpy(drawn[:5760].reshape(576, 10).T.copy()),
        torch.zeros(10).double(),
    )
    for child in list(body.children())[: round(13 / 2)]:
        child.requires_grad_(False)
    groups = [{"params": [p for p in body.parameters() if p.requires_grad]}, {"params": head.parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    x, y = prepared(pool.images), torch.from_numpy(pool.labels)
    for batch in torch.from_numpy(seeds.generator(3, "order", 1, 1).permutation(12)).split(6):
        optimizer.zero_grad()
        F.cross_entropy(head(body(x[batch]).mean(dim=(2, 3))), y[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        expected = torch.softmax(head(body(prepared(digits.test.images)).mean(dim=(2, 3))), dim=1)
    np.testing.assert_allclose(found.probabilities_test_DINC[0, 0], expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("knobs", "n_calls", "is_alone"),
    [
        (dict(frozen=1.0), 2 * 3, False),  # two training sets, and what their learners see of two other sets of images
        (dict(frozen=1.0, normalize="none"), 2 + 2, False),
        (dict(frozen=0.5), 2 * 3 * 3, True),  # six replicas
    ],
)
def test_heads_of_one_trunk_are_trained_in_one_pack_on_features_that_are_computed_once(
    tmp_path, monkeypatch, knobs, n_calls, is_alone
):
    """As each of them alone would be: the first block of the trunk is called once a training set."""
    _, path = published("mobilenet_v3_small", tmp_path)
    digits = load("digits", seed=0, n_test=10, n_validation=10)
    config = TrialConfig(
        family="pretrained", backbone="mobilenet_v3_small", weights=path, new_head=True, epochs=3, n_train=12,
        batch_size=6, **knobs,
    )  # fmt: skip
    plan, seen, events = Grid("bootstrap", 2, 3), [], []

    def counted(self, k, x, *rest, block=Pretrained.block):
        if k == 0 and x.device.type != "meta":
            seen.append(len(x))
        return block(self, k, x, *rest)

    monkeypatch.setattr(Pretrained, "block", counted)
    *_, together = training.fit(config, digits, plan, seed=3, n_evaluations=2, on_event=events.append)
    assert sum(seen) == n_calls
    assert [("one after the other" in event) for event in events] == [True] * is_alone
    *_, alone = training.fit(config, digits, plan, seed=3, n_evaluations=2, pack_size=1)
    np.testing.assert_allclose(together.probabilities_test_DINC, alone.probabilities_test_DINC, rtol=1e-5, atol=1e-7)


def test_what_is_kept_of_a_trained_trunk_is_named_as_torchvision_names_it(tmp_path):
    _, path = published("mobilenet_v3_small", tmp_path)
    digits = load("digits", seed=0, n_test=10, n_validation=10)
    config = TrialConfig(
        family="pretrained", backbone="mobilenet_v3_small", weights=path, new_head=True, frozen=1.0, epochs=1,
        n_train=16,
    )  # fmt: skip
    *_, last = training.fit(config, digits, Grid("seeds", 1, 1), seed=3, n_evaluations=2, keep_weights=True)
    ((kept,), _) = weights.unpacked(weights.packed(last.weights, [0], {}))
    for name, value in load_file(path).items():
        if name.startswith("features.") and not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(kept.pop(name), value.numpy())
    assert set(kept) == {"output.weight", "output.bias", "input.mean", "input.std"}


def readme_commands():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    return [line for line in text.splitlines() if line.startswith("python -c") and "safetensors" in line]


def test_torchs_own_file_of_weights_is_refused_and_the_readmes_command_makes_one_that_is_taken(tmp_path):
    network, path = published("resnet18", tmp_path)
    torch.save(network.state_dict(), tmp_path / "resnet18-f37072fd.pth")
    with pytest.raises(SpecError, match=r"resnet18-f37072fd.pth is a file of torch.save, a pickle"):
        weights.read(tmp_path / "resnet18-f37072fd.pth")
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(SpecError, match=r"old.pth is a file of torch.save, a pickle"):
        weights.read(tmp_path / "old.pth")
    Path(path).unlink()
    _, convert = readme_commands()
    subprocess.run([sys.executable, *shlex.split(convert)[1:]], cwd=tmp_path, check=True)
    config = TrialConfig(family="pretrained", backbone="resnet18", weights=path, new_head=True, frozen=1.0)
    pack = Pack.start(build(config, (3, 32, 32), 10), [config], [0], seed=0, device=CPU, dtype=torch.float32)
    torch.testing.assert_close(pack.weights["conv1.weight"][0], network.state_dict()["conv1.weight"], rtol=0, atol=0)


def test_the_command_that_fetches_published_weights_asks_torchvision_and_writes_what_it_gives(tmp_path, monkeypatch):
    fetch, _ = readme_commands()
    network, _ = published("resnet18", tmp_path)
    asked = []
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: asked.append(weights) or network)
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(fetch)[2], {})
    assert asked == ["DEFAULT"]
    assert torch.equal(load_file(tmp_path / "resnet18.safetensors")["fc.weight"], network.fc.weight)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({}, "family 'pretrained' starts from published weights, which are not downloaded here: fetch them where"),
        ({"weights": "nowhere"}, "weights: nowhere cannot be read"),
    ],
)
def test_a_study_of_trunks_without_weights_is_refused_before_anything_is_written(start, said):
    study = Study(question="?", data="digits", fixed=dict(family="pretrained", n_train=40, new_head=True) | start)
    with pytest.raises(SpecError, match=said):
        search.prepare(study)


def test_a_file_of_another_trunk_is_refused_in_a_sentence(tmp_path):
    _, path = published("mobilenet_v3_small", tmp_path)
    config = TrialConfig(family="pretrained", backbone="resnet18", weights=path, new_head=True)
    network = build(config, (3, 32, 32), 10)
    with pytest.raises(SpecError, match=r"has no conv1.weight, which this pretrained needs"):
        Pack.start(network, [config], [0], seed=0, device=CPU, dtype=torch.float32)


def test_without_weights_the_family_says_how_to_get_them():
    config = TrialConfig(family="pretrained")
    with pytest.raises(SpecError, match=r"'pretrained' has no weights to start from: give a safetensors file"):
        Pack.start(build(config, (3, 32, 32), 10), [config], [0], seed=0, device=CPU, dtype=torch.float32)
