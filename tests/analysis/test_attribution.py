"""Attribution: knobs with a known share of bias² and variance are found, and noise is not ranked."""

import math

import numpy as np
import pandas as pd
import pytest

from lab.analysis import attribution
from lab.analysis.attribution import DIRECTION, TABLE, direction, effect, importance


def design(n=48, *, noise=0.1, seed=0):
    """Return trials whose bias² falls with width, whose variance falls with dropout and differs by initialisation."""
    rng = np.random.default_rng(seed)
    trials = pd.DataFrame({
        "key": [f"explore-{k:04d}" for k in range(n)], "phase": "explore", "number": np.arange(n),
        "width": np.exp(rng.uniform(1.4, 5.5, n)).round().astype(int), "dropout": rng.uniform(0, 0.5, n),
        "learning_rate": np.exp(rng.uniform(-8, -3.5, n)), "depth": 2,
        "init_scheme": rng.choice(["he_normal", "normal", "uniform"], n),
    })  # fmt: skip
    wide = np.log(trials["width"])
    by_scheme = trials["init_scheme"].map({"he_normal": 0.0, "normal": 0.0, "uniform": 0.8})
    trials["bias_sq"] = np.exp(-0.7 * wide + noise * rng.standard_normal(n))
    trials["variance"] = np.exp(-4 * trials["dropout"] + by_scheme + noise * rng.standard_normal(n))
    return trials


@pytest.fixture(scope="module")
def ranking():
    return importance(design())


def test_the_knobs_that_make_the_targets_are_ranked_first_and_idle_ones_carry_nothing(ranking):
    assert list(ranking.columns) == TABLE
    first = ranking[ranking["rank"] == 1].set_index("target")["knob"].to_dict()
    assert first == {"bias_sq": "width", "variance": "dropout"}
    table = ranking.set_index(["target", "knob"])
    assert table.loc[("variance", "init_scheme"), "importance_lo"] > 0
    assert table.loc[("bias_sq", "width"), "importance"] > 0.7
    for idle in (("bias_sq", "learning_rate"), ("bias_sq", "init_scheme"), ("variance", "learning_rate")):
        assert abs(table.loc[idle, "importance"]) < 0.05
    assert set(ranking["status"]) == {"reliable"}


def test_importance_unexplained_and_interval_are_consistent(ranking):
    np.testing.assert_allclose(ranking["unexplained"], 1 - ranking["r2"])
    assert (ranking["importance_lo"] <= ranking["importance"]).all()
    assert (ranking["importance"] <= ranking["importance_hi"]).all()
    for _, group in ranking.groupby("target"):
        assert group["importance"].is_monotonic_decreasing
        assert group["rank"].tolist() == [1, 2, 3, 4]  # depth does not vary


def test_two_equal_knobs_share_what_they_explain():
    trials = design()
    rng = np.random.default_rng(9)
    trials["bias_sq"] = np.exp(
        np.log(trials["width"]).rank() / 20 + trials["dropout"].rank() / 20 + 0.05 * rng.standard_normal(len(trials))
    )
    table = importance(trials, targets=("bias_sq",)).set_index("knob")
    assert table.loc["width", "importance"] == pytest.approx(table.loc["dropout", "importance"], abs=0.15)


def test_noise_is_not_ranked():
    trials = design()
    trials["bias_sq"] = np.exp(np.random.default_rng(3).standard_normal(len(trials)))
    table = importance(trials, targets=("bias_sq",))
    assert set(table["status"]) == {"no ranking"}
    assert table[["importance", "importance_lo", "rank"]].isna().all().all()
    assert table["r2"].lt(0.2).all()
    assert table["unexplained"].between(0.8, 1).all()


def test_a_half_drowned_effect_is_called_rough():
    table = importance(design(noise=0.75, n=60), targets=("bias_sq",))
    assert table["r2"].between(0.2, 0.6, inclusive="left").all()
    assert set(table["status"]) == {"rough"}


