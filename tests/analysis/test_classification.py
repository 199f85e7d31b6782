"""Classification scores: against scikit-learn on each replica, and what the intervals cover."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from lab.analysis.classification import PER_CLASS, SUMMARY, _influences, confusion, per_class, plain, prepare, summary


def predictions(n_resamples=4, n_inits=3, n_test=120, n_classes=5, *, seed=0, test_seed=None, spread=1.0, labels=None):
    rng = np.random.default_rng(seed)
    points = np.random.default_rng(seed + 7 if test_seed is None else test_seed)
    labels = points.integers(n_classes, size=n_test) if labels is None else labels
    logits = 1.5 * np.eye(n_classes)[labels] + points.standard_normal((n_test, n_classes))
    shape = (n_test, n_classes)
    # a replica leans towards some classes, as its training set and its seed have it
    logits = logits + spread * (
        rng.standard_normal((n_resamples, 1, 1, n_classes))
        + 0.5 * rng.standard_normal((1, n_inits, 1, n_classes))
        + 0.5 * rng.standard_normal((n_resamples, n_inits, *shape))
    )
    p = np.exp(logits)
    return (p / p.sum(axis=-1, keepdims=True)).astype(np.float32), labels


@pytest.fixture(params=["plain", "a class is never predicted", "a class is absent", "diverged"])
def case(request):
    p, labels = predictions()
    if request.param == "a class is never predicted":
        p[0, 0, :, 2] = 0.0
        p[0, 0] /= p[0, 0].sum(axis=-1, keepdims=True)
    if request.param == "a class is absent":
        p, labels = predictions(labels=np.random.default_rng(5).choice([0, 1, 2, 4], size=120))
    if request.param == "diverged":
        p[1, 2] = np.nan
        p[3, 0, 5, 1] = np.inf
    return p, labels, p[np.isfinite(p).all(axis=(2, 3))].astype(np.float64)


def test_confusion_is_the_mean_of_scikit_learns_matrices(case):
    p, labels, kept_RNC = case
    by_replica = [metrics.confusion_matrix(labels, q.argmax(axis=1), labels=range(5)) for q in kept_RNC]
    found = confusion(p, labels, 5)
    np.testing.assert_allclose(found.counts_CC, np.mean(by_replica, axis=0))
    np.testing.assert_allclose(found.counts_CC.sum(axis=1), np.bincount(labels, minlength=5))
    present = np.bincount(labels, minlength=5) > 0
    np.testing.assert_allclose(found.percent_CC[present].sum(axis=1), 100)
    assert np.isnan(found.percent_CC[~present]).all()
    assert (found.n_replicas, found.n_diverged) == (len(kept_RNC), 12 - len(kept_RNC))


def test_precision_recall_and_f1_are_the_means_of_scikit_learns(case):
    p, labels, kept_RNC = case
    table = per_class(p, labels, class_names=list("abcde"))
    assert list(table.columns) == PER_CLASS
    assert table["name"].tolist() == list("abcde")
    for name, score in (("precision", metrics.precision_score), ("recall", metrics.recall_score),
                        ("f1", metrics.f1_score)):  # fmt: skip
        by_replica = [
            score(labels, q.argmax(axis=1), labels=range(5), average=None, zero_division=0.0) for q in kept_RNC
        ]
        expected = np.where(table["support"] > 0, np.mean(by_replica, axis=0), np.nan)
        np.testing.assert_allclose(table[name], expected)
        known = table[table["support"] > 0]
        assert ((known[f"{name}_lo"] <= known[name]) & (known[name] <= known[f"{name}_hi"])).all()
        assert known[f"{name}_lo"].ge(0).all()
        assert known[f"{name}_hi"].le(1).all()
    np.testing.assert_array_equal(table["support"], np.bincount(labels, minlength=5))


@pytest.mark.parametrize("score", ["precision", "recall", "f1"])
def test_the_influence_of_a_test_point_is_the_derivative_of_scikit_learns_score_in_its_weight(score):
    p, labels = predictions(n_test=40)
    replicas = prepare(p, labels)
    found = _influences(replicas)[score]
    step, place = 1e-5, ["precision", "recall", "f1"].index(score)

    def mean_scores(weights):
        return np.mean([
            metrics.precision_recall_fscore_support(
                labels, predicted_N, labels=range(5), sample_weight=weights, zero_division=0.0
            )[place]
            for predicted_N in replicas.predicted_RN
        ], axis=0)  # fmt: skip

    for n in (0, 7, 23):
        weights = np.ones((2, 40))
        weights[0, n], weights[1, n] = 1 + step, 1 - step
        up, down = map(mean_scores, weights)
        np.testing.assert_allclose(found[:, n], (up - down) / (2 * step), atol=1e-8)


def test_summary_is_the_mean_of_scikit_learns_scores(case):
    p, labels, kept_RNC = case
    table = summary(p, labels).set_index("metric")
    present = np.unique(labels)
    one_hot = np.eye(5)[labels]
    expected = {
        "accuracy": [metrics.accuracy_score(labels, q.argmax(axis=1)) for q in kept_RNC],
        "macro_f1": [
            metrics.f1_score(labels, q.argmax(axis=1), labels=present, average="macro", zero_division=0.0)
            for q in kept_RNC
        ],
        "balanced_accuracy": [
            metrics.recall_score(labels, q.argmax(axis=1), labels=present, average="macro") for q in kept_RNC
        ],
        "macro_precision": [
            metrics.precision_score(labels, q.argmax(axis=1), labels=present, average="macro", zero_division=0.0)
            for q in kept_RNC
        ],
        "log_loss": [
            metrics.log_loss(labels, np.clip(q, 2**-23, 1) / np.clip(q, 2**-23, 1).sum(axis=1, keepdims=True),
                             labels=range(5)) for q in kept_RNC
        ],
        "brier": [((one_hot - q) ** 2).sum(axis=1).mean() for q in kept_RNC],
    }  # fmt: skip
    for name, by_replica in expected.items():
        assert table.loc[name, "value"] == pytest.approx(np.mean(by_replica), rel=1e-5), name
        assert table.loc[name, "lo"] < table.loc[name, "value"] < table.loc[name, "hi"]
    assert (table["n_diverged"] == 12 - len(kept_RNC)).all()


def test_calibration_error_is_the_binned_gap_between_confidence_and_accuracy():
    p, labels = predictions(2, 1)
    by_replica = []
    for q in p.astype(np.float64).reshape(2, -1, 5):
        confidence, right = q.max(axis=1), q.argmax(axis=1) == labels
        bins = pd.cut(confidence, np.linspace(0, 1, 16))
        gaps = pd.DataFrame({"gap": right - confidence, "bin": bins}).groupby("bin", observed=True)["gap"]
        by_replica.append((gaps.mean().abs() * gaps.size()).sum() / len(labels))
    assert summary(p, labels).set_index("metric").loc["ece", "value"] == pytest.approx(np.mean(by_replica))


def test_a_perfect_classifier_scores_perfectly_in_a_point_like_interval():
    labels = np.arange(50) % 5
    p = np.broadcast_to(np.eye(5, dtype=np.float32)[labels], (3, 2, 50, 5))
    table = summary(p, labels).set_index("metric")
    losses = {"log_loss": 0, "brier": 0, "ece": 0}
    perfect = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_precision", "macro_f1"), 1)
    assert table["value"].to_dict() == pytest.approx(perfect | losses, abs=1e-12)
    assert (table["lo"] == table["hi"]).all()
    np.testing.assert_allclose(confusion(p, labels).percent_CC, 100 * np.eye(5))


def test_with_identical_replicas_the_interval_is_that_of_a_proportion_over_test_points():
    p, labels = predictions(1, 1)
    same = np.broadcast_to(p, (4, 3, *p.shape[2:]))
    row = summary(same, labels).set_index("metric").loc["accuracy"]
    share, n = row["value"], len(labels)
    assert row["hi"] - share == pytest.approx(stats.t.ppf(0.975, n - 1) * np.sqrt(share * (1 - share) / (n - 1)))
    right, is_first = p[0, 0].argmax(axis=1) == labels, labels == 0
    recall = per_class(same, labels).iloc[0]
    se = np.sqrt(((right[is_first] - recall["recall"]) ** 2).sum() * n / (n - 1)) / is_first.sum()
    assert recall["recall"] - recall["recall_lo"] == pytest.approx(stats.t.ppf(0.975, n - 1) * se)


def test_with_test_points_that_all_behave_alike_the_interval_is_that_of_the_replicas():
    labels = np.zeros(60, dtype=int)
    share_right = np.array([0.9, 0.7, 0.8, 0.4, 0.6])  # of the training sets; which points are right goes round
    right_DN = (np.arange(60)[None, :] * 7 + 13 * np.arange(5)[:, None]) % 60 < 60 * share_right[:, None]
    p_DINC = np.stack([right_DN, ~right_DN], axis=-1)[:, None].astype(np.float32)
    row = summary(np.repeat(p_DINC, 3, axis=1), labels).set_index("metric").loc["accuracy"]
    replica_se = share_right.std(ddof=1) / np.sqrt(5)
    test_se = right_DN.mean(axis=0).std(ddof=1) / np.sqrt(60)
    assert test_se < 0.5 * replica_se
    # Satterthwaite: all but 4 degrees of freedom
    assert row["hi"] - row["value"] > stats.t.ppf(0.975, 8) * replica_se
    assert row["hi"] - row["value"] < stats.t.ppf(0.975, 4) * np.hypot(replica_se, test_se)


def test_intervals_cover_other_replicas_and_other_test_sets():
    """Fresh replicas and a fresh test set each time: 95 % intervals cover the long-run mean in at least 90 %.

    100 repetitions have a binomial sd of 2 points; the two parts of the variance overlap a little, so that coverage
    lies above rather than below 95 %.
    """
    many = [predictions(2, 2, 400, 3, seed=10_000 + s, test_seed=50_000 + s) for s in range(400)]
    truth = {
        "accuracy": np.mean([(p.argmax(-1) == y).mean() for p, y in many]),
        "brier": np.mean([((np.eye(3)[y] - p) ** 2).sum(-1).mean() for p, y in many]),
        "recall": np.mean([(p.argmax(-1) == y)[..., y == 0].mean() for p, y in many]),
    }
    hits = dict.fromkeys(truth, 0)
    for s in range(100):
        p, y = predictions(5, 3, 60, 3, seed=s, test_seed=90_000 + s)
        found = summary(p, y).set_index("metric")
        first = per_class(p, y).iloc[0]
        for name, (lo, hi) in {
            "accuracy": found.loc["accuracy", ["lo", "hi"]], "brier": found.loc["brier", ["lo", "hi"]],
            "recall": first[["recall_lo", "recall_hi"]],
        }.items():  # fmt: skip
            hits[name] += lo <= truth[name] <= hi
    assert min(hits.values()) / 100 >= 0.90, hits
    assert hits["accuracy"] / 100 < 1.0  # an interval that always covers would be too wide


def test_a_single_replica_has_values_and_no_interval():
    p, labels = predictions(1, 1)
    table = per_class(p, labels)
    assert table["recall"].notna().all()
    assert table[["recall_lo", "f1_hi"]].isna().all().all()


@pytest.mark.parametrize("shape", [(3, 2, 20, 4), (3, 2, 0, 4)])
def test_no_replica_or_no_point_left_gives_tables_of_nan(shape):
    p, labels = np.full(shape, np.nan), np.arange(shape[2]) % 4
    assert np.isnan(confusion(p, labels).counts_CC).all()
    assert confusion(p, labels).n_replicas == 0
    table = per_class(p, labels)
    assert len(table) == 4
    assert table["precision"].isna().all()
    scores = summary(p, labels)
    assert list(scores.columns) == SUMMARY
    assert scores["value"].isna().all()


def test_what_does_not_fit_together_is_refused_with_the_shapes():
    p, labels = predictions()
    with pytest.raises(ValueError, match=r"\(12, 120, 5\)"):
        confusion(p.reshape(12, 120, 5), labels)
    with pytest.raises(ValueError, match="n_classes = 6"):
        per_class(p, labels, 6)
    with pytest.raises(ValueError, match="labels run from 1 to"):
        summary(p, labels + 1)


def test_a_plain_table_is_json_with_nothing_where_a_class_has_no_test_points():
    p, labels = predictions(labels=np.random.default_rng(5).choice([0, 1, 2, 4], size=120))
    table = per_class(p, labels)
    found = json.loads(json.dumps(plain(table), allow_nan=False))
    assert found["columns"] == PER_CLASS
    assert [row[0] for row in found["data"]] == [0, 1, 2, 3, 4]
    place = PER_CLASS.index("f1")
    assert found["data"][3][place] is None
    assert [row[place] for k, row in enumerate(found["data"]) if k != 3] == table["f1"].dropna().tolist()
