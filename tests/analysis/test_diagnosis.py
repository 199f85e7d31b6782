"""Diagnosis: histories with a known answer get it, and advice follows from effects that were measured."""

import math

import numpy as np
import pandas as pd
import pytest

from lab.analysis.capacity_curve import Estimate
from lab.analysis.case import chosen, share_of_bias
from lab.analysis.diagnosis import CHECKS, checks_table, diagnose, lines
from tests.analysis.histories import learning, levels, run, trials

KINDS = {"underfitting", "overfitting", "balanced", "noise floor", "not enough replicas", "unclear"}


class TestVerdict:
    @pytest.mark.parametrize(("bias_sq", "variance", "kind"), [
        (0.30, 0.05, "underfitting"), (0.05, 0.30, "overfitting"), (0.20, 0.20, "balanced"),
    ])  # fmt: skip
    @pytest.mark.parametrize("noise", [None, 0.1])
    def test_known_histories_get_their_verdict(self, bias_sq, variance, kind, noise):
        found = diagnose(trials(run(bias_sq, variance, noise=noise)), study="capacity_sweep")
        assert found.kind == kind
        assert found.share == pytest.approx(bias_sq / (bias_sq + variance))
        assert found.share_lo < found.share < found.share_hi
        assert len(found.verdict.split()) <= 12
        assert ("bias² + noise" in found.numbers) == (noise is None)

    def test_without_a_known_noise_underfitting_may_be_label_noise_and_says_so(self):
        assert "label noise" in diagnose(trials(run(0.30, 0.05))).verdict
        assert "bias² + noise" in diagnose(trials(run(0.30, 0.05))).verdict
        assert "noise" not in diagnose(trials(run(0.30, 0.05, noise=0.1))).verdict

    @pytest.mark.parametrize(("bias_sq", "variance", "words"), [
        (0.25, 0.15, "but not overfitting"), (0.15, 0.25, "but not underfitting"),
    ])  # fmt: skip
    def test_an_interval_across_one_limit_is_unclear_but_says_what_is_excluded(self, bias_sq, variance, words):
        found = diagnose(trials(run(bias_sq, variance)))
        assert found.kind == "unclear"
        assert words in found.verdict

    def test_an_interval_across_both_limits_is_unclear(self):
        found = diagnose(trials(run(0.20, 0.20, width=0.3)))
        assert found.kind == "unclear"
        assert "cannot be told apart" in found.verdict

    def test_nine_replicas_are_not_enough_and_ten_are(self):
        few = run(0.30, 0.05, n_resamples=3, n_inits=3, n_replicas=9)
        assert diagnose(trials(few)).kind == "not enough replicas"
        enough = few | {"n_resamples": 5, "n_inits": 2, "n_replicas": 10}
        assert diagnose(trials(enough)).kind == "underfitting"

    def test_diverged_replicas_do_not_count_as_replicas(self):
        found = diagnose(trials(run(0.30, 0.05, n_diverged=23, outcome="diverged")))
        assert found.kind == "not enough replicas"
        assert checks_table(found).set_index("name").loc["diverged replicas", "status"] == "attention"

    def test_an_interval_of_the_sum_wider_than_half_of_it_is_not_enough(self):
        assert diagnose(trials(run(0.35, 0.01, width=0.49))).kind != "not enough replicas"
        assert diagnose(trials(run(0.35, 0.01, width=0.51))).kind == "not enough replicas"

    def test_the_noise_floor_needs_the_upper_end_below_a_tenth_of_the_noise(self):
        assert diagnose(trials(run(0.02, 0.02, noise=0.5))).kind == "noise floor"  # upper end .042 ≤ .05
        assert diagnose(trials(run(0.03, 0.02, noise=0.5))).kind != "noise floor"  # upper end .0525
        assert diagnose(trials(run(0.02, 0.02))).kind != "noise floor"

    def test_a_negative_estimate_of_bias_is_overfitting_and_not_an_error(self):
        found = diagnose(trials(run(-0.005, 0.30, noise=0.1)))
        assert (found.kind, found.share) == ("overfitting", 0.0)

    def test_the_newest_confirm_run_is_judged_before_any_explore_trial(self):
        table = trials(run(0.05, 0.30, number=0), run(0.30, 0.05, number=1),
                       run(0.2, 0.001, phase="explore", number=7))  # fmt: skip
        assert diagnose(table).key == "confirm-0001"

    def test_without_a_measured_confirm_run_the_best_trial_counts_diverged_replicas_as_worst(self):
        table = trials(
            run(math.nan, math.nan, number=3), run(0.30, 0.05, phase="explore", number=0),
            run(0.05, 0.25, phase="explore", number=1), run(0.05, 0.05, phase="explore", number=2, n_diverged=12),
        )  # fmt: skip
        assert chosen(table)["key"] == "explore-0001"


