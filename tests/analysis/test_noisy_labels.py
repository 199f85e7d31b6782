"""The variance from redrawn labels is the sum of the terms that their draws have a part in."""

import math

import numpy as np
import pytest

from lab.analysis.decomposition import decompose
from lab.analysis.noisy_labels import COLUMNS, TERMS, noisy_labels
from tests.analysis.histories import run, trials


def noisy(share, width, value, *, number, val_risk=0.3, draws=3):
    row = run(0.2, 0.4, phase="explore", number=number, label_noise=share, n_noise_draws=draws)
    row |= {"width": width, "val_risk": val_risk}
    for k, term in enumerate(TERMS):
        row |= {term: value * k, f"{term}_lo": value * k - 0.01, f"{term}_hi": value * k + 0.02}
    return row


def test_the_terms_are_added_up_and_their_half_widths_too():
    table = noisy_labels(trials(noisy(0.4, 64, 0.05, number=1), noisy(0.1, 64, 0.01, number=0)))
    assert table["label_noise"].tolist() == [0.1, 0.4]
    last = table.iloc[-1]
    assert last["variance_of_labels"] == pytest.approx(0.05 * (0 + 1 + 2 + 3))
    assert last["variance_of_labels_lo"] == pytest.approx(0.3 - 0.04)
    assert last["variance_of_labels_hi"] == pytest.approx(0.3 + 0.08)
    assert last["share"] == pytest.approx(0.3 / 0.4)
    assert list(table) == COLUMNS


def test_what_rounding_leaves_of_nothing_is_nothing():
    row = noisy(0.0, 64, 1e-17, number=0)
    row |= {f"{term}{end}": -1e-17 for term in TERMS for end in ("_lo", "_hi")}
    first = noisy_labels(trials(row, noisy(0.4, 64, 0.05, number=1))).iloc[0]
    assert first["variance_of_labels"] == first["variance_of_labels_lo"] == first["share"] == 0.0


def test_of_several_trials_at_a_share_and_width_the_one_with_the_lowest_validation_risk_speaks():
    rows = [noisy(0.1, 16, 0.01, number=0), noisy(0.1, 64, 0.01, number=1, val_risk=0.4),
            noisy(0.1, 64, 0.02, number=2, val_risk=0.2), noisy(0.4, 64, 0.05, number=3)]  # fmt: skip
    assert noisy_labels(trials(*rows))["number"].tolist() == [0, 2, 3]


def test_where_no_noise_is_redrawn_or_its_share_does_not_vary_there_is_no_table():
    once = [noisy(share, 64, 0.01, number=k, draws=1) for k, share in enumerate((0.1, 0.4))]
    same = [noisy(0.1, width, 0.01, number=k) for k, width in enumerate((16, 64))]
    assert noisy_labels(trials(*once)).empty and noisy_labels(trials(*same)).empty
    assert noisy_labels(trials(run(0.1, 0.1, phase="explore"))).empty


def test_the_sum_is_the_mean_variance_over_draws_at_a_fixed_training_set_and_seed():
    """Computed a second way: the mean over (d, i) of the unbiased variance over the draws k."""
    rng = np.random.default_rng(0)
    D, I, K, N, C = 4, 3, 3, 50, 3  # noqa: E741 - the letters of the shape legend
    logits = rng.normal(size=(D, I, K, N, C)) + 2 * rng.normal(size=(D, 1, K, N, C)) + rng.normal(size=(1, 1, K, N, C))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    terms = decompose(p, rng.integers(0, C, N)).terms
    total = sum(terms[term].value for term in TERMS)
    expected = p.var(axis=2, ddof=1).sum(-1).mean()
    assert math.isclose(total, expected, rel_tol=1e-9)
