"""Adversarial examples: images moved, within a small box around each, to where a network's loss is larger.

Each replica is attacked by the gradient of its own loss, with a radius of its own. The attack sees the network as it
predicts (running statistics, no dropout) and starts at the image itself, so it draws no random numbers.

Shape suffixes: R replicas, B batch; images are CHW.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from lab.training.losses import cross_entropy_gradient
from lab.training.pack import Pack, View

# steps: fgsm is one step of the whole radius (Goodfellow et al. 2015), pgd is projected gradient ascent
# (Madry et al. 2018, 7 steps in training)
STEPS = {"fgsm": 1, "pgd": 7}
REACH = 2.5  # pgd steps are this many times radius / steps long, so that it can cross the box (Madry et al. 2018)


def attacked(
    gradient_at: Callable[[Tensor], Tensor],
    images_RBCHW: Tensor,
    radius: Tensor,
    bounds: tuple[Tensor, Tensor],
    *,
    n_steps: int,
) -> Tensor:
    """Return the images, each pixel moved by its radius at the most, where the loss is larger.

    Args:
        gradient_at: Images → the gradient of their losses, each of its own image alone, with respect to them.
        images_RBCHW: Where the attack starts.
        radius: Largest change of a pixel, broadcast to the images (0 leaves a replica's images as they are).
        bounds: Smallest and largest pixel value there is, broadcast likewise.
        n_steps: Gradient steps, see `STEPS`.
    """
    low = torch.maximum(images_RBCHW - radius, torch.minimum(images_RBCHW, bounds[0]))
    high = torch.minimum(images_RBCHW + radius, torch.maximum(images_RBCHW, bounds[1]))
    stride = radius if n_steps == 1 else radius * (REACH / n_steps)
    x = images_RBCHW
    for _ in range(n_steps):
        x = torch.clamp(x + stride * gradient_at(x).sign(), low, high)
    return x


class Attack:
    """Attacks on the replicas of a pack, each within its own box."""

    def __init__(self, kind: str, box: tuple[Tensor, Tensor, Tensor]) -> None:
        """Take the kind, one of `STEPS`, and radius, smallest and largest pixel of each replica, (R, 1, C, 1, 1)."""
        self._n_steps = STEPS[kind]
        self._box = box

    def keep(self, rows_S: Tensor) -> None:
        """Go on with these replicas alone."""
        radius, low, high = (end.index_select(0, rows_S) for end in self._box)
        self._box = (radius, low, high)

    def view(self, rows: slice) -> "Attack":
        """Return the same attack on some of the replicas."""
        view = copy.copy(self)
        radius, low, high = (end[rows] for end in self._box)
        view._box = (radius, low, high)
        return view

    def __call__(self, pack: Pack | View, images_RBCHW: Tensor, targets: Tensor) -> Tensor:
        """Return the images, moved to where the cross-entropy of the pack's replicas is larger."""
        weights = {name: weight.detach() for name, weight in pack.weights.items()}  # only images have a gradient here

        def gradient_at(images: Tensor) -> Tensor:
            with torch.enable_grad():
                images = images.detach().requires_grad_()
                logits_RBC = pack.network.forward(weights, pack.buffers, images, None)
                (gradient,) = torch.autograd.grad(logits_RBC, images, cross_entropy_gradient(logits_RBC, targets))
            return gradient

        radius, *bounds = self._box
        return attacked(gradient_at, images_RBCHW, radius, (bounds[0], bounds[1]), n_steps=self._n_steps)
