"""Attacks against closed forms and against a loop over single images."""

import math

import pytest
import torch
import torch.nn.functional as F

from lab.training.attacks import REACH, STEPS, attacked

R, B = 3, 5
EVERYWHERE = (torch.tensor(-math.inf), torch.tensor(math.inf))


@pytest.fixture
def images():
    return torch.rand(R, B, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.randint(0, 4, (R, B), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def networks():
    """R small networks with curvature, so that one step is not the best that can be done."""
    rng = torch.Generator().manual_seed(2)
    first = 2 * torch.randn(R, 6, 8, generator=rng, dtype=torch.float64)
    second = torch.randn(R, 8, 4, generator=rng, dtype=torch.float64)
    return lambda x: torch.tanh(x.flatten(2) @ first) @ second


def loss_of(networks, labels):
    return lambda x: F.cross_entropy(networks(x).flatten(0, 1), labels.flatten(), reduction="sum")


def gradient(loss):
    def at(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(x), x)[0]

    return at


def radii(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None, None]


@pytest.mark.parametrize("n_steps", STEPS.values(), ids=STEPS)
def test_against_a_linear_loss_every_pixel_goes_the_whole_way(images, n_steps):
    slope = torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    radius = radii(0.1, 0.2, 0.0)
    found = attacked(gradient(lambda x: (slope * x).sum()), images, radius, EVERYWHERE, n_steps=n_steps)
    torch.testing.assert_close(found, images + radius * slope.sign())


@pytest.mark.parametrize("n_steps", STEPS.values(), ids=STEPS)
def test_an_attack_stays_in_its_box_and_in_the_range_of_pixels(images, labels, networks, n_steps):
    radius, bounds = radii(0.1, 0.3, 0.5), (torch.tensor(0.0), torch.tensor(1.0))
    found = attacked(gradient(loss_of(networks, labels)), images, radius, bounds, n_steps=n_steps)
    assert ((found - images).abs() <= radius + 1e-12).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_loss_rises_and_more_steps_find_more(images, labels, networks):
    def losses(x):
        return F.cross_entropy(networks(x).flatten(0, 1), labels.flatten(), reduction="none")

    radius = radii(0.3, 0.3, 0.3)
    one, many = (
        attacked(gradient(loss_of(networks, labels)), images, radius, EVERYWHERE, n_steps=STEPS[kind]) for kind in STEPS
    )
    assert losses(one).mean() > losses(images).mean()
    assert losses(many).mean() > losses(one).mean()


def test_each_image_is_attacked_as_if_it_were_alone(images, labels, networks):
    radius = radii(0.1, 0.2, 0.4)
    found = attacked(gradient(loss_of(networks, labels)), images, radius, EVERYWHERE, n_steps=7)
    for r in range(R):
        for b in range(B):
            x = images[r, b].clone()
            for _ in range(7):
                x.requires_grad_()
                batch = images.clone()
                batch[r, b] = x
                loss = F.cross_entropy(networks(batch)[r, b], labels[r, b])
                (slope,) = torch.autograd.grad(loss, x)
                e = float(radius[r])
                moved = x.detach() + REACH * e / 7 * slope.sign()
                x = torch.maximum(torch.minimum(moved, images[r, b] + e), images[r, b] - e)
            torch.testing.assert_close(found[r, b], x)


def test_a_replica_without_a_radius_keeps_its_images_even_those_out_of_range(images, labels, networks):
    bounds = (torch.tensor(0.4), torch.tensor(0.6))
    found = attacked(gradient(loss_of(networks, labels)), images, radii(0.0, 0.1, 0.0), bounds, n_steps=7)
    assert torch.equal(found[[0, 2]], images[[0, 2]])
    assert not torch.equal(found[1], images[1])


def test_a_replica_that_is_nan_leaves_the_others_alone(images, labels, networks):
    healthy = attacked(gradient(loss_of(networks, labels)), images, radii(0.1, 0.1, 0.1), EVERYWHERE, n_steps=7)
    poisoned = images.clone()
    poisoned[1, 0] = math.nan
    found = attacked(gradient(loss_of(networks, labels)), poisoned, radii(0.1, 0.1, 0.1), EVERYWHERE, n_steps=7)
    assert torch.equal(found[[0, 2]], healthy[[0, 2]])
