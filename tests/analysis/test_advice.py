"""Advice follows from effects that were measured, with a command that runs, the largest gain first."""

import math
import shlex

import numpy as np
import pandas as pd
import pytest

from lab import study_file
from lab.analysis.attribution import Effect, moves
from lab.analysis.capacity_curve import Estimate
from lab.analysis.diagnosis import checks_table, diagnose, lines
from lab.flags import build_parser
from lab.replication import Replication
from lab.spec import Int, Study
from tests.analysis.histories import DATA, SPEC, curves, learning, levels, run, trials


def texts(diagnosis):
    return " | ".join(action.text for action in diagnosis.actions)


class TestAdvice:
    study = "capacity_sweep"

    def test_variance_by_seed_asks_for_an_ensemble_with_the_gain_that_follows(self):
        row = run(0.05, 0.30) | {"variance_init": 0.1, "variance_init_lo": 0.08, "variance_init_hi": 0.12}
        found = diagnose(trials(row), study=self.study)
        # four seeds leave a quarter of it: 3/4 of 0.1, and of its interval
        assert "4 seeds: takes 0.0750 [0.0600, 0.0900] off the risk" in texts(found)
        assert found.actions[0].command.endswith("--set n_inits=8")

    def test_a_measured_ensemble_is_believed_before_the_parts(self):
        table = pd.DataFrame(
            {
                "ensemble": ["same_data"] * 2 + ["fresh_data"],
                "n_members": [1, 4, 8],
                "gain": [0.0, 0.05, 0.2],
                "gain_lo": [0.0, 0.04, 0.1],
                "gain_hi": [0.0, 0.06, 0.3],
            }
        )
        row = run(0.05, 0.30) | {"variance_init": 0.2, "variance_init_lo": 0.18, "variance_init_hi": 0.22}
        found = diagnose(trials(row), study=self.study, ensembles=table)
        assert "takes 0.0500 [0.0400, 0.0600] off the risk (measured" in texts(found)
        assert found.actions[0].gain == Estimate(0.05, 0.04, 0.06)

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

    @pytest.mark.parametrize(("scheme", "n_pool", "settings"), [
        ("disjoint", 2400, "n_train=300"), ("disjoint", 1600, "n_train=200"),
        ("disjoint", 1297, "n_train=300 --set n_partitions=2"), ("disjoint", 620, "n_train=300 --set n_partitions=4"),
        ("disjoint", 500, "n_train=300 --set scheme=subsample"), ("subsample", 1297, "n_train=300"),
        ("subsample", 200, "n_train=200"), ("subsample", 160, None), ("fresh", 1, "n_train=300"),
    ])  # fmt: skip
    def test_more_data_come_from_what_the_pool_and_the_scheme_still_give(self, scheme, n_pool, settings):
        spec, data = {"replication": {"scheme": scheme, "n_resamples": 8}}, {"n_pool": n_pool}
        table = trials(run(0.05, 0.30), *learning([0.60, 0.47, 0.35]))
        found = diagnose(table, study=self.study, spec=spec, data=data).actions[0]
        if settings is None:
            assert found.command is None and "larger data set" in found.text
        else:
            assert found.command == f"python -m lab.study run capacity_sweep --set {settings}"
            assert ("overlap" in found.text) == ("subsample" in settings)

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

    @pytest.mark.parametrize(("shape", "train", "command_end", "check"), [
        (lambda e: 1 - 0.01 * e, None, "--set epochs=120", "best epoch"),
        (lambda e: 0.5 + 0.01 * abs(e - 30), None, "--set epochs=30", "overtrained (generalisation loss)"),
        (lambda e: 1 - 0.01 * e, lambda e: 1 + 0.1 * e, "--set learning_rate=0.001", "training loss"),
    ])  # fmt: skip
    def test_training_curves_ask_for_their_cure_first(self, shape, train, command_end, check):
        replicas = curves(shape, train) if train else curves(shape)
        found = diagnose(trials(run(0.30, 0.05)), None, replicas, study=self.study)
        assert found.actions[0].command.endswith(command_end)
        assert checks_table(found).set_index("name").loc[check, "status"] == "attention"

    def test_mean_curves_alone_advise_nothing(self):
        epochs = curves(lambda e: 0.5 + 0.01 * abs(e - 30)).groupby(["key", "epoch"], as_index=False)["val_risk"]
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
        data = "train on 300 examples instead of 150: going from 75 to 150 lowered the risk by 0.250"
        for risks, first in (([0.60, 0.47, 0.35], data), ([0.39, 0.37, 0.35], "average")):
            found = diagnose(trials(run(0.05, 0.30) | seeds, *learning(risks, 0.001)), study=self.study)
            assert found.actions[0].text.startswith(first)

    def test_an_unclear_verdict_asks_for_replicas_among_the_first_three(self):
        found = diagnose(trials(run(0.20, 0.15), *learning([0.60, 0.47, 0.35])), study=self.study)
        assert found.kind == "unclear" and found.actions[-1].text.startswith("more replicas")
        assert len(found.actions) <= 3

    @pytest.mark.parametrize(("scheme", "n_resamples", "n_train", "settings"), [
        ("disjoint", 8, 80, "n_resamples=16"), ("disjoint", 8, 120, "n_resamples=12"),
        ("disjoint", 8, 150, "n_resamples=16 --set scheme=subsample"),
        ("subsample", 8, 150, "n_resamples=16"), ("bootstrap", 8, 150, "n_resamples=16"),
        ("fresh", 8, 150, "n_resamples=16"), ("seeds", 1, 150, "n_inits=8"),
    ])  # fmt: skip
    def test_more_replicas_are_such_as_the_pool_and_the_scheme_give(self, scheme, n_resamples, n_train, settings):
        spec = SPEC | {"replication": {"scheme": scheme, "n_resamples": n_resamples, "n_inits": 4}}
        table = trials(run(0.05, 0.30, n_replicas=8, n_train=n_train))
        found = diagnose(table, study=self.study, spec=spec, data=DATA)
        assert found.kind == "not enough replicas"
        assert [a.command for a in found.actions] == [f"python -m lab.study run capacity_sweep --set {settings}"]

    @pytest.mark.parametrize(("n_pool", "ending"), [(1200, "run capacity_sweep --set n_test=800"), (600, None)])
    def test_where_few_test_images_make_the_interval_wide_more_of_them_are_advised_as_far_as_there_are(
        self, n_pool, ending
    ):
        table, data = trials(run(0.35, 0.01, width=0.51, n_train=30)), DATA | {"n_pool": n_pool, "n_test": 400}
        found = diagnose(table, study=self.study, spec=SPEC, data=data, test_share=0.8)
        assert found.verdict == "Not enough test images for a verdict: the intervals are too wide"
        [action] = found.actions
        assert action.text.startswith("more test images than 400: 80\u00a0% of the squared width")
        assert (action.command and action.command.removeprefix("python -m lab.study ")) == ending
        few = diagnose(table, study=self.study, spec=SPEC, data=data, test_share=0.4)
        spec = SPEC | {"replication": SPEC["replication"] | {"scheme": "subsample"}}
        drawn = diagnose(table, study=self.study, spec=spec, data=data, test_share=0.8).actions[0].text
        assert f"share {30 / (n_pool - 400):.0%}".replace("%", "\u00a0%") in drawn
        none_left = diagnose(table, study=self.study, spec=spec, data=data | {"n_pool": 400}, test_share=0.8)
        assert none_left.actions[0].command is None
        assert few.verdict.startswith("Not enough replicas")
        assert diagnose(trials(run(0.3, 0.05, n_replicas=9)), test_share=0.9).actions[0].text.startswith("more repl")

    def test_a_knob_whose_better_value_went_with_less_risk_is_advised_as_an_association(self):
        effects = (
            Effect("dropout", "risk", 0.0, 0.4, 0.8, 0.7, 0.9),
            Effect("init_gain", "risk", 1.0, 2.0, 0.9, 0.8, 1.1),
        )
        found = diagnose(trials(run(0.05, 0.30)), study=self.study, effects=effects)
        assert len(found.actions) == 1
        assert "dropout 0.400 instead of 0: among the trials" in found.actions[0].text
        assert "goes with 0.800 [0.700, 0.900] times the risk" in found.actions[0].text
        assert found.actions[0].command.endswith("--set dropout=0.4")
        gain = found.actions[0].gain  # of a risk of 0.35
        assert (gain.value, gain.lo, gain.hi) == pytest.approx((0.07, 0.035, 0.105))

    def test_variants_are_advised_with_their_difference_and_on_top_of_the_one_that_was_chosen(self):
        variants = {"baseline": {}, "dropout=0.5": {"dropout": 0.5}, "dropout=0.2": {"dropout": 0.2},
                    "weight_decay=3": {"weight_decay": 3.0}}  # fmt: skip
        changes = {"dropout=0.5": -0.08, "dropout=0.2": -0.03, "weight_decay=3": -0.05}
        table = pd.DataFrame([
            {"variant": name, "term": term, "baseline": 0.36, "difference": change, "lo": change - 0.02,
             "hi": change + 0.02}
            for name, change in changes.items() for term in ("risk", "bias_sq", "variance")
        ])  # fmt: skip
        spec = SPEC | {"variants": variants}

        def advised(variant):
            row = trials(run(0.05, 0.30, variant=variant))
            return diagnose(row, study="regularization", spec=spec, data=DATA, interventions=table).actions

        unknown = trials(run(0.05, 0.30, variant="baseline")).drop(columns="n_inits")  # of no use to these
        assert len(diagnose(unknown, spec=spec, data=DATA, interventions=table).actions) == 3
        first, second, third = advised("baseline")
        assert first.text.startswith("dropout=0.5: lowered the risk by 0.0800 [0.0600, 0.1000]")
        assert [a.command.split("--set ")[1] for a in (first, second, third)] == [
            "dropout=0.5", "weight_decay=3", "dropout=0.2",
        ]  # fmt: skip
        (only,) = advised("dropout=0.5")  # what it has is not advised again, nor another value of the same knob
        assert only.text.startswith(
            "weight decay=3 on top of dropout=0.5: alone it lowered the risk of the baseline by 0.0500"
        )


