"""The teacher's posterior is what labels are drawn from, and it is the same for everyone."""

import numpy as np
import pytest
import torch
from scipy import stats

from lab.data import digits, load, teacher


def test_bayes_error_and_noise_are_as_documented() -> None:
    true = digits.examples()
    posterior_NC = teacher.posterior(true.images, true.labels, 10, temperature=1.5)
    assert 1 - posterior_NC.max(axis=1).mean() == pytest.approx(0.114, abs=5e-4)
    assert 1 - (posterior_NC**2).sum(axis=1).mean() == pytest.approx(0.192, abs=5e-4)


def test_the_posterior_is_the_softmax_of_a_network_that_learned_the_true_labels() -> None:
    true = digits.examples()
    posterior_NC = teacher.posterior(true.images, true.labels, 10, temperature=1.5)
    assert (posterior_NC.argmax(axis=1) == true.labels).mean() > 0.99
    # at another temperature, the same logits: their differences scale
    cold_NC = teacher.posterior(true.images, true.labels, 10, temperature=0.75)
    warm_NC, cold_NC = (np.log(p / p[:, :1]) for p in (posterior_NC, cold_NC))
    np.testing.assert_allclose(cold_NC, 2 * warm_NC, rtol=0, atol=1e-9)


def test_labels_are_drawn_from_the_posterior() -> None:
    """Of the images whose label has the probability q, a share q has it: a calibration that has to be perfect."""
    dataset = load("teacher", seed=5)
    posterior_NC, labels_N = dataset.pool.posterior, dataset.pool.labels
    assert posterior_NC is not None
    right = np.zeros(10), np.zeros(10)
    for q, drawn in zip(posterior_NC.ravel(), np.eye(10)[labels_N].ravel(), strict=True):
        decile = min(int(10 * q), 9)
        right[0][decile] += drawn - q
        right[1][decile] += q * (1 - q)
    z = right[0] / np.sqrt(right[1])
    assert np.abs(z).max() < stats.norm.ppf(1 - 0.0005 / 10)


def test_the_teacher_does_not_depend_on_the_seed_of_the_study_and_the_labels_do() -> None:
    first, second = (load("teacher", seed=seed) for seed in (0, 1))
    known = {image.tobytes(): row for image, row in zip(first.pool.images, first.pool.posterior, strict=True)}
    both = [(known[i.tobytes()], row) for i, row in zip(second.pool.images, second.pool.posterior, strict=True)
            if i.tobytes() in known]  # fmt: skip
    assert len(both) > 100
    for expected, got in both:
        np.testing.assert_array_equal(expected, got)
    labels = {image.tobytes(): label for image, label in zip(first.pool.images, first.pool.labels, strict=True)}
    other = [(labels[i.tobytes()], y) for i, y in zip(second.pool.images, second.pool.labels, strict=True)
             if i.tobytes() in labels]  # fmt: skip
    assert 0.1 < np.mean([a != b for a, b in other]) < 0.3  # two draws differ with probability 1 − Σπ² = 0.19


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_posterior_does_not_depend_on_the_number_of_threads(n_threads: int) -> None:
    true, before = digits.examples(), torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads)
        posterior_NC = teacher.posterior(true.images, true.labels, 10, temperature=1.5)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(posterior_NC, teacher.posterior(true.images, true.labels, 10, temperature=1.5))
