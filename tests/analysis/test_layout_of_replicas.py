"""Designs beside the two-way one: a third cause, one seed or one resample, several partitions of a pool."""

import numpy as np
import pytest

from lab.analysis.decomposition import decompose

SCALE = 0.02
SHARES = {
    "resample": (0.30, (0,)), "init": (0.20, (1,)), "interaction": (0.10, (0, 1)), "label_noise": (0.15, (2,)),
    "resample_label_noise": (0.05, (0, 2)), "init_label_noise": (0.08, (1, 2)), "three_way": (0.12, (0, 1, 2)),
}  # fmt: skip


def three_way(rng, D, I, K, N=4):  # noqa: E741
    """Two-class predictions whose variance has seven components, of the shares above times 2·SCALE²."""
    z = np.zeros((D, I, K, N))
    for share, axes in SHARES.values():
        shape = [size if axis in axes else 1 for axis, size in enumerate((D, I, K))]
        z = z + np.sqrt(share) * rng.standard_normal((*shape, N))
    p = 0.5 + SCALE * z
    return np.stack([p, 1 - p], axis=-1)


@pytest.mark.parametrize("share_missing", [0.0, 0.25])
def test_label_noise_as_a_third_cause_is_told_apart_from_the_others(share_missing):
    """Mean over 700 draws against the truth; the tolerance is 4 standard errors of that mean."""
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(700):
        missing = rng.random((4, 3, 3)) < share_missing
        missing[:2, :2, :2] = False
        result = decompose(three_way(rng, 4, 3, 3), np.zeros(4, dtype=int), missing_DI=missing, level=None)
        estimates.append([getattr(result, f"variance_{name}") for name in SHARES])
    truth = 2 * SCALE**2 * np.array([share for share, _ in SHARES.values()])
    error = np.std(estimates, axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, axis=0) - truth) < 4 * error).all()
    assert (error < 0.12 * truth).all()  # the test could see half of any component


def test_three_way_components_are_the_classical_mean_squares():
    rng = np.random.default_rng(1)
    f = rng.dirichlet(np.ones(3), size=(4, 3, 5, 6))
    result = decompose(f, np.zeros(6, dtype=int))

    def mean_square(kept):
        table = f.mean(axis=tuple(a for a in range(3) if a not in kept), keepdims=True)
        for axis in kept:
            table = table - table.mean(axis=axis, keepdims=True)
        replicates = np.prod([f.shape[a] for a in range(3) if a not in kept])
        return (table**2).sum(axis=-1).mean(axis=-1).sum() * replicates / np.prod([f.shape[a] - 1 for a in kept])

    three = mean_square((0, 1, 2))
    two = {axes: mean_square(axes) for axes in ((0, 1), (0, 2), (1, 2))}
    assert result.variance_three_way == pytest.approx(three, abs=1e-13)
    assert result.variance_interaction == pytest.approx((two[0, 1] - three) / 5, abs=1e-13)
    assert result.variance_init_label_noise == pytest.approx((two[1, 2] - three) / 4, abs=1e-13)
    expected = (mean_square((2,)) - two[0, 2] - two[1, 2] + three) / (4 * 3)
    assert result.variance_label_noise == pytest.approx(expected, abs=1e-13)


def test_parts_of_three_causes_add_up_and_each_has_an_interval():
    result = decompose(three_way(np.random.default_rng(2), 5, 4, 3), np.zeros(4, dtype=int))
    assert sum(getattr(result, f"variance_{name}") for name in SHARES) == pytest.approx(result.variance, abs=1e-12)
    for name in SHARES:
        term = result.terms[f"variance_{name}"]
        assert term.lo < term.value < term.hi, name
    assert (result.n_resamples, result.n_inits, result.n_noise_draws) == (5, 4, 3)


def test_with_one_resample_the_seeds_variance_is_seen_and_the_resamples_is_not():
    rng = np.random.default_rng(3)
    f = rng.dirichlet(np.ones(3), size=(1, 6, 8))
    result = decompose(f, np.zeros(8, dtype=int))
    assert result.variance == pytest.approx(f[0].var(axis=0, ddof=1).sum(axis=-1).mean(), abs=1e-13)
    assert result.variance_init == result.variance
    assert np.isnan([result.variance_resample, result.variance_interaction]).all()
    assert result.variance_init_lo < result.variance_init < result.variance_init_hi


def test_with_one_seed_it_is_the_other_way_round():
    rng = np.random.default_rng(4)
    f = rng.dirichlet(np.ones(3), size=(6, 1, 8))
    result = decompose(f, np.zeros(8, dtype=int))
    assert result.variance_resample == result.variance
    assert np.isnan(result.variance_init)


def test_partitions_are_compared_within_and_averaged():
    rng = np.random.default_rng(5)
    f, labels = rng.dirichlet(np.ones(3), size=(6, 3, 20)), rng.integers(0, 3, 20)
    result = decompose(f, labels, partition_D=[0, 1, 0, 1, 0, 1])
    halves = [decompose(f[start::2], labels) for start in (0, 1)]
    for name in ("risk", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction"):
        expected = np.mean([getattr(half, name) for half in halves])
        assert getattr(result, name) == pytest.approx(expected, abs=1e-13), name


def test_overlap_between_partitions_would_be_taken_for_bias():
    """Two partitions that are the same training sets again: pairs across them would see too little variance."""
    rng = np.random.default_rng(6)
    draws = [three_way(rng, 3, 4, 1)[:, :, 0] for _ in range(300)]
    twice = [np.concatenate([f, f]) for f in draws]
    labels = np.zeros(4, dtype=int)
    within = [decompose(f, labels, partition_D=[0, 0, 0, 1, 1, 1], level=None).variance_resample for f in twice]
    across = [decompose(f, labels, level=None).variance_resample for f in twice]
    truth = 2 * SCALE**2 * (0.30 + 0.05)
    assert abs(np.mean(within) - truth) < 4 * np.std(within) / np.sqrt(300)
    assert np.mean(across) < truth - 4 * np.std(across) / np.sqrt(300)


def test_a_partition_repeated_leaves_the_interval_as_it_was():
    f = three_way(np.random.default_rng(7), 5, 4, 1)[:, :, 0]
    labels = np.zeros(4, dtype=int)
    once, twice = decompose(f, labels), decompose(np.concatenate([f, f]), labels, partition_D=[0] * 5 + [1] * 5)
    assert twice.risk_hi - twice.risk_lo == pytest.approx(once.risk_hi - once.risk_lo, rel=0.1)


@pytest.mark.parametrize(
    ("partition", "says"), [([0, 1], "one number for each"), ([0, 0, 0, 1], "give all the same number")]
)
def test_a_partition_that_cannot_be_is_explained(partition, says):
    f = np.full((4, 2, 3, 3), 1 / 3)
    with pytest.raises(ValueError, match=says):
        decompose(f, np.zeros(3, dtype=int), partition_D=partition)
