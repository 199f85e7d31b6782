"""Curves against epoch, and what their shape is taken to say."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lab.analysis.training_curve import CONVERGENCE, CURVES, convergence, mean_over_replicas, training_curves

EPOCHS = (0, 1, 2, 4, 8, 16, 30, 45, 60)


def replica_curves(shape, *, key="explore-0000", noise=0.01, train=None, n_resamples=8, n_inits=4, seed=0):
    """Return the `replicas` table of one run: validation risk shape(epoch), each replica with its own offset."""
    rng = np.random.default_rng(seed)
    rows = []
    for d in range(n_resamples):
        for i in range(n_inits):
            offset = 0.05 * rng.standard_normal()
            for epoch in EPOCHS:
                risk = shape(epoch) + offset + noise * rng.standard_normal()
                rows.append({
                    "key": key, "phase": "explore", "number": 0, "epoch": epoch, "replica": d * n_inits + i,
                    "resample": d, "init": i, "diverged": False, "val_risk": risk, "test_risk": risk,
                    "train_loss": math.exp(-epoch / 10) if train is None else train(epoch),
                })  # fmt: skip
    return pd.DataFrame(rows)


def settled(epoch):
    return 0.3 + 0.6 * math.exp(-epoch / 3)


class TestMeanOverReplicas:
    def test_standard_error_of_a_full_table_is_that_of_the_two_way_mean_squares(self):
        x = np.random.default_rng(0).standard_normal((6, 5)) + np.arange(6)[:, None] + 0.7 * np.arange(5)
        d, i = x.shape
        rows, columns, grand = x.mean(axis=1), x.mean(axis=0), x.mean()
        ms_d, ms_i = i * rows.var(ddof=1), d * columns.var(ddof=1)
        ms_e = ((x - rows[:, None] - columns + grand) ** 2).sum() / ((d - 1) * (i - 1))
        found = mean_over_replicas(x)
        assert found.mean == pytest.approx(grand)
        assert found.se == pytest.approx(math.sqrt((ms_d + ms_i - ms_e) / x.size), rel=1e-12)

    @pytest.mark.parametrize("components", [(0.0, 0.0, 1.0), (1.0, 0.3, 0.5), (0.2, 1.0, 0.2)])
    def test_interval_of_the_mean_covers_the_truth(self, components):
        rng = np.random.default_rng(1)
        sd_d, sd_i, sd_e = np.sqrt(components)
        n, hits = 600, 0
        for _ in range(n):
            x = sd_d * rng.standard_normal((8, 1)) + sd_i * rng.standard_normal((1, 4))
            found = mean_over_replicas(x + sd_e * rng.standard_normal((8, 4)))
            hits += abs(found.mean) <= stats.t.ppf(0.975, found.df) * found.se
        # nominal 0.95, binomial sd 0.009: 0.92 is more than 3 sd below
        assert hits / n > 0.92

    def test_missing_cells_are_left_out_of_mean_and_count(self):
        x = np.arange(12.0).reshape(4, 3)
        x[2, 1] = np.nan
        found = mean_over_replicas(x)
        assert (found.n, found.mean) == (11, pytest.approx(np.nanmean(x)))
        assert found.se > 0

    def test_too_few_replicas_have_no_standard_error(self):
        assert math.isnan(mean_over_replicas(np.array([[3.0]])).se)
        assert mean_over_replicas(np.full((3, 2), np.nan)).n == 0

    def test_a_single_seed_gives_the_usual_standard_error(self):
        x = np.random.default_rng(2).standard_normal((9, 1))
        found = mean_over_replicas(x)
        assert found.se == pytest.approx(x.std(ddof=1) / 3)
        assert found.df == 8


class TestTrainingCurves:
    def test_replicas_and_epochs_tables_give_the_same_curves(self):
        replicas = replica_curves(settled)
        means = replicas.groupby(["key", "phase", "number", "epoch"])[["val_risk", "train_loss"]]
        epochs = pd.concat([means.mean(), means.std(ddof=1).add_suffix("_sd")], axis=1).reset_index()
        a, b = training_curves(replicas), training_curves(epochs)
        assert list(a.columns) == list(b.columns) == CURVES
        for column in ("epoch", "val_risk", "val_risk_sd", "train_loss", "train_loss_sd"):
            np.testing.assert_allclose(a[column].to_numpy(float), b[column].to_numpy(float), rtol=1e-12)
        assert a["test_error"].isna().all()

    def test_diverged_replicas_do_not_enter_the_means_and_are_counted_out(self):
        replicas = replica_curves(settled)
        gone = (replicas["replica"] == 3) & (replicas["epoch"] >= 8)
        replicas.loc[gone, "diverged"] = True
        replicas.loc[gone, "val_risk"] = 1e9
        table = training_curves(replicas)
        assert table["val_risk"].max() < 2
        assert table.set_index("epoch")["n_replicas"].to_dict() == {e: 32 if e < 8 else 31 for e in EPOCHS}

    def test_only_the_runs_asked_for_and_in_their_order(self):
        both = pd.concat([replica_curves(settled, key="b"), replica_curves(settled, key="a")])
        assert training_curves(both)["key"].unique().tolist() == ["b", "a"]
        assert training_curves(both, ["a"])["key"].unique().tolist() == ["a"]
        assert training_curves(both, []).empty

    def test_nothing_gives_an_empty_table(self):
        for frame in (pd.DataFrame(), pd.DataFrame({"key": ["a"]})):
            assert list(training_curves(frame).columns) == CURVES
            assert training_curves(frame).empty


class TestConvergence:
    def row(self, replicas):
        return convergence(replicas).iloc[0]

    def test_a_settled_curve_is_left_alone(self):
        row = self.row(replica_curves(settled, noise=0.002))
        assert row["status"] == "settled"
        assert (row["n_replicas"], row["n_diverged"], row["n_epochs"]) == (32, 0, 60)

    def test_a_clear_rise_is_overtrained_with_the_generalisation_loss_of_the_mean_curve(self):
        replicas = replica_curves(lambda e: settled(e) + 0.003 * max(e - 16, 0))
        row, mean = self.row(replicas), replicas.groupby("epoch")["val_risk"].mean()
        assert row["status"] == "overtrained"
        assert row["best_epoch"] == mean.idxmin() == 16
        assert row["gl"] == pytest.approx(100 * (mean[60] / mean.min() - 1))
        assert row["rise"] == pytest.approx(mean[60] - mean.min())

    def test_a_rise_within_two_standard_errors_is_not_overtrained_however_large_gl(self):
        row = self.row(replica_curves(lambda e: settled(e) + 0.003 * max(e - 16, 0), noise=0.5, n_resamples=3))
        assert row["gl"] > 5
        assert row["rise"] <= 2 * row["rise_se"]
        assert not row["overtrained"]

    def test_a_significant_rise_below_five_per_cent_is_not_overtrained(self):
        row = self.row(replica_curves(lambda e: settled(e) + 0.0002 * max(e - 16, 0), noise=0.0005))
        assert row["rise"] > 2 * row["rise_se"]
        assert row["gl"] < 5
        assert not row["overtrained"]

    def test_a_curve_that_still_falls_is_still_improving(self):
        row = self.row(replica_curves(lambda e: 1 - 0.01 * e))
        assert (row["status"], row["best_epoch"], row["best_in_last_quarter"]) == ("still improving", 60, True)
        assert row["fall"] == pytest.approx(0.15, abs=0.02)

    def test_a_best_epoch_at_the_start_is_seen(self):
        row = self.row(replica_curves(lambda e: 0.3 + 0.01 * e))
        assert row["best_in_first_tenth"]
        assert row["status"] == "overtrained"

    def test_a_rising_training_loss_comes_first(self):
        row = self.row(replica_curves(settled, train=lambda e: math.exp(-min(e, 16) / 4) + 0.01 * max(e - 16, 0)))
        assert row["status"] == "training loss rising"

    def test_a_training_loss_that_trembles_near_zero_is_not_rising(self):
        row = self.row(replica_curves(settled, train=lambda e: math.exp(-e) + (1e-6 if e == 60 else 0)))
        assert not row["training_loss_rising"]

    def test_replicas_that_ever_diverged_are_left_out_and_counted(self):
        replicas = replica_curves(settled)
        gone = (replicas["replica"] < 5) & (replicas["epoch"] > 8)
        replicas.loc[gone, ["val_risk", "train_loss"]] = np.nan
        replicas.loc[gone, "diverged"] = True
        row = self.row(replicas)
        assert (row["n_replicas"], row["n_diverged"]) == (27, 5)
        kept = replicas[replicas["replica"] >= 5].groupby("epoch")["val_risk"].mean()
        assert row["val_last"] == pytest.approx(kept[60])

    def test_all_diverged_single_epoch_single_replica_and_nothing_are_well_defined(self):
        replicas = replica_curves(settled)
        assert self.row(replicas.assign(val_risk=np.nan, diverged=True))["status"] == "diverged"
        assert self.row(replicas[replicas["epoch"] == 0])["status"] == "not measured"
        alone = self.row(replicas[replicas["replica"] == 0])
        assert not alone["overtrained"]
        assert math.isnan(alone["rise_se"])
        for frame in (pd.DataFrame(), replicas.drop(columns="val_risk")):
            assert list(convergence(frame).columns) == CONVERGENCE
            assert convergence(frame).empty

    def test_mean_curves_alone_show_the_best_epoch_but_claim_nothing(self):
        epochs = training_curves(replica_curves(lambda e: settled(e) + 0.003 * max(e - 16, 0)))
        row = self.row(epochs)
        assert row["best_epoch"] == 16
        assert not row["overtrained"]
