"""Each augmentation does to a standardised image what torchvision's v2 transforms do to the image itself.

Compared here, for the same parameters: flip with RandomHorizontalFlip's kernel, shift, rotation and zoom with the
affine map of RandomAffine, brightness and contrast with those of ColorJitter, cutout with the kernel of RandomErasing,
mixup with MixUp; in tests/training/test_augment.py pixel noise with GaussianNoise, and what is drawn with what these
transforms draw. Not to be compared: a random number with the same of torchvision, as each replica has a stream of its
own; the ends of the range, which torchvision clips at and standardised images do not have; contrast of colour images,
which torchvision takes about their mean grey and the lab channel by channel; where RandomErasing puts its rectangle,
inside the image, while cutout's middle is anywhere in it (DeVries & Taylor 2017); the share of MixUp, one a batch there
and one an image here.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from lab.data import augmentation

R, B, C, H, W = 2, 3, 3, 10, 14
MEAN = torch.tensor([[0.4, 0.5, 0.3], [0.1, 0.2, 0.6]], dtype=torch.float64)[:, None, :, None, None]
STD = torch.tensor([[0.2, 0.3, 0.25], [0.5, 0.1, 0.4]], dtype=torch.float64)[:, None, :, None, None]
BLACK = -MEAN / STD


@pytest.fixture
def pixels():
    return torch.rand(R, B, C, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.6


def standardised(pixels):
    return (pixels - MEAN) / STD


def as_pixels(x):
    return x * STD + MEAN


def one_by_one(pixels, change):
    """Apply change(image, r, b) to every image."""
    return torch.stack([torch.stack([change(pixels[r, b], r, b) for b in range(B)]) for r in range(R)])


def close(got, expected):
    torch.testing.assert_close(as_pixels(got), expected, rtol=0, atol=1e-6)


def test_flip_is_torchvisions_for_the_images_it_is_asked_for(pixels):
    flipped = torch.tensor([[True, False, True], [False, True, False]])
    expected = one_by_one(pixels, lambda x, r, b: vision.horizontal_flip(x) if flipped[r, b] else x)
    close(augmentation.flip(standardised(pixels), flipped), expected)


def test_move_is_torchvisions_affine_map_with_black_from_outside(pixels):
    angle = torch.tensor([[0.0, 30.0, -75.0], [180.0, 12.0, 1.0]], dtype=torch.float64)
    scale = torch.tensor([[1.0, 1.3, 0.6], [0.9, 1.0, 2.0]], dtype=torch.float64)
    right = torch.tensor([[2.0, 0.0, -3.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    down = torch.tensor([[0.0, -1.0, 2.0], [4.0, 1.0, 0.0]], dtype=torch.float64)

    def expected(x, r, b):  # given a fill, torchvision would darken the border twice
        return vision.affine(
            x, angle=-float(angle[r, b]), translate=[float(right[r, b]), float(down[r, b])],
            scale=float(scale[r, b]), shear=[0.0, 0.0], interpolation=v2.InterpolationMode.BILINEAR, fill=None,
        )  # fmt: skip

    got = augmentation.move(standardised(pixels), BLACK, angle_RB=angle, scale_RB=scale, right_RB=right, down_RB=down)
    # torchvision rounds where pixels come from to float32
    torch.testing.assert_close(as_pixels(got), one_by_one(pixels, expected), rtol=0, atol=1e-4)


def test_a_shift_moves_whole_pixels_exactly(pixels):
    none = torch.zeros(R, B, dtype=torch.float64)
    got = augmentation.move(
        standardised(pixels), BLACK, angle_RB=none, scale_RB=none + 1, right_RB=none + 3, down_RB=none - 2
    )
    expected = torch.zeros_like(pixels)
    expected[..., : H - 2, 3:] = pixels[..., 2:, : W - 3]
    close(got, expected)


def test_brightness_is_torchvisions_where_it_clips_nothing(pixels):
    factor = torch.tensor([[1.0, 0.2, 1.5], [0.0, 1.1, 0.8]], dtype=torch.float64)
    expected = one_by_one(pixels, lambda x, r, b: vision.adjust_brightness(x, float(factor[r, b])))
    close(augmentation.brighten(standardised(pixels), BLACK, factor), expected)


def test_contrast_is_torchvisions_for_grey_images_where_it_clips_nothing(pixels):
    factor = torch.tensor([[1.0, 0.2, 0.5], [0.0, 0.9, 0.8]], dtype=torch.float64)
    grey = pixels[:, :, :1].expand_as(pixels)
    expected = one_by_one(grey, lambda x, r, b: vision.adjust_contrast(x[:1], float(factor[r, b])).expand(C, H, W))
    close(augmentation.stretch_contrast(standardised(grey), factor), expected)


def test_cutout_erases_the_square_torchvision_erases_and_leaves_the_mean(pixels):
    row, column = torch.tensor([[5, 0, 9], [4, 3, 2]]), torch.tensor([[6, 0, 13], [7, 1, 0]])
    side = torch.tensor([[4, 5, 3], [0, 1, 20]])

    def erased(x, r, b):
        k = int(side[r, b])
        top, left = int(row[r, b]) - k // 2, int(column[r, b]) - k // 2
        top_in, left_in = max(top, 0), max(left, 0)
        height, width = min(top + k, H) - top_in, min(left + k, W) - left_in
        return vision.erase(x, top_in, left_in, height, width, torch.zeros(1, dtype=x.dtype)) if k else x

    x = standardised(pixels)
    expected = one_by_one(x, erased)
    torch.testing.assert_close(
        augmentation.cut_out(x, row_RB=row, column_RB=column, side_RB=side), expected, rtol=0, atol=0
    )


def test_mixup_is_torchvisions_for_its_partner_and_share(pixels, monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape=None: torch.tensor([0.3]))
    labels = torch.tensor([[0, 1, 2], [2, 2, 1]])
    targets = torch.nn.functional.one_hot(labels, 4).double()
    before = torch.roll(torch.arange(B), 1).repeat(R, 1)  # torchvision's partner is the image before
    share = torch.full((R, B), 0.3, dtype=torch.float64)
    x, q = augmentation.mix(pixels, targets, before, share)
    for r in range(R):
        expected_x, expected_q = v2.MixUp(num_classes=4)(pixels[r], labels[r])
        torch.testing.assert_close(x[r], expected_x, rtol=0, atol=1e-6)
        torch.testing.assert_close(q[r], expected_q.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 5.0])
def test_tabulated_shares_follow_the_beta_distribution(alpha):
    table = augmentation.beta_quantiles(alpha, 4096)
    u = np.random.default_rng(0).random(20_000) * 4096
    below = u.astype(int)
    shares = table[below] + (table[below + 1] - table[below]) * (u - below)
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01
