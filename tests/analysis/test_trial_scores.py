"""Tracked scores are the means of scikit-learn's over the replicas that did not diverge, and come with intervals."""

import numpy as np
import pytest
from sklearn import metrics

from lab.analysis.trial_scores import TRACKED, scores

N, C = 90, 4


def predictions(n_resamples: int = 3, n_inits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    labels = rng.choice(C, size=N, p=[0.5, 0.3, 0.15, 0.05])
    logits = np.eye(C)[labels] + rng.standard_normal((n_resamples, n_inits, N, C))
    p = np.exp(logits)
    return p / p.sum(axis=-1, keepdims=True), labels


def test_scores_are_the_means_of_scikit_learns_over_the_replicas_that_are_left() -> None:
    p, labels = predictions()
    diverged = np.array([False, True, False, False, False, False])
    found = scores(p, labels, diverged)
    kept = p.reshape(6, N, C)[~diverged]
    hard = kept.argmax(axis=2)
    expected = {
        "accuracy": [metrics.accuracy_score(labels, h) for h in hard],
        "balanced_accuracy": [metrics.recall_score(labels, h, average="macro") for h in hard],
        "macro_precision": [metrics.precision_score(labels, h, average="macro", zero_division=0.0) for h in hard],
        "macro_f1": [metrics.f1_score(labels, h, average="macro") for h in hard],
        "log_loss": [metrics.log_loss(labels, q, labels=range(C)) for q in kept],
        "auc": [metrics.roc_auc_score(labels, q, multi_class="ovr", average="macro") for q in kept],
    }
    for name, by_replica in expected.items():
        assert found[name] == pytest.approx(np.mean(by_replica), rel=1e-9), name
    for name in ("precision", "recall", "f1"):
        score = getattr(metrics, f"{name}_score")
        by_replica_class = [score(labels, h, average=None, zero_division=0.0, labels=range(C)) for h in hard]
        assert found[f"worst_class_{name}"] == pytest.approx(np.mean(by_replica_class, axis=0).min(), rel=1e-9)
    for name in (*TRACKED, "auc"):
        assert found[f"{name}_lo"] < found[name] < found[f"{name}_hi"]


def test_intervals_of_the_area_cover_what_other_replicas_and_test_sets_give() -> None:
    def draw(seed: int) -> dict[str, float]:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, size=60)
        lean = rng.standard_normal((4, 1, 1, 3)) + rng.standard_normal((1, 3, 1, 3))
        logits = np.eye(3)[labels] + rng.standard_normal((60, 3)) + 0.5 * lean * rng.standard_normal((60, 1))
        p = np.exp(logits)
        return scores(p / p.sum(axis=-1, keepdims=True), labels, np.zeros(12, dtype=bool))

    many = [draw(seed) for seed in range(150)]
    truth = np.mean([one["auc"] for one in many])
    covered = np.mean([one["auc_lo"] <= truth <= one["auc_hi"] for one in many])
    assert covered > 0.9  # 2.8 standard deviations below 95 % at 150 draws


def test_nothing_is_tracked_when_all_replicas_diverged_and_no_interval_of_a_single_one() -> None:
    p, labels = predictions(1, 1)
    assert scores(p, labels, np.array([True])) == {}
    assert set(scores(p, labels, np.array([False]))) == {*TRACKED, "auc"}


def test_a_class_without_test_points_has_no_area_and_the_others_have() -> None:
    p, labels = predictions()
    present = labels != 3
    found = scores(p[:, :, present], labels[present], np.zeros(6, dtype=bool))
    q = p[:, :, present].reshape(6, -1, C)
    expected = [np.mean([metrics.roc_auc_score(labels[present] == c, one[:, c]) for c in range(3)]) for one in q]
    assert found["auc"] == pytest.approx(np.mean(expected))
