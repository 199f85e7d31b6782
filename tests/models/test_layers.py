"""Layers keep the layout in memory that is fast on the CPU, and the numbers of torch.nn.functional."""

import itertools

import pytest
import torch

from lab.models import layers
from lab.models.convolution import convolution
from lab.models.layers import ACTIVATIONS, MONOTONE
from lab.models.layout import VECTOR


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
        lambda x: convolution(x, torch.randn(R, 6, x.shape[2], 3, 3), zero),
        lambda x: layers.batch_norm(x, one, zero, zero.clone(), one.clone(), True),
        lambda x: layers.group_norm(x, one, zero, 3),
        lambda x: layers.pool("max", x),
        lambda x: layers.pool("average", x),
        lambda x: convolution(x, torch.randn(R, 6, 6, 1, 1), None, stride=1),
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


def test_statistics_that_frozen_replicas_of_one_start_share_without_a_copy_normalise_each_of_them():
    x, scale, shift = torch.randn(3, 7, 5, 2, 2), torch.rand(5), torch.randn(5)
    mean, var = torch.randn(5), torch.rand(5)
    shared = [value.expand(3, 5) for value in (scale, shift, mean, var)]
    y = layers.batch_norm(x, *shared, False)
    torch.testing.assert_close(y, layers.batch_norm(x, *(value.clone() for value in shared), False))


def test_it_is_so_in_bfloat16_whose_statistics_stay_in_float32():
    x, shift, mean, var = torch.randn(3, 1, 5).bfloat16(), torch.randn(3, 5), torch.zeros(3, 5), torch.ones(3, 5)
    assert torch.equal(layers.batch_norm(x, torch.ones(3, 5), shift, mean, var, True).view(3, 5), shift)
    assert torch.equal(mean, 0.1 * x.float().view(3, 5))


@pytest.mark.parametrize("shape", [(3, 1, 5), (3, 1, 5, 1, 1)])
def test_such_a_batch_has_gradients_of_all_that_is_normalised(shape):
    x, scale, shift = torch.randn(shape, requires_grad=True), torch.ones(3, 5), torch.randn(3, 5)
    y = layers.batch_norm(x, scale.requires_grad_(), shift.requires_grad_(), torch.zeros(3, 5), torch.ones(3, 5), True)
    of_x, of_scale, of_shift = torch.autograd.grad(y.sum(), [x, scale, shift])
    assert not of_x.any()
    assert not of_scale.any()
    assert (of_shift == 1).all()


@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 8, 8), (3, 4, 5, 6, 7), (4, 4, 4, 3, 3), (3, 5, 4, 1, 1)])
def test_batch_norm_of_a_pack_is_that_of_each_network_in_both_directions(shape):
    """All ways that it is computed in: units, maps, whole vectors or not, maps of one pixel; in float64."""
    generator = torch.Generator().manual_seed(0)
    R, C = shape[0], shape[2]
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + 3
    slope = torch.randn(shape, generator=generator, dtype=torch.float64)
    scale, shift, mean = (torch.randn(R, C, generator=generator, dtype=torch.float64) for _ in range(3))
    var = mean.square() + 0.5
    for training in (True, False):
        own_mean, own_var = mean.clone(), var.clone()
        ins = [value.clone().requires_grad_() for value in (x, scale, shift)]
        y = layers.batch_norm(*ins, own_mean, own_var, training)
        found = [y, own_mean, own_var, *torch.autograd.grad(y, ins, slope)]
        for r in range(R):
            alone_mean, alone_var = mean[r].clone(), var[r].clone()
            alone = [value[r].clone().requires_grad_() for value in (x, scale, shift)]
            z = torch.nn.functional.batch_norm(alone[0], alone_mean, alone_var, alone[1], alone[2], training)
            expected = [z, alone_mean, alone_var, *torch.autograd.grad(z, alone, slope[r])]
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours[r], theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_batch", [1, 5, 16])
@pytest.mark.parametrize("n_out", [4, layers.PLACED_VALUES // 8, layers.PLACED_VALUES // 8 + 1])
def test_the_gradient_of_a_weight_is_written_to_its_place_and_to_no_other(n_batch, n_out):
    """Copied there, or, for a large weight, computed there."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, n_batch, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    values = torch.randn(3, 8, n_out, generator=generator, dtype=torch.float64)
    bias = torch.randn(3, n_out, generator=generator, dtype=torch.float64, requires_grad=True)
    rows = torch.full((3, 8 * n_out + 7), -1.0, dtype=torch.float64)  # as in a pack: more lies beside it
    weight = layers.placed(values.clone().requires_grad_(), rows[:, 3:-4].view(3, 8, n_out))
    plain = values.clone().requires_grad_()
    found = torch.autograd.grad(layers.linear(x, weight, bias).square().sum(), [weight, x, bias])
    expected = torch.autograd.grad((x @ plain + bias[:, None]).square().sum(), [plain, x, bias])
    without_place = torch.autograd.grad(layers.linear(x, plain, bias).square().sum(), [plain, x, bias])
    for ours, theirs, right in zip(found, without_place, expected, strict=True):
        torch.testing.assert_close(ours, right)
        torch.testing.assert_close(theirs, right)
    torch.testing.assert_close(rows[:, 3:-4], expected[0].flatten(1))
    assert (rows[:, :3] == -1).all()
    assert (rows[:, -4:] == -1).all()


def test_products_are_the_same_however_they_lie():
    generator = torch.Generator().manual_seed(0)
    lying = set()
    for m, n in itertools.product([1, 3, 10, 16, 31, 32, 256], repeat=2):
        a = torch.randn(2, m, 7, generator=generator, dtype=torch.float64)
        b = torch.randn(2, 7, n, generator=generator, dtype=torch.float64)
        found = layers.product(a, b)
        torch.testing.assert_close(found, a @ b)
        if m > 1 < n:
            lying.add((found.is_contiguous(), m >= VECTOR > n))
    assert lying == {(True, False), (False, False), (False, True)}  # rows shorter than a vector never
