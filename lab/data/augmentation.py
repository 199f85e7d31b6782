"""Augmentation: what may be done to a training image without changing its class. Pure functions, batched.

Images are standardised with the statistics of a training set, so that 0 is its mean; `black_R1C11` is where the pixel
value 0 lies then. What moves in from outside an image is black, and brightness is the distance from black. Nothing is
clipped: a network sees standardised values, which have no natural ends.

Shape suffixes: R replicas, B batch, C channels, H height, W width; K classes, as C is taken.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def flip(x_RBCHW: Tensor, flipped_RB: Tensor) -> Tensor:
    """Return images with left and right exchanged where `flipped_RB` is true."""
    return torch.where(flipped_RB[:, :, None, None, None], x_RBCHW.flip(-1), x_RBCHW)


def move(
    x_RBCHW: Tensor, black_R1C11: Tensor, *, angle_RB: Tensor, scale_RB: Tensor, right_RB: Tensor, down_RB: Tensor
) -> Tensor:
    """Return images turned and scaled about their centre, then shifted; bilinear, black from outside.

    Args:
        x_RBCHW: Images.
        black_R1C11: Black of each replica and channel.
        angle_RB: Degrees, counter-clockwise as torchvision's `rotate` (`affine` turns the other way).
        scale_RB: Above 1 enlarges.
        right_RB: Pixels to the right.
        down_RB: Pixels downwards.
    """
    height, width = x_RBCHW.shape[-2:]
    radians = torch.deg2rad(angle_RB)
    cos, sin = torch.cos(radians) / scale_RB, torch.sin(radians) / scale_RB
    # where each pixel comes from, in grid_sample's units: an image reaches from −1 to 1 in both directions
    right, down = 2 * right_RB / width, 2 * down_RB / height
    aspect = height / width
    rows = [
        torch.stack([cos, -sin * aspect, -cos * right + sin * aspect * down], dim=-1),
        torch.stack([sin / aspect, cos, -sin / aspect * right - cos * down], dim=-1),
    ]
    theta = torch.stack(rows, dim=-2).flatten(0, 1)
    grid = F.affine_grid(theta, [len(theta), 1, height, width], align_corners=False)
    above_black = (x_RBCHW - black_R1C11).flatten(0, 1)  # outside, grid_sample sees 0
    moved = F.grid_sample(above_black, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.view_as(x_RBCHW) + black_R1C11


def brighten(x_RBCHW: Tensor, black_R1C11: Tensor, factor_RB: Tensor) -> Tensor:
    """Return images whose pixel values are multiplied by a factor each."""
    return torch.lerp(black_R1C11.expand_as(x_RBCHW), x_RBCHW, factor_RB[:, :, None, None, None])


def stretch_contrast(x_RBCHW: Tensor, factor_RB: Tensor) -> Tensor:
    """Return images whose distances from their own mean, channel by channel, are multiplied by a factor each."""
    mean = x_RBCHW.mean(dim=(-2, -1), keepdim=True)
    return torch.lerp(mean.expand_as(x_RBCHW), x_RBCHW, factor_RB[:, :, None, None, None])


def cut_out(x_RBCHW: Tensor, *, row_RB: Tensor, column_RB: Tensor, side_RB: Tensor) -> Tensor:
    """Return images with a square set to 0, the mean (DeVries & Taylor 2017); at the border, part of it is outside.

    Args:
        x_RBCHW: Images.
        row_RB: The middle row of the square (of an even side, the one below the middle).
        column_RB: Its middle column.
        side_RB: Its side in pixels; 0 cuts nothing out.
    """
    inside = []
    for middle_RB, n in ((row_RB, x_RBCHW.shape[-2]), (column_RB, x_RBCHW.shape[-1])):
        first_RB1 = (middle_RB - side_RB // 2)[..., None]
        index_n = torch.arange(n, device=x_RBCHW.device)
        inside.append((index_n >= first_RB1) & (index_n < first_RB1 + side_RB[..., None]))
    mask_RBHW = inside[0][..., :, None] & inside[1][..., None, :]
    return x_RBCHW.masked_fill(mask_RBHW[:, :, None], 0.0)


def mix(x_RBCHW: Tensor, q_RBK: Tensor, partner_RB: Tensor, share_RB: Tensor) -> tuple[Tensor, Tensor]:
    """Return mixtures of each image with another of its batch, and of their target distributions (Zhang et al. 2018).

    Args:
        x_RBCHW: Images.
        q_RBK: Their targets.
        partner_RB: Which image of the batch comes in.
        share_RB: The share λ of the image itself.
    """
    rows_R1 = torch.arange(len(x_RBCHW), device=x_RBCHW.device)[:, None]
    mixed_x = torch.lerp(x_RBCHW[rows_R1, partner_RB], x_RBCHW, share_RB[:, :, None, None, None])
    return mixed_x, torch.lerp(q_RBK[rows_R1, partner_RB], q_RBK, share_RB[:, :, None])


def beta_quantiles(alpha: float, n: int) -> np.ndarray:
    """Return the quantiles of Beta(α, α) at n + 1 evenly spaced probabilities from 0 to 1; λ of mixup by inversion."""
    from scipy import stats

    return np.asarray(stats.beta.ppf(np.linspace(0, 1, n + 1), alpha, alpha))
