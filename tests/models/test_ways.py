"""Every way to compute the convolutions of several networks gives what torch gives for each network by itself."""

import math

import pytest
import torch
import torch.nn.functional as F

from lab.models import ways
from tests.emulated_gpu import emulated_gpu

R, B = 3, 2


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(ways, "_chosen", {})


@pytest.mark.parametrize("way", ways.WAYS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_those_of_each_network_alone(way, stride, kernel, has_bias):
    rng = torch.Generator().manual_seed(kernel)

    def drawn(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()

    x, weight = drawn(R, B, 2, 7, 6), drawn(R, 4, 2, kernel, kernel)
    bias = drawn(R, 4) if has_bias else None
    inputs = [value for value in (x, weight, bias) if value is not None]
    y = way(x, weight, bias, stride)
    alone = torch.stack([
        F.conv2d(x[r], weight[r], None if bias is None else bias[r], stride=stride, padding=kernel // 2)
        for r in range(R)
    ])  # fmt: skip
    torch.testing.assert_close(y, alone)
    towards = drawn(*y.shape).detach()
    for found, expected in zip(*(torch.autograd.grad(z, inputs, towards) for z in (y, alone)), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [((1.0, 0.7), ways.by_products), ((1.0, 0.9), ways.grouped), ((0.7, 1.0), ways.grouped),
     ((math.inf, 1.0), ways.by_products)],
)  # fmt: skip
def test_another_way_is_taken_if_it_is_clearly_faster_and_each_shape_is_measured_once(monkeypatch, seconds, expected):
    measured = []

    def asked(way, x, weight, stride):
        measured.append(way)
        return seconds[ways.WAYS.index(way)]

    monkeypatch.setattr(ways, "_seconds", asked)
    x, weight = torch.zeros(R, B, 2, 6, 6), torch.zeros(R, 4, 2, 3, 3)
    for n_replicas in (R, 2):
        assert ways.fastest(x[:n_replicas], weight[:n_replicas], 1) is expected
    assert measured == list(ways.WAYS)
    ways.fastest(x, weight, 2)
    assert len(measured) == 2 * len(ways.WAYS)


def test_a_way_that_does_not_fit_into_the_memory_is_not_taken(monkeypatch):
    x, weight = torch.ones(R, B, 2, 6, 6), torch.ones(R, 4, 2, 3, 3)
    with emulated_gpu(monkeypatch) as gpu:
        there = x.to("cuda"), weight.to("cuda")
        assert all(0 < ways._seconds(way, *there, 1) < math.inf for way in ways.WAYS)
        gpu.most = 9 * x.numel() - 1  # patches have nine times the values
        assert ways._seconds(ways.by_products, *there, 1) == math.inf
        assert ways.fastest(*there, 1) is ways.grouped


def test_a_shape_that_fits_in_no_way_is_measured_again_with_fewer_replicas(monkeypatch):
    x, weight = torch.ones(R, B, 2, 6, 6), torch.ones(R, 4, 2, 3, 3)
    with emulated_gpu(monkeypatch) as gpu:
        there = x.to("cuda"), weight.to("cuda")
        gpu.most = x.numel()  # the outputs of R networks have twice the values, those of one fit
        assert ways.fastest(*there, 1) is ways.grouped
        assert not ways._chosen
        assert ways.fastest(*(value[:1] for value in there), 1) is ways.grouped
        assert len(ways._chosen) == 1


def test_nothing_is_measured_in_the_capture_of_a_graph(monkeypatch):
    x, weight = torch.ones(R, B, 2, 6, 6), torch.ones(R, 4, 2, 3, 3)
    with emulated_gpu(monkeypatch) as gpu:
        there = x.to("cuda"), weight.to("cuda")
        with gpu.capturing(torch.cuda.CUDAGraph()):
            assert ways.fastest(*there, 1) is ways.grouped
        assert not ways._chosen
