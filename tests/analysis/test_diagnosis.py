"""Diagnosis: histories with a known answer get it, and advice follows from effects that were measured."""

import math

import numpy as np
import pandas as pd
import pytest

from lab.analysis.capacity_curve import Estimate
from lab.analysis.case import chosen, command, share_of_bias
from lab.analysis.diagnosis import CHECKS, checks_table, diagnose, lines

KINDS = {"underfitting", "overfitting", "balanced", "noise floor", "not enough replicas", "unclear"}


def run(bias_sq, variance, *, width=0.05, noise=None, phase="confirm", number=0, **columns):
    """Return a row of `trials`; `width` is the half-width of each interval over bias² + variance."""
    row = {
        "key": f"{phase}-{number:04d}", "phase": phase, "number": number, "started": float(number),
        "outcome": "finished", "width": 64, "depth": 2, "n_parameters": 5000, "learning_rate": 3e-3, "epochs": 60,
        "n_train": 150, "n_resamples": 8, "n_inits": 4, "n_replicas": 32, "n_diverged": 0,
        "train_error": 0.01, "val_error": 0.08, "val_risk": bias_sq + variance,
    }  # fmt: skip
    half = width * (bias_sq + variance)
    parts = {"bias_sq": bias_sq, "variance": variance, "risk": bias_sq + variance + (noise or 0.0)}
    parts |= {"variance_resample": 0.6 * variance, "variance_init": 0.0, "variance_interaction": 0.0}
    for name, value in parts.items():
        row |= {name: value, f"{name}_lo": value - half, f"{name}_hi": value + half}
    row |= {f"noise{end}": math.nan if noise is None else noise for end in ("", "_lo", "_hi")}
    return row | columns


def trials(*rows):
    return pd.DataFrame(list(rows))


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


def texts(diagnosis):
    return " | ".join(action.text for action in diagnosis.actions)


def learning(risks, width=0.005):
    rows = [run(r / 2, r / 2, width=width, phase="learning_curve", number=k, n_train=round(75 * 2 ** (k / 2)))
            for k, r in enumerate(risks)]  # fmt: skip
    return rows


def levels(parts, width=0.02):
    """Return explore trials of widths 16, 32, 64, 128 … with (bias², variance) of each."""
    return [run(b, v, width=width, phase="explore", number=k) | {"width": 16 * 2**k, "n_parameters": 1600 * 2**k}
            for k, (b, v) in enumerate(parts)]  # fmt: skip


