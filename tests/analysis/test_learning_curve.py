"""Learning curves: which runs make one, what a fit gives back, and when it is refused."""

import numpy as np
import pandas as pd
import pytest

from lab.analysis.case import chosen
from lab.analysis.learning_curve import (
    CURVE,
    Extrapolation,
    Refusal,
    doubling,
    extrapolate,
    learning_curve,
    n_needed,
    standard_errors,
)

SIZES_6 = np.round(400 * 2.0 ** (-np.arange(6) / 2))[::-1]
SIZES_8 = np.round(400 * 2.0 ** (-np.arange(8) / 2))[::-1]


def table(n_train, risk, se=0.002, column="risk"):
    n_train, risk = np.asarray(n_train), np.asarray(risk, dtype=float)
    return pd.DataFrame({
        "n_train": n_train, column: risk, f"{column}_lo": risk - 2 * se, f"{column}_hi": risk + 2 * se,
        "n_resamples": 8,
    })  # fmt: skip


def power(n, alpha=0.05, beta=4.0, c=0.7):
    return alpha + beta * np.asarray(n, dtype=float) ** -c


def runs(sizes, phase, *, first=0, started=0.0, width=64):
    return pd.DataFrame({
        "key": [f"{phase}-{first + k:04d}" for k in range(len(sizes))], "phase": phase,
        "number": np.arange(first, first + len(sizes)), "started": started + np.arange(len(sizes)), "width": width,
        "activation": "relu", "n_train": sizes, "risk": power(sizes), "bias_sq": 0.1, "n_replicas": 32,
    })  # fmt: skip


class TestTable:
    def test_confirm_and_learning_curve_runs_ascend_in_size_and_confirm_speaks_for_its_own(self):
        trials = pd.concat([runs([150], "confirm"), runs([150, 106, 75], "learning_curve"), runs([150], "explore")])
        curve = learning_curve(trials)
        assert curve["n_train"].tolist() == [75, 106, 150]
        assert curve["phase"].tolist() == ["learning_curve", "learning_curve", "confirm"]
        assert list(curve.columns) == CURVE
        assert curve["variance"].isna().all()

    def test_of_several_confirmed_configurations_the_one_that_came_out_best_counts(self):
        shared = dict(phase="confirm", n_train=100, risk=0.5, bias_sq=0.3, variance=0.2, n_confirm=3)
        confirm = [
            shared | {"key": f"confirm-{k}", "number": k, "started": float(k), "width": width, "objective_0": objective}
            for k, (width, objective) in enumerate([(8, 0.4), (16, 0.3), (32, 0.35)])
        ]
        sizes = [
            shared | {"key": f"size-{width}", "phase": "learning_curve", "n_train": 50, "width": width, "started": 9.0}
            for width in (16, 32)
        ]
        trials = pd.DataFrame(confirm + sizes)
        assert learning_curve(trials)["key"].tolist() == ["size-16", "confirm-1"]
        assert chosen(trials)["key"] == "confirm-1"
        assert chosen(trials.assign(n_confirm=1))["key"] == "confirm-2"  # the newest

    def test_only_runs_of_the_newest_confirmed_configuration_count(self):
        old = [runs([150], "confirm", width=16), runs([106, 75], "learning_curve", width=16)]
        new = [
            runs([150], "confirm", first=1, started=100, width=64),
            runs([106], "learning_curve", first=2, started=101, width=64),
        ]
        curve = learning_curve(pd.concat(new + old))
        assert curve["key"].tolist() == ["learning_curve-0002", "confirm-0001"]

    def test_a_size_measured_twice_shows_the_newer_run(self):
        trials = pd.concat([runs([75], "learning_curve"), runs([75], "learning_curve", first=9, started=50)])
        assert learning_curve(trials)["key"].tolist() == ["learning_curve-0009"]

    def test_a_diverged_run_keeps_its_row(self):
        trials = pd.concat([runs([150], "confirm"), runs([75], "learning_curve").assign(risk=np.nan)])
        curve = learning_curve(trials)
        assert curve["n_train"].tolist() == [75, 150]
        assert curve["risk"].isna().tolist() == [True, False]

    @pytest.mark.parametrize("trials", [
        pd.DataFrame(), runs([75], "explore"), runs([75], "confirm").drop(columns="n_train"),
    ])  # fmt: skip
    def test_nothing_gives_an_empty_table_and_a_refusal(self, trials):
        curve = learning_curve(trials)
        assert list(curve.columns) == CURVE
        assert curve.empty
        assert isinstance(extrapolate(curve), Refusal)
        assert doubling(curve, "risk") is None


