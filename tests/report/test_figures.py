"""Figures from tables: what is drawn is what the table says."""

import json

import numpy as np
import pandas as pd
import pytest

from lab.report import figures, figures_classes, figures_examples, figures_trials, style
from lab.report.view import figure_view


def trace(fig, name):
    return next(t for t in fig.data if t.name == name)


def test_stacked_parts_are_cut_off_at_zero_but_their_labels_keep_the_estimate(made):
    curve = made("healthy")[1].capacity.copy()
    curve.loc[0, "variance"] = -0.01
    fig = figures.capacity_stack(curve)
    variance = trace(fig, "variance")
    assert variance.y[0] == 0 and variance.text[0] == "-0.01"
    assert np.allclose(trace(fig, "risk, measured directly").y, curve["risk"], rtol=1e-4)


def test_extrapolated_parts_begin_at_the_largest_measured_size_so_that_no_gap_is_left():
    curve = pd.DataFrame({"n_train": [50, 100, 150], "bias_sq": [0.3, 0.2, 0.1], "variance": [0.2, 0.1, 0.05]})
    ahead = pd.DataFrame({"n_train": [120, 150, 300], "value": [0.14, 0.1, 0.07], "lo": [0.1, 0.08, 0.05],
                          "hi": [0.2, 0.12, 0.09], "extrapolated": [False, False, True]})  # fmt: skip
    fig = figures.learning_parts(curve, {"bias_sq": ahead})
    assert list(trace(fig, "bias² + noise, extrapolated").x) == [150, 300]


def test_lines_show_negative_estimates_on_a_linear_axis_and_leave_them_out_of_a_log_one():
    table = pd.DataFrame({"epoch": [0, 1, 2], "n_train": [10, 20, 40], "bias_sq": [0.5, 0.2, -0.01]})
    table["variance"] = table["risk"] = 0.1
    assert list(trace(figures.epochs_parts(table), "bias² + noise").y) == [0.5, 0.2, -0.01]
    assert list(trace(figures.learning_parts(table), "bias² + noise").y) == [0.5, 0.2, None]


@pytest.mark.parametrize("known", [True, False])
def test_bias_is_named_with_noise_unless_noise_is_known(known):
    table = pd.DataFrame({"epoch": [0, 1], "bias_sq": [0.5, 0.2], "variance": 0.1, "risk": 0.4})
    table["noise"] = 0.05 if known else np.nan
    names = [t.name for t in figures.epochs_parts(table).data if t.showlegend is not False]
    assert ("bias²" in names) == known and ("bias² + noise" in names) != known


@pytest.mark.parametrize(
    ("make", "table"),
    [
        (figures.capacity_stack, "capacity"),
        (figures.capacity_parts, "capacity"),
        (figures.learning_curve, "learning"),
        (figures.learning_parts, "learning"),
        (figures.epochs_parts, "epochs"),
        (figures_classes.per_class, "classes"),
        (figures_trials.best_epochs, "convergence"),
        (figures_trials.trade_off, "trials"),
    ],
)
def test_a_figure_with_nothing_to_show_is_none(made, make, table):
    history, tables, _ = made("healthy")
    full = {
        "capacity": tables.capacity, "learning": tables.learning, "epochs": history.epochs, "trials": tables.explore,
        "classes": tables.per_class, "convergence": tables.convergence,
    }[table]  # fmt: skip
    assert make(full) is not None and make(full.iloc[:0]) is None


def test_the_pareto_front_is_what_no_trial_beats_in_both_parts():
    rng = np.random.default_rng(3)
    trials = pd.DataFrame({"bias_sq": rng.random(60), "variance": rng.random(60)})
    front = set(figures_trials.pareto(trials).index)
    for k, row in trials.iterrows():
        beaten = ((trials["bias_sq"] <= row["bias_sq"]) & (trials["variance"] <= row["variance"])
                  & ((trials["bias_sq"] < row["bias_sq"]) | (trials["variance"] < row["variance"]))).any()  # fmt: skip
        assert (k in front) == (not beaten)


def test_the_confusion_matrix_shows_every_cell_once():
    percent = np.array([[90.0, 10.0, 0.0], [5.0, 80.0, 15.0], [0.0, 0.2, 99.8]])
    fig = figures_classes.confusion(percent, ["a", "b", "c"])
    right, wrong = (np.array(t.z, dtype=float) for t in fig.data)
    assert np.array_equal(np.where(np.isnan(right), wrong, right), percent)
    assert list(fig.data[1].text[2]) == ["", "", ""]  # 0.2 % is left blank, and the diagonal is the other trace's


def test_classes_of_equal_shortened_names_stay_apart(made):
    names = ["a very long name of a class 1", "a very long name of a class 2"]
    fig = figures_classes.confusion(np.eye(2) * 100, names)
    assert len(set(fig.data[0].x)) == 2


def test_every_colour_of_a_figure_changes_with_the_theme(made):
    import re

    html = made("posterior")[2]
    drawn = re.findall(r'<script type="application/json" id="data-[^"]+">(.*?)</script>', html, re.S)
    assert len(drawn) >= 13
    for text in drawn:
        for color in re.findall(r'"(#[0-9A-Fa-f]{3,8}|rgba?\([^)]*\))"', text):
            known = color in style.exchange() or color.rsplit(",", 1)[0] in style.exchange()
            assert known or color == "rgba(0,0,0,0)", color


def luminance(color):
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_series_stand_out_in_both_themes():
    dark = style.DARK
    for color in (style.INK, style.MUTED):
        assert contrast(color, style.PAPER) >= 4.5 and contrast(dark[color], dark[style.PAPER]) >= 4.5
    for series in (*style.SERIES.values(), *style.RANKED):
        assert contrast(series.color, style.PAPER) >= 3, series
        assert contrast(dark[series.color], dark[style.PAPER]) >= 4.5, series


