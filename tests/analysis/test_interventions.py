"""Differences of variants from the baseline, and of ensembles, against quantities that are known."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from lab.analysis.decomposition import decompose
from lab.analysis.interventions import COLUMNS, TERMS, ensemble_difference, interventions
from lab.analysis.paired import paired_seconds

TIMINGS = {"explore-0001": [[2.0, 5.0], [2.2, 5.4], [1.8, 4.6]], "explore-0002": [[1.0, 1.0], [1.2, 1.2]]}
D, I, N, C = 6, 8, 80, 3  # noqa: E741 - the letters of the shape legend


def logits(seed=0, seed_effect=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(C, size=N)
    z = 1.5 * np.eye(C)[labels] + rng.standard_normal((N, C))
    z = z + 0.7 * rng.standard_normal((D, 1, N, C)) + seed_effect * rng.standard_normal((1, I, N, C))
    return z + 0.5 * rng.standard_normal((D, I, N, C)), labels


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def study():
    z, labels = logits()
    predicted = {
        "explore-0000": softmax(z),
        "explore-0001": softmax(0.3 * z + np.eye(C)[1]),
        "explore-0002": softmax(z),
    }
    trials = pd.DataFrame(
        {
            "key": [*predicted, "explore-0003"],
            "variant": ["baseline", "calmer", "same", "broken"],
            "risk": [0.5, 0.4, 0.5, np.nan],
            "seconds": [2.0, 3.0, 2.1, np.nan],
        }
    )
    timed = pd.DataFrame([paired_seconds(TIMINGS[key]) if key in TIMINGS else {} for key in trials["key"]])
    trials = pd.concat([trials, timed], axis=1)
    table = interventions(trials, lambda key: (predicted[key], labels, None), baseline="baseline")
    return table, predicted, labels


def row(table, variant, term):
    return table[(table["variant"] == variant) & (table["term"] == term)].iloc[0]


def test_a_difference_is_that_of_two_decompositions(study):
    table, predicted, labels = study
    a, b = (decompose(predicted[key], labels).to_dict() for key in ("explore-0000", "explore-0001"))
    assert list(table.columns) == list(COLUMNS)
    for term in TERMS:
        found = row(table, "calmer", term)
        assert found["difference"] == pytest.approx(b[term] - a[term], abs=1e-9)
        assert (found["baseline"], found["value"]) == pytest.approx((a[term], b[term]), abs=1e-9)
        assert found["lo"] < found["difference"] < found["hi"]
    assert row(table, "calmer", "variance")["hi"] < 0


def test_a_variant_that_changes_nothing_differs_by_nothing(study):
    for term in TERMS:
        found = row(study[0], "same", term)
        assert (found["difference"], found["lo"], found["hi"]) == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_time_of_an_epoch_has_the_interval_of_its_pairs_and_their_number(study):
    expected = paired_seconds(TIMINGS["explore-0001"])
    seconds, ratio = row(study[0], "calmer", "epoch_seconds"), row(study[0], "calmer", "epoch_time")
    assert (seconds["baseline"], seconds["value"], seconds["difference"]) == pytest.approx((2.0, 5.0, 3.0))
    name = "epoch_seconds_difference"
    assert (seconds["lo"], seconds["hi"]) == pytest.approx((expected[f"{name}_lo"], expected[f"{name}_hi"]))
    assert (ratio["lo"], ratio["hi"]) == pytest.approx((expected["epoch_time_lo"] - 1, expected["epoch_time_hi"] - 1))
    assert (ratio["baseline"], ratio["value"]) == (1, expected["epoch_time"])
    assert seconds["n_timings"] == ratio["n_timings"] == 3


def test_an_ensemble_takes_as_many_times_as_long_as_it_has_members(study):
    seconds, ratio = (row(study[0], "ensemble_of_4_seeds", term) for term in ("epoch_seconds", "epoch_time"))
    assert (ratio["value"], ratio["difference"]) == (4, 3)
    assert seconds["baseline"] == pytest.approx((2.0 + 1.1) / 2)  # over the pairs of both variants
    assert seconds["value"] == pytest.approx(4 * seconds["baseline"])
    assert np.isnan([seconds["lo"], ratio["hi"]]).all()


def test_without_timings_there_are_no_rows_of_them():
    z, labels = logits()
    trials = pd.DataFrame({"key": ["a", "b"], "variant": ["baseline", "same"], "risk": 0.5, "seconds": 1.0})
    table = interventions(trials, lambda key: (softmax(z), labels, None), baseline="baseline")
    assert set(table["term"]) == {*TERMS, "seconds"}


def test_seconds_have_no_interval_and_a_variant_that_was_not_measured_no_row(study):
    found = row(study[0], "calmer", "seconds")
    assert found["difference"] == pytest.approx(1.0)
    assert np.isnan(found["lo"])
    assert np.isnan(found["hi"])
    assert "broken" not in set(study[0]["variant"])


def test_without_a_baseline_there_is_nothing_to_say(study):
    trials = pd.DataFrame({"key": ["explore-0001"], "variant": ["calmer"], "risk": [0.4]})
    assert interventions(trials, lambda key: pytest.fail("read"), baseline="baseline").empty
    assert interventions(trials.drop(columns="risk"), lambda key: pytest.fail("read"), baseline="calmer").empty


def test_an_ensemble_lowers_risk_by_what_its_members_differ_and_leaves_the_bias(study):
    """Krogh & Vedelsby 1995: mean risk of the members less the risk of their mean is their spread about that mean."""
    _, predicted, labels = study
    p = predicted["explore-0000"]
    every = [p[:, list(members)] for members in combinations(range(8), 4)]
    spread = np.mean([((g - g.mean(axis=1, keepdims=True)) ** 2).sum(axis=-1).mean() for g in every])
    found = {r["term"]: r for r in ensemble_difference(p, labels, 4, posterior_NC=None, level=0.95)}
    assert found["risk"]["difference"] == pytest.approx(-spread, abs=1e-12)
    assert found["risk"]["hi"] < 0
    # the variance from the seed and from both together is that of a mean of four
    parts = decompose(p, labels).to_dict()
    expected = (1 / 4 - 1) * (parts["variance_init"] + parts["variance_interaction"])
    assert found["variance"]["difference"] == pytest.approx(expected, abs=1e-12)
    parts_of = found["variance_init"]["difference"] + found["variance_interaction"]["difference"]
    assert parts_of == pytest.approx(expected, abs=1e-12)
    assert found["bias_sq"]["difference"] == found["variance_resample"]["difference"] == 0


def test_an_interval_of_an_ensemble_holds_the_truth_in_about_as_many_cases_as_it_says():
    """Two thirds of the seeds' variance go with three members. What seeds do is the same at all points here.

    An interval over training sets and test points alone held it in 15 of these 60 draws.
    """
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        seed_effect = 0.05 * rng.standard_normal((1, 6, 1, 2))
        own = 0.05 * rng.standard_normal((8, 6, 40, 2))
        p = 0.5 + own + seed_effect
        p[..., 1] = 1 - p[..., 0]
        (risk, *_) = ensemble_difference(p, np.zeros(40, dtype=int), 3, posterior_NC=None, level=0.95)
        truth = -(2 / 3) * 2 * (0.05**2 + 0.05**2)
        hits += risk["lo"] <= truth <= risk["hi"]
    assert hits >= 48


def test_too_few_seeds_or_training_sets_give_no_ensemble(study):
    _, predicted, labels = study
    p = predicted["explore-0000"]
    assert ensemble_difference(p[:, :7], labels, 4, posterior_NC=None, level=0.95) == []
    assert ensemble_difference(p[:2], labels, 4, posterior_NC=None, level=0.95) == []
    assert {"ensemble_of_2_seeds", "ensemble_of_4_seeds"} <= set(study[0]["variant"])
