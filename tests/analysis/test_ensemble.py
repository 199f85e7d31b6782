"""Ensembles: their risk is the known one on synthetic replicas with known parts, and that of all that can be formed."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lab.analysis.ensemble import KINDS, TABLE, ensembles

SD = {"resample": 0.05, "init": 0.08, "interaction": 0.06}


def replicas(n_resamples=8, n_inits=4, n_test=200, *, seed=0):
    """Return predictions of two classes, q = m + a_d + b_i + e_di for one class, with known variances of the parts."""
    rng, points = np.random.default_rng(seed), np.random.default_rng(99)
    labels = points.integers(2, size=n_test)
    middle = np.where(labels == 1, 0.62, 0.40)

    def part(name, *shape):  # bounded, so that q stays a probability
        return 3**0.5 * SD[name] * rng.uniform(-1, 1, (*shape, n_test))

    q = middle + part("resample", n_resamples, 1) + part("init", 1, n_inits)
    q = q + part("interaction", n_resamples, n_inits)
    bias = 2 * np.mean((labels - middle) ** 2)  # both classes miss by the same
    return np.stack([1 - q, q], axis=-1), labels, bias


def truth(bias, kind, m):
    resample, init, interaction = (2 * SD[k] ** 2 for k in ("resample", "init", "interaction"))
    return bias + {
        "same_data": resample + (init + interaction) / m, "one_seed": init + (resample + interaction) / m,
        "fresh_data": (resample + init + interaction) / m,
    }[kind]  # fmt: skip


NAMES = ("risk", "risk_predicted", "risk_measured")


def test_risk_predicted_and_measured_are_the_known_one_on_average():
    tables = [ensembles(*replicas(seed=k)[:2], seed=k, members=(1, 2, 4)) for k in range(30)]
    bias = replicas()[2]
    for kind in KINDS:
        for m in (1, 2, 4):
            rows = [t[(t["ensemble"] == kind) & (t["n_members"] == m)].iloc[0] for t in tables]
            for name in NAMES:
                assert np.mean([row[name] for row in rows]) == pytest.approx(truth(bias, kind, m), rel=0.01), (kind, m)


def test_the_risk_is_that_of_all_ensembles_that_the_replicas_can_form():
    """Each subset of seeds of each training set, averaged by hand; all ways of drawing two that share nothing."""
    p, labels, _ = replicas(4, 4, 30)
    target = np.eye(2)[labels]

    def risk(cells):
        return np.mean([((np.mean([p[c] for c in cell], axis=0) - target) ** 2).sum(axis=-1).mean() for cell in cells])

    rows = ensembles(p, labels).set_index(["ensemble", "n_members"])["risk"]
    for m in (1, 2, 3, 4):
        same = [[(d, i) for i in chosen] for d in range(4) for chosen in combinations(range(4), m)]
        assert rows["same_data", m] == pytest.approx(risk(same), abs=1e-12)
        assert rows["one_seed", m] == pytest.approx(risk([[(i, d) for d, i in cell] for cell in same]), abs=1e-12)
    apart = [((d, i), (e, j)) for d in range(4) for e in range(d) for i in range(4) for j in range(4) if i != j]
    assert rows["fresh_data", 2] == pytest.approx(risk(apart), abs=1e-12)


def test_the_intervals_cover_the_known_risk_and_gain_and_are_narrower_than_from_half_of_the_training_sets():
    hits, gains, widths, bias = [], [], [], replicas()[2]
    gain = truth(bias, "same_data", 1) - truth(bias, "same_data", 2)
    for seed in range(60):
        (row,) = ensembles(*replicas(8, 4, seed=1000 + seed)[:2], members=(2,)).head(1).to_dict("records")
        hits.append(row["risk_lo"] <= truth(bias, "same_data", 2) <= row["risk_hi"])
        gains.append(row["gain_lo"] <= gain <= row["gain_hi"])
        widths.append((row["risk_hi"] - row["risk_lo"]) / (row["risk_measured_hi"] - row["risk_measured_lo"]))
    assert np.mean(hits) > 0.88 and np.mean(gains) > 0.88
    assert np.mean(widths) < 1


def test_the_gain_covers_where_seeds_shift_all_points_alike():
    """Eight numbers decide here, however many the test points: an interval that left out the seeds would miss."""
    rng, hits = np.random.default_rng(2), 0
    for _ in range(60):
        shift = 0.05 * rng.standard_normal((1, 8, 1)) + 0.02 * rng.standard_normal((8, 8, 40))
        p = np.stack([0.5 - shift, 0.5 + shift], axis=-1)
        (row,) = ensembles(p, np.zeros(40, dtype=int), members=(4,)).head(1).to_dict("records")
        hits += row["gain_lo"] <= 0.75 * 2 * (0.05**2 + 0.02**2) <= row["gain_hi"]
    assert hits >= 50


def test_draws_of_the_label_noise_belong_to_the_training_set():
    """With K draws, members on one training set share its labels: what those do is not averaged away."""
    rng, parts = np.random.default_rng(3), {(0,): 0.03, (1,): 0.04, (2,): 0.05, (0, 2): 0.06, (1, 2): 0.02}
    D, I, K, N = 6, 4, 3, 4000  # noqa: E741
    q = 0.5 + sum(
        sd * rng.uniform(-(3**0.5), 3**0.5, [size if axis in axes else 1 for axis, size in enumerate((D, I, K))] + [N])
        for axes, sd in parts.items()
    )
    table = ensembles(np.stack([1 - q, q], axis=-1), np.zeros(N, dtype=int)).set_index(["ensemble", "n_members"])
    for kind, kept in (("same_data", {(0,), (2,), (0, 2)}), ("one_seed", {(1,)}), ("fresh_data", set())):
        gone = 2 * sum(sd**2 for axes, sd in parts.items() if axes not in kept)
        assert table.loc[(kind, 2), "gain"] == pytest.approx(gone / 2, rel=0.05), kind
        assert np.isfinite(table.loc[(kind, 2), ["risk_predicted", "risk_measured", "error"]].astype(float)).all()


def test_the_mean_of_members_loses_what_they_disagree_by():
    """Krogh & Vedelsby: mean loss of the members less the loss of their mean is their plug-in variance."""
    p, labels, _ = replicas(4, 4)
    table = ensembles(p, labels).set_index(["ensemble", "n_members"])
    plug_in = ((p - p.mean(axis=1, keepdims=True)) ** 2).sum(-1)
    assert table.loc[("same_data", 4), "gain"] == pytest.approx(plug_in.mean())
    assert table.loc[("same_data", 1), "gain"] == 0
    single = 1 - 2 * p[:, :, np.arange(len(labels)), labels] + (p**2).sum(-1)
    assert single.mean() == pytest.approx(table.loc[("same_data", 1), "risk"])
    alone, four = table.loc[("same_data", 1)], table.loc[("same_data", 4)]
    assert alone["risk"] - four["risk"] == pytest.approx(four["gain"])


def test_the_error_of_drawn_ensembles_has_the_jackknife_interval_over_training_sets_seeds_and_points():
    """Of single members, where all can be drawn, each leave-out is a mean that can be taken by hand."""
    p, labels, _ = replicas(5, 4, 80)
    wrong_DIN = p.argmax(axis=-1) != labels
    variance = wrong_DIN.mean(axis=(0, 1)).var(ddof=1) / 80
    for axis, size in ((0, 5), (1, 4)):
        left_out = [np.delete(wrong_DIN, k, axis=axis).mean() for k in range(size)]
        variance += (size - 1) / size * ((left_out - np.mean(left_out)) ** 2).sum()
    half = stats.t.ppf(0.95, 4 - 1) * variance**0.5
    row = ensembles(p, labels, level=0.9).set_index(["ensemble", "n_members"]).loc[("same_data", 1)]
    assert row["error"] == pytest.approx(wrong_DIN.mean())
    assert (row["error_lo"], row["error_hi"]) == pytest.approx((wrong_DIN.mean() - half, wrong_DIN.mean() + half))


def test_prediction_and_measurement_share_no_training_set():
    p, labels, _ = replicas(8, 4)
    other = p.copy()
    other[1::2] = p[1::2][:, :, :, ::-1]  # the held-back ones predict the other class
    one, two = (ensembles(x, labels, members=(2,)).head(1) for x in (p, other))
    assert one["risk_predicted"].item() == two["risk_predicted"].item()
    assert one["risk_measured"].item() != pytest.approx(two["risk_measured"].item(), rel=0.1)


def test_members_are_as_many_as_there_are_and_what_needs_more_training_sets_is_left_out():
    p, labels, _ = replicas(10, 3)
    table = ensembles(p, labels)
    assert list(table.columns) == TABLE
    assert table.groupby("ensemble")["n_members"].max().to_dict() == {"same_data": 3, "one_seed": 8, "fresh_data": 3}
    measured = table[table["risk_measured"].notna()]
    assert measured.groupby("ensemble")["n_members"].max().to_dict() == {
        "same_data": 3, "one_seed": 4, "fresh_data": 3
    }  # fmt: skip
    p[0, 0] = np.nan
    holed = ensembles(p, labels)
    assert (holed["n_held_back"] == 4).all() and (holed["n_resamples"] == 10).all()
    few = ensembles(p[1:4], labels)
    assert np.isfinite(few["risk"]).all() and few[["risk_predicted", "risk_measured"]].isna().all(axis=None)


def test_with_one_seed_or_one_training_set_only_what_there_is_is_averaged():
    p, labels, _ = replicas(6, 4)
    assert set(ensembles(p[:1], labels)["ensemble"][ensembles(p[:1], labels)["n_members"] > 1]) == {"same_data"}
    p[np.arange(6), [0, 1, 2, 3, 0, 1]] = np.nan  # of no training set are all replicas left
    holed = ensembles(p, labels)
    assert np.isfinite(holed[["risk", "gain"]]).all(axis=None) and holed[["risk_measured", "error"]].isna().all(
        axis=None
    )
    p[:, 1:] = np.nan  # a single seed is left: nothing tells what seeds do
    assert ensembles(p, labels)["n_members"].max() == 1


def test_with_two_seeds_a_single_member_has_an_interval_and_an_ensemble_has_none():
    p, labels, _ = replicas(6, 2)
    table = ensembles(p, labels).query("ensemble == 'same_data'").set_index("n_members")
    assert table.loc[1, "risk_lo"] < table.loc[1, "risk"] < table.loc[1, "risk_hi"]
    assert np.isfinite(table.loc[2, "risk"]) and np.isnan(table.loc[2, "risk_lo"])
