"""Error against capacity: fair levels, the interpolation threshold, and when double descent may be claimed."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lab.analysis.capacity_curve import (
    CURVE,
    Estimate,
    capacity_curve,
    find_peak,
    interpolation_threshold,
    planned_replicas,
    selection_risk,
)
from lab.analysis.training_curve import mean_over_replicas

WIDTHS = (4, 8, 16, 32, 64)


def sweep(n_each=4, widths=WIDTHS, **columns):
    """Return the explore trials of a width sweep; in each level trial 1 is the best on validation."""
    rows = []
    for level, width in enumerate(widths):
        for k in range(n_each):
            risk = 0.5 - 0.05 * level
            rows.append({
                "key": f"explore-{len(rows):04d}", "phase": "explore", "number": len(rows), "width": width, "depth": 2,
                "n_parameters": width * 100, "val_risk": risk + 0.1 * abs(k - 1), "train_error": 0.2 / (level + 1) ** 2,
                "bias_sq": 0.3 - 0.05 * level, "bias_sq_lo": 0.28 - 0.05 * level, "bias_sq_hi": 0.32 - 0.05 * level,
                "variance": 0.2, "risk": 0.5 - 0.05 * level + 0.001 * k, "n_replicas": 32, "n_diverged": 0,
                "n_resamples": 8, "n_inits": 4, "outcome": "finished",
            })  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


def replicas_of(curve, means, *, noise=0.02, n_resamples=8, n_inits=4, seed=0):
    """Return a `replicas` table in which level l has mean test risk means[l]; replicas share effects across levels."""
    rng = np.random.default_rng(seed)
    shared = 0.1 * rng.standard_normal((n_resamples, 1)) + 0.1 * rng.standard_normal((1, n_inits))
    frames = []
    for key, mean in zip(curve["key"], means, strict=True):
        own = noise * (rng.standard_normal((n_resamples, 1)) + rng.standard_normal((n_resamples, n_inits)))
        for epoch, values in ((0, np.full(shared.shape, 0.9)), (60, mean + shared + own)):
            frames.append(pd.DataFrame({
                "key": key, "epoch": epoch, "resample": np.repeat(np.arange(n_resamples), n_inits),
                "init": np.tile(np.arange(n_inits), n_resamples), "diverged": False, "test_risk": values.ravel(),
            }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def test_each_level_is_spoken_for_by_its_best_trial_on_validation():
    curve = capacity_curve(sweep())
    assert curve["capacity"].tolist() == list(WIDTHS)
    assert set(curve["capacity_name"]) == {"width"}
    assert curve["key"].tolist() == [f"explore-{4 * level + 1:04d}" for level in range(5)]
    assert curve["n_trials"].tolist() == [4] * 5
    assert list(curve.columns) == CURVE
    np.testing.assert_allclose(curve["bias_sq_hi"], [0.32, 0.27, 0.22, 0.17, 0.12])


def test_a_trial_half_of_whose_replicas_diverged_does_not_win_by_its_lucky_half():
    trials = sweep()
    lucky = trials["number"] == 2
    trials.loc[lucky, ["val_risk", "n_diverged"]] = [0.05, 16]
    assert selection_risk(trials)[lucky].iloc[0] == pytest.approx(0.5 * 0.05 + 0.5 * 2.0)
    curve = capacity_curve(trials)
    assert curve["key"].iloc[0] == "explore-0001"
    assert curve["n_trials_diverged"].tolist() == [1, 0, 0, 0, 0]


def test_diverged_and_infeasible_trials_and_other_phases_do_not_enter():
    trials = sweep()
    trials.loc[trials["width"] == 16, "val_risk"] = np.nan
    confirm = sweep(widths=(128,)).assign(phase="confirm")
    assert capacity_curve(pd.concat([trials, confirm]))["capacity"].tolist() == [4, 8, 32, 64]


def test_many_values_fall_into_log_spaced_bins_that_cover_them_all():
    widths = tuple(range(4, 257, 3))
    trials = sweep(n_each=1, widths=widths, val_risk=0.1)
    curve = capacity_curve(trials, n_bins=6)
    assert set(curve["capacity_name"]) == {"n_parameters"}
    assert curve["n_trials"].sum() == len(widths)
    assert ((curve["bin_lo"] <= curve["capacity"]) & (curve["capacity"] <= curve["bin_hi"])).all()
    np.testing.assert_allclose(curve["bin_hi"] / curve["bin_lo"], (curve["bin_hi"] / curve["bin_lo"]).iloc[0])
    asked = capacity_curve(trials, knob="width", n_bins=6)
    assert set(asked["capacity_name"]) == {"width"}
    assert len(asked) == 6


def test_two_varied_dials_are_put_on_the_axis_of_parameters():
    trials = sweep()
    trials["depth"] = 1 + trials["number"] % 3
    assert set(capacity_curve(trials)["capacity_name"]) == {"n_parameters"}


@pytest.mark.parametrize("trials", [
    pd.DataFrame(), sweep().iloc[:0], sweep(val_risk=np.nan), sweep().drop(columns="val_risk"),
    sweep().drop(columns=["width", "depth", "n_parameters"]),
])  # fmt: skip
def test_nothing_measured_gives_an_empty_curve_and_no_claim(trials):
    curve = capacity_curve(trials)
    assert list(curve.columns) == CURVE
    assert curve.empty
    assert interpolation_threshold(curve) is None
    assert not find_peak(curve, pd.DataFrame()).claimed


def test_a_single_trial_is_a_curve_of_one_level():
    curve = capacity_curve(sweep().iloc[:1])
    assert len(curve) == 1
    assert "not enough levels" in find_peak(curve).reason


def test_the_threshold_is_the_first_capacity_that_interpolates():
    curve = capacity_curve(sweep())  # training errors .2, .05, .022, .0125, .008
    assert interpolation_threshold(curve) == 64
    assert interpolation_threshold(curve, level=0.0125) == 32
    assert interpolation_threshold(curve, level=0.001) is None


class TestPeak:
    peaked = (0.30, 0.25, 0.45, 0.25, 0.20)

    def curve(self, threshold_level=2):
        errors = {width: 0.0 if k >= threshold_level else 0.1 for k, width in enumerate(WIDTHS)}
        trials = sweep()
        return capacity_curve(trials.assign(train_error=trials["width"].map(errors)))

    def test_a_significant_peak_at_the_threshold_is_claimed(self):
        curve = self.curve()
        peak = find_peak(curve, replicas_of(curve, self.peaked))
        assert peak.claimed
        assert (peak.capacity, peak.key, peak.n_pairs) == (16, curve["key"].iloc[2], 20)
        assert max(peak.p_rise, peak.p_fall) < 0.05

    def test_the_same_peak_lost_in_noise_is_not_claimed(self):
        curve = self.curve()
        peak = find_peak(curve, replicas_of(curve, self.peaked, noise=0.6, n_resamples=3))
        assert not peak.claimed
        assert "no level is significantly above" in peak.reason

    def test_a_significant_peak_far_from_the_threshold_or_without_one_is_not_claimed(self):
        for level, words in ((4, "far from"), (9, "no level interpolates")):
            curve = self.curve(level)
            peak = find_peak(curve, replicas_of(curve, self.peaked))
            assert not peak.claimed
            assert words in peak.reason
            assert peak.capacity == 16

    def test_a_peak_counts_though_the_risk_rises_as_high_again_beyond_it(self):
        curve = self.curve()
        peak = find_peak(curve, replicas_of(curve, (0.25, 0.45, 0.25, 0.45, 0.45)))
        assert (peak.claimed, peak.capacity) == (True, 8)

    @pytest.mark.parametrize("means", [(0.5, 0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.3, 0.1, 0.3, 0.5)])
    def test_monotone_and_u_shaped_curves_have_no_peak(self, means):
        curve = self.curve()
        assert not find_peak(curve, replicas_of(curve, means)).claimed

    def test_without_the_replicas_nothing_is_claimed(self):
        curve = self.curve()
        assert not find_peak(curve).claimed
        assert "not tested" in find_peak(curve, pd.DataFrame({"key": []})).reason

    def test_diverged_replicas_are_left_out_of_the_comparison(self):
        curve = self.curve()
        replicas = replicas_of(curve, self.peaked)
        gone = (replicas["key"] == curve["key"].iloc[0]) & (replicas["init"] == 1)
        replicas.loc[gone, "diverged"] = True
        replicas.loc[gone, "test_risk"] = 1e6
        assert find_peak(curve, replicas).claimed

    def test_chance_alone_is_rarely_taken_for_a_peak(self):
        """Five equal levels, 80 studies: at most α = 5 % may claim; 0.05 + 2·sqrt(.05·.95/80) = 0.10."""
        curve = self.curve()
        claims = [find_peak(curve, replicas_of(curve, [0.3] * 5, seed=seed)).claimed for seed in range(80)]
        assert np.mean(claims) <= 0.10

    def test_holm_adjustment_matches_its_definition(self):
        curve = self.curve()
        replicas = replicas_of(curve, (0.3, 0.29, 0.305, 0.3, 0.28), noise=0.03)
        peak = find_peak(curve, replicas)
        last = replicas[replicas["epoch"] == 60]
        tables = [
            last[last["key"] == k].pivot(index="resample", columns="init", values="test_risk") for k in curve["key"]
        ]
        raw = {}
        for a, b in itertools.permutations(range(5), 2):
            found = mean_over_replicas((tables[a] - tables[b]).to_numpy())
            raw[a, b] = float(stats.t.sf(found.mean / found.se, found.df))
        adjusted, running = {}, 0.0
        for place, pair in enumerate(sorted(raw, key=raw.get)):
            running = max(running, min(1.0, (20 - place) * raw[pair]))
            adjusted[pair] = running
        sides = [
            (min(adjusted[k, a] for a in range(k)), min(adjusted[k, b] for b in range(k + 1, 5))) for k in (1, 2, 3)
        ]
        rise, fall = min(sides, key=max)
        assert (peak.p_rise, peak.p_fall) == (pytest.approx(rise), pytest.approx(fall))


def test_the_difference_of_estimates_adds_half_widths_in_quadrature():
    change = Estimate(5.0, 2.0, 8.0) - Estimate(1.0, -3.0, 5.0)
    assert (change.value, change.lo, change.hi) == (4.0, -1.0, 9.0)
    assert not change.excludes_zero
    assert (Estimate(-2.0, -3.0, -1.0)).excludes_zero
    assert math.isnan((Estimate(1.0, math.nan, math.nan) - change).lo)


def test_replicas_are_counted_by_the_plan_also_where_the_label_noise_is_drawn_several_times():
    plan = pd.DataFrame(
        {"n_resamples": [8.0, 6.0, 4.0], "n_inits": [4.0, 3.0, 2.0], "n_noise_draws": [1.0, 3.0, np.nan]}
    )
    assert list(planned_replicas(plan)) == [32, 54, 8]
    assert list(planned_replicas(plan.drop(columns="n_noise_draws"))) == [32, 18, 8]
