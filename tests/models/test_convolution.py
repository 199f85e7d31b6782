"""Convolutions of packs are those of each network, in both directions, however they are computed."""

import pytest
import torch
import torch.nn.functional as F

from lab.models import convolution as convolutions
from lab.models.convolution import convolution, pooled_convolution
from lab.models.layers import pool
from lab.models.layout import channels_last, side_by_side

SHAPES = [(3, 5, 2, 7, 6), (1, 4, 1, 9, 9), (2, 3, 8, 4, 4), (2, 4, 3, 2, 2), (3, 1, 2, 5, 4), (2, 3, 2, 1, 1)]


def values(shape, n_out=5, kernel=3):
    """Return maps (R, B, C, H, W), kernels and a bias."""
    generator = torch.Generator().manual_seed(0)
    R, _, C = shape[:3]
    shapes = (shape, (R, n_out, C, kernel, kernel), (R, n_out))
    return [torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in shapes]


def alone(x, weight, bias, stride, pools):
    """Return what torch makes of each replica."""
    found = [
        F.conv2d(x[r], weight[r], None if bias is None else bias[r], stride=stride, padding=weight.shape[-1] // 2)
        for r in range(len(x))
    ]
    return torch.stack([F.max_pool2d(y, 2) if pools and min(y.shape[2:]) > 1 else y for y in found])


def assert_alike(y_BE, expected, ins):
    torch.testing.assert_close(y_BE, side_by_side(expected))
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad(y_BE, ins, side_by_side(channels_last(slope)))
    for found, wanted in zip(ours, torch.autograd.grad(expected, ins, slope), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_convolutions_of_folded_maps_are_those_of_each_network(shape, kernel, stride, has_bias):
    x, weight, bias = values(shape, kernel=kernel)
    ins = [x, weight, bias] if has_bias else [x, weight]
    y_BE = convolution(side_by_side(channels_last(x)), weight, bias if has_bias else None, stride=stride)
    assert_alike(y_BE, alone(x, weight, bias if has_bias else None, stride, False), ins)


@pytest.mark.parametrize("piece_values", [1, 2**9, 2**20])
@pytest.mark.parametrize("shape", SHAPES)
def test_so_are_those_that_are_pooled_in_pieces(monkeypatch, shape, piece_values):
    monkeypatch.setattr(convolutions, "PIECE_VALUES", piece_values)
    x, weight, bias = values(shape)
    x_BE = side_by_side(channels_last(x))
    y_BE = pooled_convolution(x_BE, weight, bias)
    assert_alike(y_BE, alone(x, weight, bias, 1, True), [x, weight, bias])
    with torch.no_grad():
        assert torch.equal(pooled_convolution(x_BE, weight, bias), y_BE)


def test_what_is_frozen_has_no_gradient_and_what_goes_in_has_one():
    x, weight, bias = values(SHAPES[0])
    y_BE = pooled_convolution(side_by_side(channels_last(x)), weight.detach(), bias.detach())
    assert_alike(y_BE, alone(x, weight, bias, 1, True), [x])


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (2, 3)])
def test_largest_values_are_the_same_without_a_gradient(size):
    x = torch.randn(3, 2, 4, *size)
    x[0, 0, 0, 0, 0] = torch.nan
    with torch.no_grad():
        found = pool("max", x)
    torch.testing.assert_close(found, pool("max", x.requires_grad_()), equal_nan=True, rtol=0, atol=0)


def test_maps_that_are_pooled_are_never_there_as_a_whole(monkeypatch):
    sizes = []

    def noted(x_BE, *arguments, **options):
        sizes.append(x_BE.numel())
        return pool_of_torch(x_BE, *arguments, **options)

    pool_of_torch = convolutions.F.max_pool2d
    monkeypatch.setattr(convolutions.F, "max_pool2d", noted)
    monkeypatch.setattr(convolutions, "PIECE_VALUES", 4 * 6 * 8 * 8)
    x = torch.randn(10, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(3, 2, 1, 3, 3, requires_grad=True), torch.randn(3, 2)
    pooled_convolution(x, weight, bias)
    assert sizes == [4 * 6 * 8 * 8, 4 * 6 * 8 * 8, 2 * 6 * 8 * 8]
