"""Ensembles: predictions from the parts come true on synthetic replicas with known parts, and on held-back ones."""

import numpy as np
import pytest

from lab.analysis.ensemble import KINDS, TABLE, ensembles, predicted

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


def test_predicted_and_measured_risk_are_the_known_ones_on_average():
    tables = [ensembles(*replicas(seed=k)[:2], seed=k) for k in range(30)]
    bias = replicas()[2]
    for kind in KINDS:
        for m in (1, 2, 4):
            rows = [t[(t["ensemble"] == kind) & (t["n_members"] == m)].iloc[0] for t in tables]
            expected = truth(bias, kind, m)
            for name in ("risk_predicted", "risk_measured"):
                assert np.mean([row[name] for row in rows]) == pytest.approx(expected, rel=0.01), (kind, m, name)


def test_the_intervals_cover_the_known_risk_and_gain():
    hits, gains, bias = [], [], replicas()[2]
    gain = truth(bias, "same_data", 1) - truth(bias, "same_data", 2)
    for seed in range(60):
        table = ensembles(*replicas(12, 4, seed=1000 + seed)[:2], seed=seed)
        row = table[(table["ensemble"] == "same_data") & (table["n_members"] == 2)].iloc[0]
        hits.append(row["risk_measured_lo"] <= truth(bias, "same_data", 2) <= row["risk_measured_hi"])
        gains.append(row["gain_lo"] <= gain <= row["gain_hi"])
    assert np.mean(hits) > 0.88 and np.mean(gains) > 0.88


def test_the_mean_of_members_loses_what_they_disagree_by():
    """Krogh & Vedelsby: mean loss of the members less the loss of their mean is their plug-in variance."""
    p, labels, _ = replicas(4, 4)
    table = ensembles(p, labels).set_index(["ensemble", "n_members"])
    held = p[1::2]
    single = 1 - 2 * held[:, :, np.arange(len(labels)), labels] + (held**2).sum(-1)
    plug_in = ((held - held.mean(axis=1, keepdims=True)) ** 2).sum(-1)
    gain = table.loc[("same_data", 1), "risk_measured"] - table.loc[("same_data", 4), "risk_measured"]
    assert single.mean() == pytest.approx(table.loc[("same_data", 1), "risk_measured"])
    assert gain == pytest.approx(plug_in.mean())
    assert table.loc[("same_data", 4), "gain"] == pytest.approx(plug_in.mean())
    assert (table["gain"] >= -1e-12).all() and table.loc[("same_data", 1), "gain"] == pytest.approx(0)


def test_members_are_as_many_as_the_held_back_half_allows_and_fewer_than_four_sets_give_none():
    p, labels, _ = replicas(10, 3)
    table = ensembles(p, labels)
    assert list(table.columns) == TABLE
    assert table.groupby("ensemble")["n_members"].max().to_dict() == {"same_data": 3, "one_seed": 4, "fresh_data": 3}
    p[0, 0] = np.nan
    assert ensembles(p, labels)["n_resamples"].max() == 4
    assert ensembles(p[:4], labels).empty and ensembles(p[:, :1], labels).empty


def test_a_prediction_divides_what_members_do_not_share():
    parts = {"variance": 0.3, "variance_resample": 0.1, "variance_init": 0.05}
    assert predicted(1.0, parts, "fresh_data", 4) == pytest.approx(0.7 + 0.3 / 4)
    assert predicted(1.0, parts, "same_data", 2) == pytest.approx(0.7 + 0.1 + 0.2 / 2)
    assert all(predicted(1.0, parts, kind, 1) == 1.0 for kind in KINDS)
