"""Every family can be built at every size that a study may ask for, and counts its parameters as torch does."""

import pytest
import torch

from lab import models
from lab.knobs import FAMILIES, TrialConfig
from lab.models.layers import n_groups
from lab.training.pack import Pack


def test_every_named_family_is_built():
    assert set(models.FAMILIES) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("depth", [0, 1, 4, 6])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_any_depth_fits_any_image(family, image_shape, depth, norm):
    network = models.build(TrialConfig(family=family, depth=depth, width=3, norm=norm), image_shape, 7)
    pack = Pack(network, [0, 1], seed=0, device=torch.device("cpu"), dtype=torch.float32)
    logits = network.forward(pack.weights, pack.buffers, torch.zeros(2, 5, *image_shape), None)
    assert logits.shape == (2, 5, 7)
    assert pack.theta_RP.shape == (2, network.n_parameters)


def test_parameters_are_counted_as_by_hand():
    assert models.build(TrialConfig(width=16, depth=2), (1, 8, 8), 10).n_parameters == (
        64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    )
    assert models.build(TrialConfig(family="cnn", width=4, depth=2, norm="batch"), (1, 8, 8), 10).n_parameters == (
        9 * 4 + 4 + 8 + 9 * 4 * 4 + 4 + 8 + 4 * 2 * 2 * 10 + 10
    )


def test_an_unknown_family_is_an_error():
    config = TrialConfig()
    object.__setattr__(config, "family", "transformer")
    with pytest.raises(ValueError, match="unknown model family 'transformer'"):
        models.build(config, (1, 8, 8), 10)


@pytest.mark.parametrize(("n_channels", "groups"), [(1, 1), (2, 1), (3, 1), (6, 3), (8, 4), (16, 8), (64, 8), (7, 1)])
def test_no_group_of_group_norm_is_a_single_channel(n_channels, groups):
    assert n_groups(n_channels) == groups
