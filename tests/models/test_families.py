"""Every family can be built at every size that a study may ask for, and counts its parameters as torch does."""

import pytest
import torch
import torchvision

from lab import models
from lab.knobs import FAMILIES, TrialConfig
from lab.models.layers import ACTIVATIONS, n_groups
from lab.training.pack import Pack

DIALLED = [family for family in FAMILIES if family != "pretrained"]  # that has sizes of its own: test_pretrained


def test_every_named_family_is_built():
    assert set(models.FAMILIES) == set(FAMILIES)


@pytest.mark.parametrize("family", DIALLED)
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("depth", [0, 1, 4, 6])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_any_depth_fits_any_image(family, image_shape, depth, norm):
    config = TrialConfig(family=family, depth=depth, width=3, norm=norm)
    network = models.build(config, image_shape, 7)
    pack = Pack.start(network, [config] * 2, [0, 1], seed=0, device=torch.device("cpu"), dtype=torch.float32)
    logits = network.forward(pack.weights, pack.buffers, torch.zeros(2, 5, *image_shape), None)
    assert logits.shape == (2, 5, 7)
    assert sum(weight[0].numel() for weight in pack.weights.values()) == network.n_parameters


def test_parameters_are_counted_as_by_hand():
    assert models.build(TrialConfig(width=16, depth=2), (1, 8, 8), 10).n_parameters == (
        64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    )
    assert models.build(TrialConfig(family="cnn", width=4, depth=2, norm="batch"), (1, 8, 8), 10).n_parameters == (
        9 * 4 + 4 + 8 + 9 * 4 * 4 + 4 + 8 + 4 * 2 * 2 * 10 + 10
    )
    assert models.build(TrialConfig(family="cnn", width=4, depth=1, convolutions=3), (1, 8, 8), 10).n_parameters == (
        (9 * 4 + 4) + 2 * (9 * 4 * 4 + 4) + 4 * 4 * 4 * 10 + 10
    )


def test_a_resnet_of_depth_2_and_width_64_has_the_parameters_of_torchvisions_resnet18_with_a_3_by_3_stem():
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    ours = models.build(TrialConfig(family="resnet", width=64, depth=2, norm="batch"), (3, 32, 32), 10)
    shapes = [p.shape[::-1] if len(p.shape) == 2 else p.shape for p in ours.parameters]  # torch stores (out, in)
    assert sorted(shapes) == sorted(tuple(p.shape) for p in theirs.parameters())


@pytest.mark.parametrize("family", DIALLED)
def test_the_widest_map_is_the_largest_that_any_activation_sees(family, monkeypatch):
    sizes = []

    def seen(x):
        sizes.append(x.numel())  # of one replica and one image
        return torch.relu(x)

    monkeypatch.setitem(ACTIVATIONS, "gelu", seen)  # with the others, a cnn pools first
    config = TrialConfig(family=family, depth=2, width=5, activation="gelu")
    network = models.build(config, (1, 3, 3), 10)
    pack = Pack.start(network, [config], [0], seed=0, device=torch.device("cpu"), dtype=torch.float32)
    network.forward(pack.weights, pack.buffers, torch.zeros(1, 1, 1, 3, 3), None)
    assert network.widest == max(9, *sizes)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize(
    ("image_shape", "depth", "width"), [((2, 10, 1), 3, 2), ((2, 18, 6), 4, 4), ((3, 17, 6), 3, 8)]
)
def test_a_network_alone_has_the_gradients_of_one_image_that_it_has_in_a_pack(norm, image_shape, depth, width):
    """torch's batch norm gives wrong ones where a batch of one does not say whether its maps are channels last."""
    config = TrialConfig(family="cnn", depth=depth, width=width, norm=norm, activation="tanh", pooling="average")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, *image_shape, generator=generator, dtype=torch.float64)
    slope = torch.randn(2, 1, 7, generator=generator, dtype=torch.float64)
    network = models.build(config, image_shape, 7)
    gradients = []
    for R in (1, 2):
        pack = Pack.start(network, [config] * R, range(R), seed=0, device=torch.device("cpu"), dtype=torch.float64)
        logits = network.forward(pack.weights, pack.buffers, images[:R], lambda layer, x, rate=None: x)
        pack.differentiate(logits, slope[:R])
        gradients.append(pack.theta_RP.grad[0])
    torch.testing.assert_close(*gradients)


def test_an_unknown_family_is_an_error():
    config = TrialConfig()
    object.__setattr__(config, "family", "transformer")
    with pytest.raises(ValueError, match="unknown model family 'transformer'"):
        models.build(config, (1, 8, 8), 10)


def test_a_perceptron_says_that_it_has_no_channels_to_drop():
    with pytest.raises(ValueError, match=r"spatial_dropout = 0\.2: an mlp has no channels to drop: set dropout"):
        models.build(TrialConfig(spatial_dropout=0.2), (1, 8, 8), 10)


@pytest.mark.parametrize(("n_channels", "groups"), [(1, 1), (2, 1), (3, 1), (6, 3), (8, 4), (16, 8), (64, 8), (7, 1)])
def test_no_group_of_group_norm_is_a_single_channel(n_channels, groups):
    assert n_groups(n_channels) == groups