class TestShare:
    def test_its_interval_is_the_worst_corner_of_the_two(self):
        share = share_of_bias(Estimate(0.3, 0.2, 0.4), Estimate(0.1, 0.05, 0.15))
        assert (share.value, share.lo, share.hi) == pytest.approx((0.75, 0.2 / 0.35, 0.4 / 0.45))

    def test_it_stays_between_0_and_1_when_ends_are_negative(self):
        share = share_of_bias(Estimate(0.01, -0.1, 0.2), Estimate(0.02, -0.1, 0.2))
        assert (share.lo, share.hi) == (0.0, 1.0)

    @pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.9])
    def test_it_covers_the_truth_in_at_least_ninety_per_cent(self, correlation):
        """Both estimates normal, 2,000 draws: the binomial sd is 0.7 points, Bonferroni promises 90 %."""
        rng, truth, sd = np.random.default_rng(0), np.array([0.2, 0.1]), np.array([0.03, 0.02])
        mix = np.linalg.cholesky([[1, correlation], [correlation, 1]])
        hits = 0
        for b, v in truth + sd * (rng.standard_normal((2000, 2)) @ mix.T):
            share = share_of_bias(Estimate(b, b - 1.96 * sd[0], b + 1.96 * sd[0]),
                                  Estimate(v, v - 1.96 * sd[1], v + 1.96 * sd[1]))  # fmt: skip
            hits += share.lo <= 2 / 3 <= share.hi
        assert hits / 2000 >= 0.90


class TestDoubleDescent:
    def history(self, noise):
        rng = np.random.default_rng(0)
        rows = levels([(0.3, 0.1), (0.1, 0.1), (0.1, 0.35), (0.1, 0.1)])
        for row, error in zip(rows, (0.2, 0.1, 0.0, 0.0), strict=True):
            row["train_error"] = error
        frames = [pd.DataFrame({
            "key": row["key"], "epoch": 60, "resample": np.arange(32) // 4, "init": np.arange(32) % 4,
            "diverged": False, "val_risk": row["risk"],
            "test_risk": row["risk"] + noise * rng.standard_normal(32),
        }) for row in rows]  # fmt: skip
        return trials(*rows), pd.concat(frames, ignore_index=True)

    def test_a_significant_peak_at_the_threshold_is_evidence(self):
        table, replicas = self.history(0.05)
        found = diagnose(table, None, replicas)
        assert any(
            line.startswith("double descent: a significant peak of the risk at width 64") for line in found.evidence
        )

    def test_an_insignificant_one_is_not(self):
        table, replicas = self.history(3.0)
        found = diagnose(table, None, replicas)
        assert not any("double descent" in line for line in found.evidence)

    def test_a_peak_between_networks_of_nearly_one_size_is_none_of_capacity(self):
        """What differs between them are the other knobs; with sizes apart the same risks are a peak."""
        table, replicas = self.history(0.05)
        sizes = {"apart": [1000, 2000, 4000, 8000], "alike": [4000, 4100, 4200, 4300]}
        two_dials = table.assign(depth=[1, 2, 1, 2])  # capacity is then the number of parameters
        said = {name: diagnose(two_dials.assign(n_parameters=n), None, replicas).evidence for name, n in sizes.items()}
        assert any("peak of the risk at 4,000 parameters" in line for line in said["apart"])
        assert not any("peak" in line for line in said["alike"])


class TestText:
    @pytest.mark.parametrize("table", [
        pd.DataFrame(), trials(run(math.nan, math.nan, n_diverged=32)), trials(run(0.3, 0.05)),
        trials(run(0.3, 0.05, phase="explore")),
        trials(run(0.3, 0.05)).drop(columns=["n_inits", "risk", "learning_rate"]),
        trials(run(0.3, 0.05))[["bias_sq", "variance"]], trials(run(0.3, 0.05, n_resamples=2)),
        trials(run(0.0, 0.0)), trials(run(0.3, 0.05, width=math.nan)),
    ])  # fmt: skip
    def test_any_history_ends_in_three_lines_and_a_table_of_checks(self, table):
        found = diagnose(table, pd.DataFrame(), pd.DataFrame())
        assert found.kind in KINDS
        assert len(lines(found)) == 3
        assert all("\n" not in line and line for line in lines(found))
        assert list(checks_table(found).columns) == CHECKS
        assert len(found.verdict.split()) <= 12
        assert {c.status for c in found.checks} <= {"fail", "attention", "not measured", "ok", "info"}

    def test_the_lines_are_verdict_numbers_with_n_and_the_command(self):
        table = trials(run(0.05, 0.30), *learning([0.60, 0.47, 0.35]))
        verdict, numbers, next_step = lines(diagnose(table, study="capacity_sweep"))
        assert verdict == "Overfitting: variance outweighs bias² + noise."
        assert "0.0500 [0.0325, 0.0675]" in numbers
        assert "32 replicas of 8 training sets × 4 seeds" in numbers
        assert next_step.endswith(": python -m lab.study run capacity_sweep --set n_train=300")

    def test_association_is_not_called_causation(self):
        table = trials(run(0.05, 0.30), *learning([0.6, 0.47, 0.35]), *levels([(0.5, 0.1), (0.3, 0.2), (0.05, 0.3)]))
        found = diagnose(table, study="capacity_sweep")
        said = " ".join([*found.evidence, *lines(found), *(c.note for c in found.checks)])
        assert "goes with" in said
        assert "cause" not in said