def test_series_in_one_figure_differ_in_more_than_colour():
    groups = [("risk", "bias_sq", "variance", "noise"), ("variance_resample", "variance_init", "variance_interaction"),
              ("train", "val", "test")]  # fmt: skip
    for group in groups:
        assert len({style.SERIES[name].symbol for name in group}) == len(group)
    assert len({s.symbol for s in style.RANKED}) == len({s.dash for s in style.RANKED}) == 4


@pytest.mark.parametrize(("low", "high"), [(1e-6, 3.0), (0.05, 0.4), (4, 256), (500, 2e6), (0.1, 0.11), (1, 1.2)])
def test_log_ticks_are_few_and_inside(low, high):
    ticks, texts = style.log_ticks(low, high)
    assert 2 <= len(ticks) <= 7 and len(texts) == len(ticks)
    assert all(0.97 * low <= t <= 1.03 * high for t in ticks)


def test_a_figure_goes_to_the_page_without_template_legend_or_title(made):
    fig = figures.capacity_stack(made("posterior")[1].capacity)
    view = figure_view(fig, "x", label="a figure")
    content = json.loads(str(view.json).replace("\\u003c", "<"))
    assert "template" not in content["layout"] and content["layout"]["showlegend"] is False
    assert [i.label for i in view.legend] == ["noise", "bias²", "variance", "risk, measured directly", "lowest risk"]
    assert view.axis.startswith("↑ Brier risk")
    assert fig.layout.yaxis.title.text == figures.RISK_AXIS  # the figure itself stays whole


def test_the_classes_that_are_told_apart_worst_are_the_ones_in_colour(made):
    tables = made("healthy")[1]
    fig = figures_classes.roc(tables.roc, tables.areas)
    worst = tables.areas.nsmallest(4, "auc")
    named = [t.name for t in fig.data if "AUC" in (t.name or "")]
    assert named == [f"{name} (AUC {auc:.3f})" for name, auc in zip(worst["name"], worst["auc"], strict=True)]
    grey = trace(fig, "the other classes")
    assert sum(v is None for v in grey.x) == 6


def test_the_reliability_diagram_shows_every_bin_with_its_share(made):
    table = made("healthy")[1].reliability
    fig = figures_classes.reliability(table)
    assert np.allclose(trace(fig, "measured").y, table["accuracy"], rtol=1e-4)
    assert sum(trace(fig, "share of all predictions").y) == pytest.approx(1, abs=1e-3)


def test_the_map_of_images_marks_labels_to_check_and_thins_many_points(made):
    table = made("healthy")[1].examples
    fig = figures_examples.example_map(table, with_noise=False)
    suspected = table[table["suspected"]]
    star = trace(fig, "label to check")
    assert np.allclose(star.x, suspected["variance"], atol=1e-3) and len(star.x) == len(suspected) == 1
    drawn = sum(len(t.x) for t in fig.data if t.mode == "markers")
    assert drawn == len(table)
    many = pd.concat([table] * 20, ignore_index=True)
    thin = figures_examples.thinned(many, 1000)
    assert len(thin) == 1000 and thin["risk"].max() == many["risk"].max() and thin["risk"].min() == many["risk"].min()
    assert set(many.nlargest(480, "risk")["index"]) <= set(thin["index"])


def test_the_forest_of_knobs_shows_what_no_knob_explains_in_a_row_of_its_own(made):
    table = made("healthy")[1].importance
    fig = figures_trials.importance_bars(table, with_noise=False)
    assert fig.layout.yaxis.ticktext[0] == "(unexplained)" and len(fig.layout.yaxis.ticktext) == 9
    for target, name in (("bias_sq", "bias² + noise"), ("variance", "variance")):
        expected = table[table["target"] == target]["unexplained"].iloc[0]
        assert trace(fig, f"{name}: unexplained").x[0] == pytest.approx(expected, abs=1e-4)


def test_a_roc_curve_is_that_of_the_class_whose_area_stands_beside_it(made):
    tables = made("healthy")[1]
    fig = figures_classes.roc(tables.roc, tables.areas)
    worst = tables.areas.iloc[0]
    drawn = next(t for t in fig.data if t.name and t.name.endswith(f"(AUC {worst['auc']:.3f})"))
    rows = tables.roc[tables.roc["class"] == worst["class"]]
    assert len(drawn.y) == len(rows) < len(tables.roc)
    assert np.allclose(np.asarray(drawn.y, dtype=float), rows["tpr"], atol=1e-3)


def test_where_capacity_is_a_dial_the_parameters_stand_above_it_and_the_lowest_risk_is_marked():
    width = [4, 8, 9, 64, 128]
    n = [100.0, 400, 450, 20_000, 80_000]
    curve = pd.DataFrame({"capacity": width, "width": width, "depth": 1, "n_parameters": n, "capacity_name": "width"})
    curve = curve.assign(bias_sq=0.2, variance=[0.1, 0.3, 0.3, 0.05, 0.2], risk_lo=0.1, risk_hi=0.6)
    curve["risk"] = curve["bias_sq"] + curve["variance"]
    fig = figures.capacity_stack(curve)
    above = fig.layout.xaxis2
    assert (above.side, above.matches, above.title.text) == ("top", "x", "parameters")
    assert list(above.tickvals) == [4, 9, 128] and list(above.ticktext) == ["100", "450", "80k"]
    [best] = [trace for trace in fig.data if trace.name == "lowest risk"]
    assert (best.x[0], best.y[0]) == (64, 0.25)
    by_count = figures.capacity_stack(curve.assign(capacity=n, capacity_name="n_parameters"))
    assert "xaxis2" not in by_count.to_dict()["layout"]
