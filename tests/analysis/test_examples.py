"""Test points one by one: against the decomposition of the whole, and with planted cases."""

import numpy as np
import pytest

from lab.analysis.decomposition import decompose
from lab.analysis.examples import TABLE, concentration, per_example, votes
from tests.analysis.test_classification import predictions


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_the_means_over_points_are_the_decomposition(missing, known):
    p, labels = predictions()
    if missing:
        p[0, 1] = p[3, 2] = np.nan
    posterior = np.random.default_rng(2).dirichlet(np.ones(5), size=len(labels)) if known else None
    table = per_example(p, labels, posterior)
    whole = decompose(p, labels, posterior_NC=posterior)
    assert list(table.columns) == TABLE
    for name in ("risk", "bias_sq", "variance"):
        assert table[name].mean() == pytest.approx(getattr(whole, name), abs=1e-9), name


def test_a_single_point_alone_gives_its_own_row():
    p, labels = predictions()
    table = per_example(p, labels)
    for n in (0, 7):
        alone = decompose(p[:, :, n : n + 1], labels[n : n + 1])
        assert table.loc[n, "bias_sq"] == pytest.approx(alone.bias_sq, abs=1e-9)
        assert table.loc[n, "variance"] == pytest.approx(alone.variance, abs=1e-9)


def test_labels_that_all_replicas_contradict_are_suspected_and_others_are_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=200)
    sure = 0.92 * np.eye(4)[labels] + 0.02
    p = np.broadcast_to(sure, (4, 3, 200, 4)).copy()
    p[:, :, 50] = [0.4, 0.3, 0.2, 0.1]  # wrong perhaps, but not sure
    p[0, :, 60] = np.roll(p[0, :, 60], 1, axis=-1)  # one training set in four sees it otherwise
    shown = labels.copy()
    shown[[3, 17]] = (shown[[3, 17]] + 1) % 4
    table = per_example(p, shown, class_names=["a", "b", "c", "d"])
    assert table[table["suspected"]]["index"].tolist() == [3, 17]
    assert table["vote"][3] == labels[3] and table["vote_name"][3] == "abcd"[labels[3]]
    assert table["agreement"][60] == pytest.approx(0.75)
    assert table["variance"].idxmax() == 60 and set(table.nlargest(2, "bias_sq")["index"]) == {3, 17}


def test_votes_are_counted_over_the_replicas_that_are_left():
    p, labels = predictions()
    p[1, 1] = np.nan
    counts = votes(p, labels, [0, 5])
    kept = p[np.isfinite(p).all(axis=(2, 3))]
    assert counts.shape == (2, 5) and (counts.sum(axis=1) == 11).all()
    assert counts[1, 2] == (kept[:, 5].argmax(axis=-1) == 2).sum()


def test_without_a_replica_there_is_no_row():
    p, labels = predictions()
    assert per_example(np.full_like(p, np.nan), labels).empty


def test_concentration_is_the_share_of_the_hardest_points():
    p, labels = predictions()
    table = per_example(p, labels).assign(risk=[10.0, *[0.0] * 118, 10.0])
    assert concentration(table) == 1 and concentration(table, 1 / 120) == 0.5