class TestExtrapolate:
    def test_a_noiseless_power_law_is_given_back(self):
        found = extrapolate(table(SIZES_6, power(SIZES_6), se=1e-6))
        assert isinstance(found, Extrapolation)
        assert found.model == "pow3"
        # the exponent's grid has steps of 0.01
        assert found.parameters["c"] == pytest.approx(0.7, abs=0.011)
        assert found.parameters["alpha"] == pytest.approx(0.05, abs=0.003)
        assert found.parameters["beta"] == pytest.approx(4.0, rel=0.06)
        np.testing.assert_allclose(found.table["value"], power(found.table["n_train"]), rtol=0.01)

    def test_eight_sizes_take_the_shifted_power_law(self):
        y = 0.05 + 40 * (SIZES_8 + 100.0) ** -1.1
        found = extrapolate(table(SIZES_8, y, se=1e-6))
        assert isinstance(found, Extrapolation)
        assert found.model == "pow4"
        truth = 0.05 + 40 * (found.table["n_train"] + 100.0) ** -1.1
        np.testing.assert_allclose(found.table["value"], truth, rtol=0.03)

    def test_the_printed_parameters_are_those_of_the_curve(self):
        for sizes in (SIZES_6, SIZES_8):
            found = extrapolate(table(sizes, power(sizes) * 1.01, se=1e-5))
            p, n = found.parameters, found.table["n_train"].to_numpy(float)
            by_hand = p["alpha"] + p["beta"] * (n + p.get("d", 0.0)) ** -p["c"]
            np.testing.assert_allclose(found.table["value"], by_hand, rtol=1e-9)

    @pytest.mark.parametrize(("sizes", "common", "n"), [(SIZES_6, 0.0, 120), (SIZES_6, 0.003, 120), (SIZES_8, 0.0, 40)])
    def test_the_band_covers_the_truth_at_two_and_four_times_the_data(self, sizes, common, n):
        """Of n noisy curves those that are continued cover the truth in at least 90 %, with a band of some use.

        The band is meant to be wider than 95 %, so that 90 % is no matter of luck for 20 or more continued curves;
        at most half of the curves may be refused. `common` is an error that all sizes share, as a common test set
        makes it.
        """
        rng, covered, doubled, widths, refused = np.random.default_rng(0), [], [], [], 0
        for _ in range(n):
            y = power(sizes) + 0.003 * rng.standard_normal(len(sizes)) + common * rng.standard_normal()
            found = extrapolate(table(sizes, y, se=float(np.hypot(0.003, common))))
            if isinstance(found, Refusal):
                refused += 1
                continue
            end = found.table.iloc[-1]
            covered.append(end["lo"] <= power(end["n_train"]) <= end["hi"])
            widths.append(end["hi"] - end["value"])
            half = found.table.iloc[(found.table["n_train"] - 2 * sizes[-1]).abs().argmin()]
            doubled.append(half["lo"] <= power(half["n_train"]) <= half["hi"])
        assert refused <= n / 2
        assert np.mean(covered) >= 0.90 and np.mean(doubled) >= 0.90
        assert np.mean(widths) < power(1600)  # ± 100 % would say nothing

    def test_it_goes_no_further_than_four_times_the_data_and_says_where_the_data_end(self):
        found = extrapolate(table(SIZES_6, power(SIZES_6)))
        assert found.table["n_train"].max() == 4 * 400
        assert found.table["n_train"].is_monotonic_increasing
        assert (found.table["extrapolated"] == (found.table["n_train"] > 400)).all()
        assert (found.table["lo"] >= 0).all()
        widths = (found.table["hi"] - found.table["value"])[found.table["extrapolated"]]
        assert widths.iloc[-1] > widths.iloc[0]

    def test_bias_and_variance_are_continued_apart(self):
        curve = table(SIZES_6, power(SIZES_6, 0.02, 1, 0.9), column="variance")
        assert isinstance(extrapolate(curve, "variance"), Extrapolation)
        assert extrapolate(curve, "bias_sq").reason.startswith("0 measured")

    def test_five_sizes_are_refused_and_six_are_not(self):
        assert "too few" in extrapolate(table(SIZES_6[1:], power(SIZES_6[1:]))).reason
        with_gap = table(SIZES_6, power(SIZES_6)).assign(risk=[np.nan, *power(SIZES_6[1:])])
        assert "too few" in extrapolate(with_gap).reason
        assert isinstance(extrapolate(table(SIZES_6, power(SIZES_6))), Extrapolation)

    def test_a_rise_beyond_two_standard_errors_is_refused_and_one_within_is_not(self):
        y = power(SIZES_6, alpha=0.2, beta=1)
        y[3] = y[2] + 0.004  # against a standard error of the difference of 0.0028, twice: 0.0057
        assert isinstance(extrapolate(table(SIZES_6, y, se=0.002)), Extrapolation)
        assert "not monotone" in extrapolate(table(SIZES_6, y, se=0.001)).reason

    def test_without_intervals_any_rise_is_refused(self):
        y = power(SIZES_6)
        y[3] = y[2] + 1e-6
        bare = pd.DataFrame({"n_train": SIZES_6, "risk": y})
        assert "not monotone" in extrapolate(bare).reason
        assert isinstance(extrapolate(bare.assign(risk=power(SIZES_6))), Extrapolation)

    def test_a_curve_that_breaks_off_fails_its_back_test(self):
        y = np.array([0.50, 0.49, 0.48, 0.47, 0.30, 0.15])
        assert "back-testing fails" in extrapolate(table(SIZES_6, y)).reason

    def test_negative_estimates_of_bias_are_taken_as_they_are(self):
        y = np.array([0.010, 0.006, 0.003, 0.001, 0.000, -0.001])
        found = extrapolate(table(SIZES_6, y, se=0.002, column="bias_sq"), "bias_sq")
        assert isinstance(found, Extrapolation)
        assert (found.table["lo"] >= 0).all()

    def test_the_same_table_gives_the_same_band(self):
        curve = table(SIZES_6, power(SIZES_6))
        pd.testing.assert_frame_equal(extrapolate(curve).table, extrapolate(curve.iloc[::-1]).table)


