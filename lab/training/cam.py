"""Where in an image a convolutional network sees a class: Grad-CAM (Selvaraju et al. 2017), averaged over replicas.

The maps A of the last block are weighted by α, the mean over pixels of the slope of the class's logit, and what speaks
for the class is kept: ReLU(Σ α A), equation 2 there. For a head of mean and linear layer this is, up to a factor, the
class activation map of Zhou et al. (2016), w · A. Each replica's map is scaled to a largest value of 1 before the mean,
as logits of replicas differ in scale.

Shape suffixes: R replicas, K images, C channels, H × W pixels, h × w places of the last block's maps.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lab import models
from lab.data.transforms import to_float
from lab.knobs import TrialConfig
from lab.models import Network

FAMILIES = ("cnn", "resnet", "pretrained")  # whose last block gives maps


def maps(
    config: TrialConfig,
    weights_R: Mapping[str, NDArray[np.float32]],
    images_KCHW: NDArray,
    classes_K: NDArray[np.int64],
    *,
    rows: Sequence[int],
    n_classes: int,
) -> NDArray[np.float32] | None:
    """Return the map of each image for a class, in 0 … 1, of the images' height and width, shape (K, H, W).

    Args:
        config: Of the networks.
        weights_R: `lab.training.scores.Evaluation.weights`, with what images are standardised with.
        images_KCHW: As in a pool.
        classes_K: The class of each image that the map is about.
        rows: The replicas that count.
        n_classes: Of the data set.

    Returns:
        None for a family without maps, or if the last block's are down to one row or column: there is no place to see.
    """
    if config.family not in FAMILIES or not len(rows):
        return None
    network = models.build(config, images_KCHW.shape[1:], n_classes)
    pixels_KCHW = torch.from_numpy(to_float(images_KCHW))
    classes = torch.from_numpy(classes_K)
    total: Tensor | None = None
    for r in rows:
        own = {name: torch.from_numpy(values[r : r + 1]) for name, values in weights_R.items()}
        mean_C11, std_C11 = (own[f"input.{name}"][0, :, None, None] for name in ("mean", "std"))
        map_Khw = _map(network, own, (pixels_KCHW - mean_C11) / std_C11, classes)
        if min(map_Khw.shape[1:]) < 2:
            return None
        most_K11 = map_Khw.amax(dim=(1, 2), keepdim=True)
        scaled_Khw = map_Khw / torch.where(most_K11 > 0, most_K11, 1.0)
        total = scaled_Khw if total is None else total + scaled_Khw
    assert total is not None
    size = images_KCHW.shape[-2:]
    mean_K1HW = F.interpolate((total / len(rows))[:, None], size=size, mode="bilinear", align_corners=False)
    found: NDArray[np.float32] = mean_K1HW[:, 0].numpy()
    return found


def _map(network: Network, own: Mapping[str, Tensor], images_KCHW: Tensor, classes_K: Tensor) -> Tensor:
    """Return ReLU(Σ α A) of one replica, shape (K, h, w)."""
    with torch.no_grad():
        x = network.enter(images_KCHW[None])
        for k in range(network.n_blocks):
            x = network.block(k, x, own, own, None)
    maps_1KChw = x.detach().requires_grad_()
    logits_1KC = network.head(maps_1KChw, own)
    chosen = logits_1KC[0].gather(1, classes_K[:, None]).sum()  # no image sees another, so the sum's slopes are each's
    (slope_1KChw,) = torch.autograd.grad(chosen, maps_1KChw)
    alpha_KC11 = slope_1KChw[0].mean(dim=(2, 3), keepdim=True)
    return torch.relu((alpha_KC11 * maps_1KChw.detach()[0]).sum(dim=1))
