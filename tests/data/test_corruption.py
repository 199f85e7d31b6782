"""Corruptions do what they are called, more so at each severity, and are measured like any other test set."""

import numpy as np
import pytest
import torch

from lab.data import load
from lab.data.corruption import CORRUPTIONS, corrupted
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