def test_two_standard_errors_are_the_half_width_of_the_interval():
    np.testing.assert_allclose(standard_errors(table(SIZES_6, power(SIZES_6), se=0.002), "risk"), 0.002)


class TestNeeded:
    def test_the_size_is_that_of_the_curve_and_lies_in_its_range(self):
        found = extrapolate(table(SIZES_6, power(SIZES_6), se=1e-5))
        target = float(power(1000))
        needed = n_needed(found, target)
        # the table has 60 log-spaced sizes: steps of about 5 %
        assert needed.n == pytest.approx(1000, rel=0.10)
        assert needed.n_lo <= needed.n <= (needed.n_hi or 10**9)
        assert str(needed.n) in needed.text

    def test_a_target_out_of_reach_is_said_to_be(self):
        needed = n_needed(extrapolate(table(SIZES_6, power(SIZES_6))), 0.01)
        assert needed.n is None
        assert "not reached by 1600" in needed.text

    def test_a_refusal_passes_its_reason_on(self):
        needed = n_needed(Refusal("risk", "too few"), 0.1)
        assert (needed.n, needed.n_lo, needed.n_hi) == (None, None, None)
        assert "too few" in needed.text


def test_doubling_compares_the_largest_size_with_the_one_nearest_to_half_of_it():
    found = doubling(table(SIZES_6, power(SIZES_6)), "risk")
    assert found[:2] == (200, 400)
    assert found[2].value == pytest.approx(power(400) - power(200))
    assert found[2].half == pytest.approx(np.sqrt(2) * 2 * 0.002)
