"""Standardisation with the statistics of one training set."""

import numpy as np
import pytest

from lab.data.transforms import STD_FLOOR, standardisation, to_float


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_standardised_images_have_mean_0_and_deviation_1_in_each_channel(kind: type) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 100, size=(50, 3, 6, 7)) + np.array([0, 50, 150])[:, None, None]
    images = grey.astype(np.uint8) if kind is np.uint8 else (grey / 255).astype(np.float32)
    mean, std = standardisation(images)
    assert mean.shape == std.shape == (3,)
    assert mean.dtype == std.dtype == np.float32
    result = (to_float(images) - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(result.mean(axis=(0, 2, 3), dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=(0, 2, 3), dtype=np.float64), 1, atol=1e-5)


def test_uint8_and_float_images_of_the_same_greys_have_the_same_statistics() -> None:
    images = np.random.default_rng(1).integers(0, 256, size=(20, 2, 5, 5), dtype=np.uint8)
    for got, expected in zip(standardisation(images), standardisation(to_float(images)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_statistics_are_those_of_numpy_over_the_channel() -> None:
    images = np.random.default_rng(2).normal(0.3, 2.0, size=(20, 2, 5, 5)).astype(np.float32)
    mean, std = standardisation(images)
    for channel in range(2):
        values = [float(value) for value in images[:, channel].ravel()]
        assert mean[channel] == pytest.approx(np.mean(values), rel=1e-6)
        assert std[channel] == pytest.approx(np.std(values), rel=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_constant_channel_becomes_zero_and_not_infinite(kind: type) -> None:
    images = np.full((4, 1, 3, 3), 0.3 * (255 if kind is np.uint8 else 1)).astype(kind)
    mean, std = standardisation(images)
    assert std[0] == np.float32(STD_FLOOR)
    np.testing.assert_allclose((to_float(images) - mean) / std, 0, atol=1e-4)


def test_uint8_is_divided_by_255_and_float32_stays() -> None:
    images = np.array([0, 51, 255], dtype=np.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(to_float(images).ravel(), [0, 0.2, 1], rtol=1e-6)
    assert to_float(images).dtype == np.float32
    floats = to_float(images)
    assert to_float(floats) is floats


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        to_float(np.zeros((1, 1, 2, 2)))