@pytest.fixture(scope="module")
def sweep():
    """Forty trials whose risk is 0.5 · 2^(−2·dropout) whatever the width, up to a per cent of noise."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(40):
        dropout, width = float(rng.uniform(0, 0.5)), int(rng.integers(16, 64))
        risk = 0.5 * 2 ** (-2 * dropout) * (1 + 0.01 * rng.standard_normal())
        rows.append(run(risk / 2, risk / 2, phase="explore", number=k) | {"dropout": dropout, "width": width})
    return trials(*rows)


class TestMoves:
    def test_the_knob_that_matters_is_found_with_its_ratio_and_the_other_is_not_named(self, sweep):
        found = moves(sweep, {"dropout": 0.0, "width": 32})
        assert [effect.knob for effect in found] == ["dropout"]
        effect = found[0]
        assert effect.low == 0.0 and effect.high > 0.4
        assert effect.ratio_lo < effect.ratio < effect.ratio_hi < 1
        assert 0.5 < effect.ratio < 0.7  # 2^(−2·0.5) = 0.5 from end to end; a forest flattens the ends

    def test_from_the_best_value_there_is_nothing_to_gain(self, sweep):
        found = moves(sweep, {"dropout": 0.5, "width": 32})
        assert all(effect.ratio > 0.97 for effect in found)

    def test_without_a_reliable_ranking_nothing_is_said(self, sweep):
        shuffled = sweep.assign(dropout=np.random.default_rng(1).permutation(sweep["dropout"]))
        assert moves(shuffled, {"dropout": 0.0, "width": 32}) == ()


def test_every_command_of_a_diagnosis_is_taken_by_the_command_line_and_makes_a_possible_study():
    """Each is parsed by the real parser, and applied to a study file with the plan that the history had."""
    base = Study(question="?", data="digits", space={"width": Int(4, 64, log=True)},
                 fixed={"epochs": 60, "n_train": 150}, replication=Replication(**SPEC["replication"]))  # fmt: skip
    weak = run(
        0.05, 0.30, width=0.6, error=0.4, n_diverged=3, n_replicas=8, dropout=0.5, n_vanishing=1.0, n_exploding=0.0
    )
    lost = run(math.nan, 0.05, phase="explore", number=1)
    importance = pd.DataFrame({"target": ["bias_sq", "variance"], "knob": "width", "r2": [0.9, 0.1]})
    printed = set()
    for row in (weak, run(0.05, 0.30), run(0.20, 0.15)):
        for shape in (lambda e: 1 - 0.01 * e, lambda e: 0.5 + 0.01 * abs(e - 30)):
            table = trials(row, lost, run(0.3, 0.3, phase="explore", number=2), *learning([0.60, 0.47, 0.35]))
            found = diagnose(table, None, curves(shape), study="capacity_sweep", spec=SPEC, data=DATA | {"n_test": 100},
                             importance=importance)  # fmt: skip
            printed |= {a.command for a in found.actions} | {c.command for c in found.checks}
    printed -= {"", None}
    assert len(printed) >= 8
    for line in printed:
        args = build_parser().parse_args(shlex.split(line)[3:])
        if args.command == "run":
            settings = study_file.parse_settings(args.set)
            study, _ = study_file.change(base, args.name, settings=settings, n_trials=args.trials)
            plan = study.replication
            if plan.scheme == "disjoint":
                assert plan.n_blocks * settings.get("n_train", 150) <= DATA["n_pool"], line