def test_with_many_trials_fewer_trees_find_the_same_importances_and_directions(monkeypatch):
    trials = design(n=attribution.MANY, noise=0.6)
    few = importance(trials), direction(trials, "width", "bias_sq")
    monkeypatch.setattr(attribution, "N_TREES", (60, 120))
    monkeypatch.setattr(attribution, "N_TREES_OF_BOOTSTRAP", (12, 40))
    many = importance(trials), direction(trials, "width", "bias_sq")
    tables = [table.set_index(["target", "knob"]).sort_index() for table, _ in (few, many)]
    half = (tables[1]["importance_hi"] - tables[1]["importance_lo"]) / 2
    assert ((tables[0]["importance"] - tables[1]["importance"]).abs() < 0.35 * half + 0.002).all()
    assert (tables[0]["r2"] - tables[1]["r2"]).abs().max() < 0.02
    widths = [np.log(table["hi"] / table["lo"]).mean() for _, table in (few, many)]
    assert widths[1] < widths[0] < 1.2 * widths[1]
    np.testing.assert_allclose(np.log(few[1]["mean"]), np.log(many[1]["mean"]), atol=0.03)


def test_the_same_seed_gives_the_same_numbers(ranking):
    of_bias = ranking[ranking["target"] == "bias_sq"]
    pd.testing.assert_frame_equal(of_bias, importance(design(), targets=("bias_sq",)))
    other = importance(design(), targets=("bias_sq",), seed=1)
    assert other["r2"].iloc[0] != of_bias["r2"].iloc[0]
    assert other["knob"].iloc[0] == "width"


def test_trials_without_the_target_or_of_other_phases_do_not_enter():
    trials = design()
    trials.loc[:4, "bias_sq"] = np.nan
    trials.loc[5:8, "phase"] = "confirm"
    assert importance(trials, targets=("bias_sq",))["n_trials"].unique().tolist() == [len(trials) - 9]


def test_a_negative_estimate_of_bias_counts_as_very_small_and_not_as_missing():
    trials = design()
    trials.loc[trials["width"].idxmax(), "bias_sq"] = -0.001
    table = importance(trials, targets=("bias_sq",))
    assert table["n_trials"].iloc[0] == len(trials)
    assert table["knob"].iloc[0] == "width"


@pytest.mark.parametrize("trials", [
    pd.DataFrame(), design().iloc[:1], design().iloc[:9], design().assign(bias_sq=np.nan, variance=np.nan),
    design().drop(columns=["bias_sq", "variance"]), design().assign(bias_sq=-1.0, variance=0.0),
    design().assign(bias_sq=0.1, variance=0.2),
])  # fmt: skip
def test_too_little_to_rank_ranks_nothing(trials):
    table = importance(trials)
    assert list(table.columns) == TABLE
    assert table["rank"].isna().all()
    assert set(table["status"]) <= {"no ranking"}


class TestDirection:
    def test_bias_falls_with_width_and_the_band_holds_the_mean(self):
        table = direction(design(), "width", "bias_sq")
        assert list(table.columns) == DIRECTION
        assert table["value"].is_monotonic_increasing
        assert table["mean"].iloc[-1] < 0.3 * table["mean"].iloc[0]
        assert ((table["lo"] <= table["mean"]) & (table["mean"] <= table["hi"])).all()

    def test_a_category_is_shown_by_name(self):
        table = direction(design(), "init_scheme", "variance").set_index("value")
        assert table.index.tolist() == ["he_normal", "normal", "uniform"]
        assert table.loc["uniform", "lo"] > table.loc["he_normal", "hi"]

    def test_what_cannot_be_shown_gives_an_empty_table(self):
        for trials, knob in (
            (design(), "depth"),
            (design(8), "width"),
            (pd.DataFrame(), "width"),
            (design(), "nothing"),
        ):
            table = direction(trials, knob, "bias_sq")
            assert list(table.columns) == DIRECTION
            assert table.empty
            assert effect(trials, knob, "bias_sq") is None


class TestEffect:
    def test_a_real_effect_excludes_one_and_an_idle_knob_does_not(self):
        trials = design()
        real, idle = effect(trials, "width", "bias_sq"), effect(trials, "learning_rate", "bias_sq")
        assert real.ratio_hi < 1
        assert idle.ratio_lo < 1 < idle.ratio_hi
        truth = (real.high / real.low) ** -0.7
        # a forest flattens slopes, it does not steepen them: between the truth and half of it on the log scale
        assert math.log(truth) * 1.1 < math.log(real.ratio) < math.log(truth) * 0.5

    def test_a_category_is_compared_between_its_extremes(self):
        found = effect(design(), "init_scheme", "variance")
        assert found.high == "uniform"
        assert found.ratio_lo > 1
