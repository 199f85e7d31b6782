"""Layers keep the layout in memory that is fast on the CPU, and the numbers of torch.nn.functional."""

import pytest
import torch

from lab.models import layers
from lab.models.layers import ACTIVATIONS, MONOTONE


def is_channels_last(x_RBCHW):
    """Return whether (B, H, W, R, C) is the order in memory."""
    return x_RBCHW.permute(1, 3, 4, 0, 2).is_contiguous()


@pytest.mark.parametrize("R", [1, 3])
@pytest.mark.parametrize("C", [1, 2])
def test_every_layer_keeps_the_layout_that_the_first_one_is_given(R, C):
    """A layer that loses it would make each later one copy its input, and pool three times as slowly."""
    x = layers.channels_last(torch.randn(R, 4, C, 6, 6))
    assert is_channels_last(x)
    one, zero = torch.ones(R, 6), torch.zeros(R, 6)
    for layer in (
        lambda x: layers.convolution(x, torch.randn(R, 6, x.shape[2], 3, 3), zero),
        lambda x: layers.batch_norm(x, one, zero, zero.clone(), one.clone(), True),
        lambda x: layers.group_norm(x, one, zero, 3),
        lambda x: layers.pool("max", x),
        lambda x: layers.pool("average", x),
        lambda x: layers.convolution(x, torch.randn(R, 6, 6, 1, 1), None, stride=1),
        torch.relu,
    ):
        x = layer(x) if x.shape[-1] > 1 else x
        assert is_channels_last(x)


def test_images_are_the_same_in_either_layout():
    x = torch.randn(3, 4, 2, 6, 6)
    assert torch.equal(layers.channels_last(x), x)


@pytest.mark.parametrize("name", sorted(MONOTONE))
def test_a_monotone_activation_and_max_pooling_commute(name):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    f = ACTIVATIONS[name]
    first, second = f(layers.pool("max", x)), layers.pool("max", f(x))
    assert torch.equal(first, second)
    slope = torch.randn(first.shape, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(*(torch.autograd.grad(y, x, slope) for y in (first, second)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gelu_does_not_commute_with_max_pooling():
    x = torch.tensor([-3.0, -0.7]).view(1, 1, 1, 1, 2).expand(1, 1, 1, 2, 2)
    f = ACTIVATIONS["gelu"]
    assert not torch.equal(f(layers.pool("max", x)), layers.pool("max", f(x)))


@pytest.mark.parametrize("shape", [(3, 1, 5), (3, 1, 5, 1, 1)])
def test_a_batch_of_one_value_a_channel_is_normalised_to_the_shift(shape):
    x = torch.randn(shape, requires_grad=True)
    scale, shift, mean, var = torch.ones(3, 5), torch.randn(3, 5), torch.zeros(3, 5), torch.ones(3, 5)
    y = layers.batch_norm(x, scale, shift, mean, var, True)
    assert torch.equal(y.view(3, 5), shift)
    assert torch.equal(mean, 0.1 * x.detach().view(3, 5))
    assert torch.equal(var, torch.full((3, 5), 0.9))
