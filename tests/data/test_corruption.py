"""Corruptions do what they are called, more so at each severity, and are measured like any other test set."""

import dataclasses

import numpy as np
import pytest
import torch

from lab.data import load
from lab.data.corruption import CORRUPTIONS, SEVERITIES, corrupted
from lab.knobs import CORRUPTION_KINDS, TrialConfig
from lab.spec import Replication

X = np.random.default_rng(0).random((30, 3, 32, 32)).astype(np.float32) * 0.5 + 0.25
SMOOTH = torch.nn.functional.interpolate(torch.from_numpy(X[:, :, :6, :6]), size=32, mode="bicubic").clamp(0, 1).numpy()


def test_every_kind_is_an_option_of_the_knob() -> None:
    assert CORRUPTION_KINDS == ("none", *CORRUPTIONS)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_images_are_further_from_the_clean_ones_at_each_severity(kind: str) -> None:
    distances = [float(((corrupted(SMOOTH, kind, s) - SMOOTH) ** 2).mean()) for s in range(1, 6)]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert len(set(distances)) == 5


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_results_repeat_keep_their_form_and_leave_the_images_alone(kind: str) -> None:
    before = X.copy()
    first, again = corrupted(X, kind, 3), corrupted(X, kind, 3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(X, before)
    assert (first.shape, first.dtype) == (X.shape, np.float32)
    assert 0 <= first.min() and first.max() <= 1


def test_noises_have_the_variance_of_their_law() -> None:
    grey = np.full((40, 1, 32, 32), 0.5, dtype=np.float32)
    assert corrupted(grey, "gaussian_noise", 1).std() == pytest.approx(0.08, rel=0.02)
    assert corrupted(grey, "shot_noise", 1).var() == pytest.approx(0.5 / 60, rel=0.03)
    assert (corrupted(grey, "impulse_noise", 5) != 0.5).mean() == pytest.approx(0.27, abs=0.01)


def test_blur_keeps_a_constant_and_has_the_width_asked_for() -> None:
    point = np.zeros((1, 1, 41, 41), dtype=np.float32)
    point[0, 0, 20, 20] = 1
    spread = corrupted(point, "blur", 5)[0, 0].astype(np.float64)
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    assert (spread.sum(axis=0) * (np.arange(41) - 20) ** 2).sum() ** 0.5 == pytest.approx(0.075 * 41, rel=0.02)


@pytest.mark.parametrize(("kind", "side"), [("defocus_blur", 41), ("motion_blur", 41)])
def test_defocus_is_even_in_all_directions_and_motion_goes_along_the_diagonal(kind: str, side: int) -> None:
    point = np.zeros((1, 1, side, side), dtype=np.float32)
    point[0, 0, 20, 20] = 1
    spread = corrupted(point, kind, 5)[0, 0].astype(np.float64)
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    place = np.arange(side) - 20
    across, along = ((spread * place[:, None] * place).sum(), (spread * place[:, None] ** 2).sum())
    if kind == "defocus_blur":  # a disk of radius r has the variance r² / 4 in each direction
        assert across == pytest.approx(0, abs=1e-6)
        assert along == pytest.approx((0.5 + 0.12 * side) ** 2 / 4, rel=0.05)
    else:  # an even line of length l has l² / 12 along itself, half of it in each direction; steps between pixels add
        assert across == pytest.approx((0.3 * side) ** 2 / 24, rel=0.05)
        assert along == pytest.approx(across, rel=0.02)


def test_blurs_and_fog_change_images_of_eight_pixels_too() -> None:
    small = X[:, :, :8, :8]
    for kind in ("defocus_blur", "motion_blur", "fog", "jpeg"):
        distances = [float(np.abs(corrupted(small, kind, s) - small).mean()) for s in (1, 5)]
        assert 0.003 < distances[0] < distances[1]


def test_fog_lightens_takes_contrast_away_and_is_another_on_each_image() -> None:
    black = np.zeros((3, 1, 28, 28), dtype=np.float32)
    fog = corrupted(black, "fog", 3)
    assert fog.min() == 0 and fog.max() == pytest.approx(1.2 / 2.2)
    assert not np.array_equal(fog[0], fog[1])
    step = np.diff(fog, axis=3)
    assert np.abs(step).mean() < 0.3 * fog.std()  # neighbours are alike
    behind = corrupted(SMOOTH, "fog", 3) - corrupted(np.zeros_like(SMOOTH), "fog", 3)
    np.testing.assert_allclose(behind, SMOOTH / 2.2, atol=1e-6)


def test_jpeg_is_what_pillow_reads_back_of_grey_and_colour() -> None:
    import io

    from PIL import Image

    for image in (SMOOTH[:1], SMOOTH[:1, :1], SMOOTH[:1, :2]):
        found = corrupted(image, "jpeg", 1)[0]
        pages = [image[0].transpose(1, 2, 0)] if len(image[0]) == 3 else list(image[0])
        for k, page in enumerate(pages):
            file = io.BytesIO()
            Image.fromarray(np.rint(page * 255).astype(np.uint8)).save(file, "JPEG", quality=25)
            expected = np.asarray(Image.open(file)) / 255
            np.testing.assert_allclose(
                found.transpose(1, 2, 0) if expected.ndim == 3 else found[k], expected, atol=1e-6
            )


def test_contrast_brightness_and_pixels_are_those_of_their_formulas() -> None:
    mean = X.mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(corrupted(X, "contrast", 2), mean + 0.3 * (X - mean), atol=1e-6)
    np.testing.assert_allclose(corrupted(X, "brightness", 5), np.minimum(X + 0.5, 1), atol=1e-6)
    halves = torch.nn.functional.avg_pool2d(torch.from_numpy(X), 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    np.testing.assert_allclose(corrupted(X, "pixelate", 2), halves.numpy(), atol=1e-6)


def test_the_test_set_is_predicted_under_corruption_at_the_end_of_training() -> None:
    from lab.training import fit

    dataset, plan = load("digits", seed=0, n_test=80), Replication("disjoint", 2, 2)
    config = TrialConfig(width=16, depth=1, epochs=10, n_train=100, corruption="gaussian_noise", severity=5)
    *_, last = fit(config, dataset, plan, seed=0, n_evaluations=2)
    shifted = last.probabilities_shifted["corrupted"]
    assert shifted.shape == last.probabilities_test_DINC.shape
    assert (last.metrics["corrupted_error"] > last.metrics["test_error"]).all()
    *_, plain = fit(TrialConfig(width=16, depth=1, epochs=10, n_train=100), dataset, plan, seed=0, n_evaluations=2)
    np.testing.assert_array_equal(plain.probabilities_test_DINC, last.probabilities_test_DINC)
    assert "corrupted" not in plain.probabilities_shifted


def test_severity_0_measures_all_five_at_once_each_as_by_itself() -> None:
    from lab.training import fit

    dataset, plan = load("digits", seed=0, n_test=80), Replication("disjoint", 2, 2)
    config = TrialConfig(width=16, depth=1, epochs=25, n_train=100, corruption="gaussian_noise", patience=2)
    *_, whole = fit(dataclasses.replace(config, severity=0), dataset, plan, seed=0, n_evaluations=4)
    assert set(whole.probabilities_shifted) == {f"corrupted_{s}" for s in SEVERITIES}
    risks = [whole.metrics[f"corrupted_{s}_risk"].mean() for s in SEVERITIES]
    assert risks == sorted(risks)
    assert whole.metrics["test_risk"].mean() < risks[0]
    *_, alone = fit(dataclasses.replace(config, severity=4), dataset, plan, seed=0, n_evaluations=4)
    expected = alone.probabilities_shifted["corrupted"]
    np.testing.assert_array_equal(whole.probabilities_shifted["corrupted_4"], expected)