class TestAdvice:
    study = "capacity_sweep"

    def test_variance_by_seed_asks_for_an_ensemble_with_the_gain_that_follows(self):
        row = run(0.05, 0.30) | {"variance_init": 0.1, "variance_init_lo": 0.08, "variance_init_hi": 0.12}
        found = diagnose(trials(row), study=self.study)
        assert f"about {0.8 * 0.1:.3g} off the risk" in texts(found)

    def test_a_cause_whose_interval_holds_0_is_neither_quoted_nor_used(self):
        row = run(0.05, 0.30) | {"variance_init": 0.1, "variance_init_lo": -0.01, "variance_init_hi": 0.21}
        found = diagnose(trials(row), study=self.study)
        assert "seeds" not in texts(found)
        assert not any("variance by seed" in line for line in found.evidence)
        assert any("variance by training set" in line for line in found.evidence)

    def test_a_falling_learning_curve_asks_for_more_data_with_a_command(self):
        found = diagnose(trials(run(0.05, 0.30), *learning([0.60, 0.47, 0.35])), study=self.study)
        assert found.actions[0].command == "python -m lab.study run capacity_sweep --set n_train=300"
        assert any(line.startswith("n_train from 75 to 150 goes with") for line in found.evidence)

    def test_a_flat_or_unsure_learning_curve_does_not(self):
        for risks, width in (([0.35, 0.35, 0.35], 0.005), ([0.40, 0.37, 0.35], 0.3)):
            found = diagnose(trials(run(0.05, 0.30), *learning(risks, width)), study=self.study)
            assert "training examples" not in texts(found)
            assert not any("n_train" in line for line in found.evidence)

    def test_more_data_than_the_pool_has_is_not_put_in_a_command(self):
        spec, data = {"replication": {"scheme": "disjoint", "n_resamples": 8}}, {"n_pool": 1297}
        table = trials(run(0.05, 0.30), *learning([0.60, 0.47, 0.35]))
        found = diagnose(table, study=self.study, spec=spec, data=data)
        assert found.actions[0].command is None
        assert "no more" in found.actions[0].text
        more = diagnose(table, study=self.study, spec=spec, data={"n_pool": 1600})
        assert more.actions[0].command.endswith("--set n_train=200")

    def test_underfitting_asks_for_the_larger_network_that_was_measured_to_be_better(self):
        table = trials(run(0.30, 0.05), *levels([(0.5, 0.05), (0.4, 0.05), (0.3, 0.05), (0.2, 0.05)]))
        found = diagnose(table, study=self.study)
        assert found.kind == "underfitting"
        assert found.actions[0].command == "python -m lab.study run capacity_sweep --set width=128"

    def test_at_the_top_of_the_curve_it_goes_beyond_if_the_last_step_still_helped(self):
        table = trials(run(0.30, 0.05), *levels([(0.5, 0.05), (0.4, 0.05), (0.3, 0.05)]))
        found = diagnose(table, study=self.study)
        assert "beyond the range tried" in found.actions[0].text
        assert found.actions[0].command.endswith("--set width=128")

    @pytest.mark.parametrize(("above", "width"), [
        ((0.20, 0.25), 0.02),  # risk rose
        ((0.20, 0.13), 0.10),  # risk fell within its interval only
        ((0.30, 0.01), 0.02),  # risk fell, bias² did not
        ((0.292, 0.05), 0.001),  # both fell, by too little to matter
    ])  # fmt: skip
    def test_a_larger_network_is_not_advised_where_risk_or_bias_did_not_fall_with_it(self, above, width):
        table = trials(run(0.30, 0.05), *levels([(0.5, 0.05), (0.4, 0.05), (0.3, 0.05), above], width))
        assert "larger network" not in texts(diagnose(table, study=self.study))

    def test_networks_of_nearly_one_size_are_no_step_of_capacity(self):
        rows = levels([(0.5, 0.05), (0.4, 0.05), (0.3, 0.05)])
        table = trials(run(0.30, 0.05), *rows)
        for row in (table, table.assign(depth=[2, 1, 2, 3])):  # two dials: capacity is the number of parameters
            assert "larger network" in texts(diagnose(row, study=self.study))
        alike = table.assign(depth=[2, 1, 2, 3], n_parameters=[5000, 4900, 4950, 5000])
        assert "larger network" not in texts(diagnose(alike, study=self.study))

    def test_overfitting_asks_for_a_smaller_network_only_where_risk_fell_with_it(self):
        helps = trials(run(0.05, 0.30), *levels([(0.05, 0.1), (0.05, 0.2), (0.05, 0.3)]))
        assert "a smaller network" in texts(diagnose(helps, study=self.study))
        assert diagnose(helps, study=self.study).actions[-1].command.endswith("--set width=32")
        hurts = trials(run(0.05, 0.30), *levels([(0.5, 0.1), (0.3, 0.2), (0.05, 0.3)]))
        assert "smaller network" not in texts(diagnose(hurts, study=self.study))

    def curves(self, shape, train=lambda e: math.exp(-e / 10)):
        rng, rows = np.random.default_rng(0), []
        for r in range(32):
            rows += [{"key": "confirm-0000", "phase": "confirm", "number": 0, "epoch": e, "replica": r,
                      "resample": 8 + r // 4, "init": r % 4, "diverged": False, "train_loss": train(e),
                      "val_risk": shape(e) + 0.005 * rng.standard_normal()}
                     for e in (0, 5, 15, 30, 45, 60)]  # fmt: skip
        return pd.DataFrame(rows)

    @pytest.mark.parametrize(("shape", "train", "command_end", "check"), [
        (lambda e: 1 - 0.01 * e, None, "--set epochs=120", "best epoch"),
        (lambda e: 0.5 + 0.01 * abs(e - 30), None, "--set epochs=30", "overtrained (generalisation loss)"),
        (lambda e: 1 - 0.01 * e, lambda e: 1 + 0.1 * e, "--set learning_rate=0.001", "training loss"),
    ])  # fmt: skip
    def test_training_curves_ask_for_their_cure_first(self, shape, train, command_end, check):
        replicas = self.curves(shape, train) if train else self.curves(shape)
        found = diagnose(trials(run(0.30, 0.05)), None, replicas, study=self.study)
        assert found.actions[0].command.endswith(command_end)
        assert checks_table(found).set_index("name").loc[check, "status"] == "attention"

    @pytest.mark.parametrize(("numbers", "status"), [
        ({}, "not measured"), ({"n_vanishing": 0.0, "n_exploding": 0.0}, "ok"),
        ({"n_vanishing": 2.0, "n_exploding": 0.0}, "attention"),
        ({"n_vanishing": 0.0, "n_exploding": 1.0}, "attention"),
    ])  # fmt: skip
    def test_gradients_that_vanish_or_explode_in_any_replica_ask_for_attention(self, numbers, status):
        found = checks_table(diagnose(trials(run(0.30, 0.05) | numbers)))
        assert found.set_index("name").loc["gradients of the first layer", "status"] == status

    def test_mean_curves_alone_advise_nothing(self):
        epochs = self.curves(lambda e: 0.5 + 0.01 * abs(e - 30)).groupby(["key", "epoch"], as_index=False)["val_risk"]
        found = diagnose(trials(run(0.30, 0.05)), epochs.mean(), None, study=self.study)
        assert found.actions == ()

    def test_too_few_replicas_ask_for_more_and_for_nothing_else(self):
        few = run(0.05, 0.30, n_replicas=8, n_resamples=4, n_inits=2)
        table = trials(few, *learning([0.60, 0.47, 0.35]))
        found = diagnose(table, study="capacity_sweep,smoke")
        assert [action.command for action in found.actions] == ["python -m lab.study run capacity_sweep"]
        assert diagnose(table, study="capacity_sweep").actions[0].command is None

    def test_at_the_noise_floor_nothing_is_advised(self):
        table = trials(run(0.02, 0.02, noise=0.5), *learning([0.60, 0.47, 0.35]))
        found = diagnose(table, study=self.study)
        assert found.actions == ()
        assert "labels" in lines(found)[2]

    def test_the_largest_measured_gain_comes_first(self):
        seeds = {"variance_init": 0.15, "variance_init_lo": 0.13, "variance_init_hi": 0.17}
        for risks, first in (([0.60, 0.47, 0.35], "more training"), ([0.39, 0.37, 0.35], "average")):
            found = diagnose(trials(run(0.05, 0.30) | seeds, *learning(risks, 0.001)), study=self.study)
            assert found.actions[0].text.startswith(first)

    def test_an_unclear_verdict_asks_for_replicas_among_the_first_three(self):
        found = diagnose(trials(run(0.20, 0.15), *learning([0.60, 0.47, 0.35])), study=self.study)
        assert found.kind == "unclear" and found.actions[-1].text.startswith("more replicas")
        assert len(found.actions) <= 3


