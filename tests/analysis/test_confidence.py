"""Areas, ROC curves and reliability: against scikit-learn on each replica, and how often the intervals cover."""

import numpy as np
import pytest
from sklearn import metrics

from lab.analysis.confidence import AUC, GRID, RELIABILITY, ROC, areas, reliability, roc
from tests.analysis.test_classification import predictions


def kept(p):
    return p[np.isfinite(p).all(axis=(2, 3))].astype(np.float64)


@pytest.mark.parametrize("decimals", [None, 1])  # rounded to one digit, many scores tie
def test_an_area_is_the_mean_of_scikit_learns_over_replicas(decimals):
    p, labels = predictions()
    p[2, 1] = np.nan
    p = p if decimals is None else np.round(p, decimals)
    table = areas(p, labels, class_names=list("abcde"))
    assert list(table.columns) == AUC and (table["n_replicas"] == 11).all()
    for c in range(5):
        expected = np.mean([metrics.roc_auc_score(labels == c, q[:, c]) for q in kept(p)])
        assert table["auc"][c] == pytest.approx(expected, abs=1e-12)
        assert table["auc_lo"][c] < expected < table["auc_hi"][c] <= 1
        assert table["support"][c] == (labels == c).sum()


def test_a_curve_is_the_mean_of_scikit_learns_over_replicas():
    p, labels = predictions()
    table = roc(p, labels)
    assert list(table.columns) == ROC
    for c in (0, 4):
        curves = []
        for q in kept(p):
            fpr, tpr, _ = metrics.roc_curve(labels == c, q[:, c], drop_intermediate=False)
            curves.append(np.interp(GRID[1:], fpr, tpr))
        found = table[table["class"] == c]
        np.testing.assert_allclose(found["tpr"][1:], np.mean(curves, axis=0), atol=1e-12)
        assert found["tpr"].is_monotonic_increasing and found["tpr"].iloc[-1] == 1


def test_the_true_positive_rate_at_no_false_positive_is_what_stands_above_every_other_point():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])[None, None]
    table = roc(p, np.array([0, 0, 0, 1]))
    assert table[table["class"] == 0]["tpr"].iloc[0] == pytest.approx(2 / 3)


def test_a_class_without_a_test_point_has_no_area_and_no_curve():
    p, labels = predictions(labels=np.random.default_rng(5).choice([0, 1, 2, 4], size=120))
    assert np.isnan(areas(p, labels)["auc"][3])
    assert set(roc(p, labels)["class"]) == {0, 1, 2, 4}
    nothing = np.full_like(p, np.nan)
    assert areas(nothing, labels)["auc"].isna().all() and roc(nothing, labels).empty
    assert reliability(nothing, labels).empty


def test_the_interval_of_an_area_covers_the_area_of_many_replicas_and_points():
    def draw(seed, n_resamples, n_inits, n_test):
        return predictions(n_resamples, n_inits, n_test, seed=seed, spread=0.7)

    truth = np.mean([areas(*draw(900 + k, 10, 10, 400))["auc"].mean() for k in range(8)])
    hits = []
    for seed in range(60):
        table = areas(*draw(seed, 6, 3, 150))
        hits += ((table["auc_lo"] <= truth) & (truth <= table["auc_hi"])).tolist()
    assert np.mean(hits) > 0.88  # of 300 intervals, five of each draw


def test_reliability_is_what_a_loop_over_predictions_counts():
    p, labels = predictions()
    p[0, 0] = np.nan
    table = reliability(p, labels, n_bins=10)
    assert list(table.columns) == RELIABILITY
    tally = {}
    for q in kept(p):
        for row, label in zip(q, labels, strict=True):
            b = min(int(np.ceil(row.max() * 10)) - 1, 9)
            tally.setdefault(b, []).append((row.max(), row.argmax() == label))
    assert table["bin"].tolist() == sorted(tally)
    for row in table.itertuples():
        confidences, right = zip(*tally[row.bin], strict=True)
        assert row.n_predictions == len(right)
        assert row.confidence == pytest.approx(np.mean(confidences)) and row.accuracy == pytest.approx(np.mean(right))
        assert row.accuracy_lo <= row.accuracy <= row.accuracy_hi
    assert table["share"].sum() == pytest.approx(1)


def test_predictions_that_can_be_taken_at_their_word_lie_on_the_diagonal():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(30):
        q = rng.dirichlet(np.full(4, 0.7), size=400)
        labels = (q.cumsum(axis=1) > rng.random((400, 1))).argmax(axis=1)
        table = reliability(np.broadcast_to(q, (4, 2, 400, 4)).copy(), labels, n_bins=8)
        table = table[table["n_predictions"] >= 8 * 15]
        covered += (
            (table["accuracy_lo"] <= table["confidence"]) & (table["confidence"] <= table["accuracy_hi"])
        ).tolist()
    assert np.mean(covered) > 0.88
