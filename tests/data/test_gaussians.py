"""The generator's posterior is the true one: by a second formula, and by counting in many draws."""

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal

from lab.data import load
from lab.data.gaussians import N_CLASSES, SIGMA, draw, posterior, prototypes

N = 40_000


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return draw(N, np.random.default_rng(11))


def test_the_posterior_is_that_of_bayes_rule_with_scipys_densities(many) -> None:
    images = many[0][:200]
    means = prototypes().reshape(N_CLASSES, 64)
    log_density = np.stack(
        [multivariate_normal(mean, SIGMA**2 * np.eye(64)).logpdf(images.reshape(200, 64)) for mean in means], axis=1
    )
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    np.testing.assert_allclose(posterior(images), density / density.sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-12)


def test_among_examples_with_posterior_p_of_a_class_a_share_p_belongs_to_it(many) -> None:
    _, labels, probabilities = many
    hit = (np.arange(N_CLASSES) == labels[:, None]).ravel()
    p = probabilities.ravel()
    for low, high in zip(np.linspace(0, 0.9, 10), np.linspace(0.1, 1, 10), strict=True):
        inside = (p > low) & (p <= high)
        se = np.sqrt((p[inside] * (1 - p[inside])).sum()) / inside.sum()
        assert abs(hit[inside].mean() - p[inside].mean()) < 4 * se, (low, high)


def test_the_bayes_error_and_noise_are_what_the_module_says(many) -> None:
    images, labels, probabilities = many
    # the Bayes rule here is the nearest prototype, which needs no posterior
    distances = [((images[:, 0] - mean) ** 2).sum(axis=(1, 2)) for mean in prototypes()]
    error = (np.argmin(distances, axis=0) != labels).mean()
    se = np.sqrt(error * (1 - error) / N)
    assert error == pytest.approx(1 - probabilities.max(axis=1).mean(), abs=4 * se)
    assert error == pytest.approx(0.122, abs=4 * se)
    # E‖e_y − π‖² over labels against 1 − Σπ²
    brier = ((np.eye(N_CLASSES)[labels] - probabilities) ** 2).sum(axis=1)
    assert brier.mean() == pytest.approx(0.179, abs=4 * brier.std() / np.sqrt(N))
    noise = 1 - (probabilities**2).sum(axis=1)
    assert brier.mean() == pytest.approx(noise.mean(), abs=4 * brier.std() / np.sqrt(N))


def test_pixels_are_normal_around_the_prototypes_and_classes_equally_likely(many) -> None:
    images, labels, _ = many
    residuals = (images - prototypes()[labels][:, None]).ravel()[:: 64 * 3 + 1] / SIGMA
    assert kstest(residuals, "norm").pvalue > 1e-3
    noise = (images - prototypes()[labels][:, None]).reshape(N, 64) / SIGMA
    assert np.abs(noise.T @ noise / N - np.eye(64)).max() < 6 / np.sqrt(N) * np.sqrt(2)
    expected = N / N_CLASSES
    assert np.abs(np.bincount(labels) - expected).max() < 4.5 * np.sqrt(expected)


def test_prototypes_are_smooth_images_between_0_and_1() -> None:
    means = prototypes()
    assert means.shape == (10, 8, 8)
    assert means.min() >= 0
    assert 0.9 < means.max() <= 1
    assert np.abs(np.diff(means, axis=1)).max() < 0.5


@pytest.mark.parametrize("m", [0, 1, 37, 100])
def test_the_first_examples_do_not_depend_on_how_many_are_drawn(m: int) -> None:
    dataset = load("gaussians", seed=0)
    assert dataset.draw is not None
    few, more = dataset.draw(m, np.random.default_rng(3)), dataset.draw(100, np.random.default_rng(3))
    np.testing.assert_array_equal(few.images, more.images[:m])
    np.testing.assert_array_equal(few.labels, more.labels[:m])
    np.testing.assert_array_equal(few.posterior, more.posterior[:m])


def test_a_draw_shares_nothing_with_the_parts_of_the_data_set() -> None:
    dataset = load("gaussians", seed=0)
    assert dataset.draw is not None
    drawn = {image.tobytes() for image in dataset.draw(500, np.random.default_rng(3)).images}
    for part in (dataset.pool, dataset.validation, dataset.test):
        assert not drawn & {image.tobytes() for image in part.images}
