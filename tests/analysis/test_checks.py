"""Rules as applied: histories that break one of them are told so, with what would put it right."""

import math

import pandas as pd
import pytest

from lab.analysis.diagnosis import checks_table, diagnose
from tests.analysis.histories import DATA, SPEC, curves, run, trials


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

    def test_only_what_leaves_the_verdict_open_asks_for_attention(self):
        name = "sure enough for a verdict"
        for row in (run(0.30, 0.05), run(0.05, 0.30), run(0.20, 0.20)):  # underfitting, overfitting, balanced
            assert self.status(trials(row), name)[0] == "ok"
        assert self.status(trials(run(0.20, 0.15)), name)[0] == "attention"
        assert self.status(trials(run(0.30, 0.05, width=0.6)), name)[0] == "attention"
        found = checks_table(diagnose(trials(run(0.20, 0.15)), study="s", spec=SPEC, data=DATA)).set_index("name")
        assert "n_resamples=16" in found.loc[name, "command"]

    def test_a_best_epoch_at_the_end_asks_for_longer_training_only_if_the_fall_is_more_than_chance(self):
        for shape, status in ((lambda e: 1 - 0.01 * e, "attention"), (lambda e: 0.4 + 0.1 * (e < 30), "ok")):
            replicas = curves(shape)
            if status == "ok":  # lowest at the end, by a tenth of the standard error of a difference
                means = replicas.groupby("epoch")["val_risk"].mean()
                replicas.loc[replicas["epoch"] == 60, "val_risk"] += means.min() - means[60] - 1e-4
            found = checks_table(diagnose(trials(run(0.3, 0.05)), replicas=replicas)).set_index("name")
            assert found.loc["best epoch", "measured"].startswith("at 100")
            assert found.loc["best epoch", "status"] == status
        assert "within two standard errors" in found.loc["best epoch", "measured"]

    def test_what_a_study_does_not_ask_is_no_check(self):
        ranking = pd.DataFrame({"target": ["bias_sq", "variance"], "knob": "dropout", "r2": [0.9, 0.1]})

        def names(**spec):
            table = diagnose(trials(run(0.3, 0.05)), spec=SPEC | spec, data=DATA, importance=ranking)
            return set(checks_table(table)["name"])

        asked = {"what the knobs explain", "double descent"}
        assert asked <= names()
        assert names(space={}, variants={"baseline": {}}).isdisjoint(asked)

    def test_what_was_only_found_and_not_confirmed_is_not_measured_and_luck_is_seen(self):
        name, found = "confirmed as found in the search", run(0.20, 0.05, phase="explore")
        assert self.status(trials(found), name)[0] == "not measured"
        assert self.status(trials(found, run(0.21, 0.05)), name)[0] == "ok"
        assert self.status(trials(found, run(0.40, 0.05)), name)[0] == "attention"

    def test_how_many_trials_are_as_sure_as_asked_and_why_the_others_stopped(self):
        plan = SPEC["replication"] | {"target_half_width": 0.01, "target_term": "bias_sq", "max_resamples": 8,
                                      "max_inits": 8, "max_replicas": 64}  # fmt: skip
        name, spec = "trials as sure as asked", SPEC | {"replication": plan}
        grown = [
            run(0.3, 0.05, phase="explore", number=k, stopped=why, target_reached=float(why == "reached"))
            for k, why in enumerate(["reached", "cap", "test set", "cap"])
        ]
        rows = checks_table(diagnose(trials(*grown), study="s", spec=spec, data=DATA)).set_index("name")
        assert rows.loc[name, ["status", "measured"]].tolist() == ["attention", "1 of 4"]
        assert rows.loc[name, "threshold"] == "half the interval of bias² + noise at most 0.01"
        assert "2 stopped as the plan allows no more replicas" in rows.loc[name, "note"]
        assert "1 stopped as the test set alone" in rows.loc[name, "note"]
        assert "--set max_inits=16 --set max_replicas=128" in rows.loc[name, "command"]
        assert self.status(trials(grown[0]), name, spec=spec) == ("ok", "1 of 1")
        assert name not in set(checks_table(diagnose(trials(run(0.3, 0.05)), spec=SPEC, data=DATA))["name"])

    def test_no_better_than_guessing_fails(self):
        assert self.status(trials(run(0.3, 0.05)), "better than guessing")[0] == "ok"
        assert self.status(trials(run(0.8, 0.1)), "better than guessing")[0] == "fail"  # guessing: 0.9

    def test_a_small_test_set_asks_for_attention(self):
        name, row = "size of the test set", run(0.3, 0.05) | {"error": 0.1}
        assert self.status(trials(row), name) == ("ok", "1.5\u00a0% from 400 images")  # √(.1·.9/400)
        assert self.status(trials(row), name, data=DATA | {"n_test": 100})[0] == "attention"

    @pytest.mark.parametrize(("scheme", "n_train", "status"), [
        ("disjoint", 150, "ok"), ("fresh", 150, "ok"), ("subsample", 100, "ok"), ("subsample", 600, "attention"),
        ("bootstrap", 100, "attention"), ("seeds", 100, "attention"),
    ])  # fmt: skip
    def test_training_sets_that_overlap_ask_for_attention(self, scheme, n_train, status):
        n_resamples = 1 if scheme == "seeds" else 8
        spec = SPEC | {"replication": {"scheme": scheme, "n_resamples": n_resamples, "n_inits": 4}}
        found = self.status(trials(run(0.3, 0.05, n_train=n_train)), "overlap of training sets", spec=spec)
        assert found[0] == status

    @pytest.mark.parametrize(("n_starts", "status"), [(1, "attention"), (3, "attention"), (4, "ok"), (9, "ok")])
    def test_fewer_networks_to_start_from_than_seeds_ask_for_attention(self, n_starts, status):
        name, row = "networks to start from", run(0.3, 0.05, n_inits=4, n_starts=n_starts)
        assert self.status(trials(row), name) == (status, f"{n_starts} for 4 seeds")
        assert name not in set(checks_table(diagnose(trials(run(0.3, 0.05)), spec=SPEC, data=DATA))["name"])

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
        for sampler, remedy in (("qmc", "--trials 40"), ("grid", "")):  # a grid has no more points than it has
            row, spec = trials(run(0.3, 0.05)), SPEC | {"sampler": sampler}
            rows = checks_table(diagnose(row, study="s", spec=spec, data=DATA, importance=table(0.3))).set_index("name")
            assert rows.loc[name, "command"].endswith(remedy) and bool(rows.loc[name, "command"]) == bool(remedy)

    def test_too_few_replicas_fail(self):
        few = run(0.3, 0.05, n_resamples=3, n_inits=3, n_replicas=9)
        assert self.status(trials(few), "replicas")[0] == "fail"

    def test_partitions_overlap_each_other_and_it_is_said_that_they_are_not_compared(self):
        spec = SPEC | {"replication": {"scheme": "disjoint", "n_resamples": 8, "n_inits": 4, "n_partitions": 2}}
        found = checks_table(diagnose(trials(run(0.3, 0.05, n_train=300)), spec=spec, data=DATA)).set_index("name")
        row = found.loc["overlap of training sets"]
        assert row["status"] == "ok"
        assert row["measured"].replace("\u00a0", " ") == (
            "0 % within a partition, 20 % expected across the 2 (not compared)"  # 300 of a pool of 1,500
        )
        assert "narrow no interval" in row["note"]

    def test_what_looks_odd_in_the_data_asks_for_attention_in_its_own_words(self):
        row = trials(run(0.3, 0.05))
        assert self.status(row, "data set", data=DATA | {"findings": []}) == ("ok", "0 findings")
        found = checks_table(diagnose(row, spec=SPEC, data=DATA | {"findings": ["no example of 7 in the test set"]}))
        assert "no example of 7 in the test set" in found.set_index("name").loc["data set", "note"]
        assert "data set" not in checks_table(diagnose(row, spec=SPEC, data=DATA))["name"].tolist()

    @pytest.mark.parametrize(("numbers", "status"), [
        ({}, "not measured"), ({"n_vanishing": 0.0, "n_exploding": 0.0}, "ok"),
        ({"n_vanishing": 2.0, "n_exploding": 0.0}, "attention"),
        ({"n_vanishing": 0.0, "n_exploding": 1.0}, "attention"),
    ])  # fmt: skip
    def test_gradients_that_vanish_or_explode_in_any_replica_ask_for_attention(self, numbers, status):
        found = checks_table(diagnose(trials(run(0.30, 0.05) | numbers)))
        assert found.set_index("name").loc["gradients of the first layer", "status"] == status

    @pytest.mark.parametrize(("numbers", "status"), [
        ({}, "not measured"), ({"signal_update": 0.001}, "ok"), ({"signal_dead": 0.4, "signal_update": 0.001}, "ok"),
        ({"signal_dead": 0.6, "signal_update": 0.001}, "attention"), ({"signal_saturated": 0.51}, "attention"),
        ({"signal_saturated": 0.1, "signal_update": 0.2}, "attention"),
    ])  # fmt: skip
    def test_layers_that_cannot_learn_or_steps_that_are_large_ask_for_attention(self, numbers, status):
        found = checks_table(diagnose(trials(run(0.30, 0.05) | numbers)))
        assert found.set_index("name").loc["activations and steps at the end", "status"] == status