SPEC = {
    "replication": {"scheme": "disjoint", "n_resamples": 8, "n_inits": 4},
    "space": {
        "width": {"kind": "int", "low": 4, "high": 64, "log": True}, "depth": {"kind": "int", "low": 1, "high": 4},
        "learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "dropout": {"kind": "float", "low": 0.0, "high": 0.5, "log": False},
    },
}  # fmt: skip
DATA = {"n_pool": 1500, "n_test": 400, "class_names": list("0123456789")}


class TestChecks:
    def status(self, table, name, *, spec=SPEC, data=DATA, importance=None):
        found = checks_table(diagnose(table, spec=spec, data=data, importance=importance)).set_index("name")
        return found.loc[name, "status"], found.loc[name, "measured"]

    def test_a_best_value_at_the_end_of_its_range_is_named(self):
        name = "best values inside the searched ranges"
        assert self.status(trials(run(0.3, 0.05) | {"dropout": 0.0}), name) == ("attention", "width 64 of 4 to 64")
        inside = run(0.3, 0.05) | {"width": 32, "depth": 4, "dropout": 0.0}  # nothing lies below a dropout of 0
        assert self.status(trials(inside), name) == ("ok", "all inside")
        assert self.status(trials(inside | {"dropout": 0.5}), name)[0] == "attention"

    def test_what_was_only_found_and_not_confirmed_is_not_measured_and_luck_is_seen(self):
        name, found = "confirmed as found in the search", run(0.20, 0.05, phase="explore")
        assert self.status(trials(found), name)[0] == "not measured"
        assert self.status(trials(found, run(0.21, 0.05)), name)[0] == "ok"
        assert self.status(trials(found, run(0.40, 0.05)), name)[0] == "attention"

    def test_no_better_than_guessing_fails(self):
        assert self.status(trials(run(0.3, 0.05)), "better than guessing")[0] == "ok"
        assert self.status(trials(run(0.8, 0.1)), "better than guessing")[0] == "fail"  # guessing: 0.9

    def test_a_small_test_set_asks_for_attention(self):
        name, row = "size of the test set", run(0.3, 0.05) | {"error": 0.1}
        assert self.status(trials(row), name) == ("ok", "1.5% from 400 images")  # √(.1·.9/400)
        assert self.status(trials(row), name, data=DATA | {"n_test": 100})[0] == "attention"

    @pytest.mark.parametrize(("scheme", "n_train", "status"), [
        ("disjoint", 150, "ok"), ("fresh", 150, "ok"), ("subsample", 100, "ok"), ("subsample", 600, "attention"),
        ("bootstrap", 100, "attention"), ("seeds", 100, "attention"),
    ])  # fmt: skip
    def test_training_sets_that_overlap_ask_for_attention(self, scheme, n_train, status):
        spec = SPEC | {"replication": {"scheme": scheme, "n_resamples": 8, "n_inits": 4}}
        found = self.status(trials(run(0.3, 0.05, n_train=n_train)), "overlap of training sets", spec=spec)
        assert found[0] == status

    @pytest.mark.parametrize(("n_lost", "status"), [(0, "ok"), (1, "ok"), (2, "attention"), (5, "fail")])
    def test_trials_without_a_result_are_counted(self, n_lost, status):
        rows = [run(math.nan if k < n_lost else 0.3, 0.05, phase="explore", number=k) for k in range(10)]
        found = self.status(trials(*rows, run(0.3, 0.05)), "trials without a result")
        assert found == (status, f"{n_lost} of 10")

    def test_knobs_that_explain_little_ask_for_attention(self):
        def table(r2):
            return pd.DataFrame({"target": ["bias_sq", "variance"], "knob": "width", "r2": [0.9, r2]})

        name = "what the knobs explain"
        for r2, status in ((0.7, "ok"), (0.3, "attention")):
            found = self.status(trials(run(0.3, 0.05)), name, importance=table(r2))
            assert found == (status, f"bias² + noise 0.90, variance {r2:.2f}")

    def test_too_few_replicas_fail(self):
        few = run(0.3, 0.05, n_resamples=3, n_inits=3, n_replicas=9)
        assert self.status(trials(few), "replicas")[0] == "fail"


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
        assert any(line.startswith("double descent: a significant peak at width 64") for line in found.evidence)

    def test_an_insignificant_one_is_not(self):
        table, replicas = self.history(3.0)
        found = diagnose(table, None, replicas)
        assert not any("double descent" in line for line in found.evidence)


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
        assert "0.05 (0.0325 to 0.0675)" in numbers
        assert "32 replicas of 8 training sets × 4 seeds" in numbers
        assert next_step.endswith(": python -m lab.study run capacity_sweep --set n_train=300")

    def test_association_is_not_called_causation(self):
        table = trials(run(0.05, 0.30), *learning([0.6, 0.47, 0.35]), *levels([(0.5, 0.1), (0.3, 0.2), (0.05, 0.3)]))
        found = diagnose(table, study="capacity_sweep")
        said = " ".join([*found.evidence, *lines(found), *(c.note for c in found.checks)])
        assert "goes with" in said
        assert "cause" not in said

    def test_commands_repeat_the_flags_that_made_the_study(self):
        assert command("capacity_sweep,data=fashion_mnist,family=cnn,smoke", width=256, learning_rate=0.001) == (
            "python -m lab.study run capacity_sweep --data fashion_mnist --smoke "
            "--set family=cnn --set width=256 --set learning_rate=0.001"
        )
        assert command("capacity_sweep,width=64", width=128) == "python -m lab.study run capacity_sweep --set width=128"
        assert command("", width=64) is None
