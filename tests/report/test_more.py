"""What some studies measure besides appears where it was measured, and leaves no empty panel where it was not."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from lab.analysis.signals import COLUMNS
from lab.report import figures_more, sections_more
from lab.report.context import Page
from lab.report.page import render
from tests.report.test_page import Outline, without_bundle


@pytest.fixture
def richer(made):
    """The healthy study with more columns at its focus, and signals of six layers."""
    history, tables, _ = made("healthy")
    focus = tables.focus.copy()
    for name, value in (("cross_entropy_risk", 0.5), ("cross_entropy_bias", 0.3), ("cross_entropy_variance", 0.2),
                        ("zero_one_bias", 0.06), ("zero_one_variance", 0.03), ("attacked_risk", 0.9),
                        ("attacked_error", 0.7), ("attacked_bias_sq", 0.6), ("attacked_variance", 0.3)):  # fmt: skip
        focus[name], focus[f"{name}_lo"], focus[f"{name}_hi"] = value, value - 0.01, value + 0.01
    focus["n_vanishing"], focus["n_exploding"], focus["signal_gradient_ratio"] = 2.0, 0.0, 0.004
    rows = [(e, "gradient", f"l{p}", p, 10.0**-p, 0.5 * 10.0**-p, 2 * 10.0**-p, 32)
            for e in (0, 5, 10) for p in range(6)]  # fmt: skip
    signals = pd.DataFrame(rows, columns=list(COLUMNS))
    return history, dataclasses.replace(tables, focus=focus, signals=signals)


def test_nothing_is_shown_where_nothing_was_measured(made):
    for kind in ("healthy", "all_diverged", "one_trial"):
        page = Page(*made(kind)[:2])
        assert sections_more.other_losses(page) == sections_more.shifted(page) == sections_more.signals(page) == []


def test_other_losses_stand_beside_brier_with_their_intervals(richer):
    [block] = sections_more.other_losses(Page(*richer))
    rows = {row.cells[0].text: [cell.text for cell in row.cells] for row in block.content.rows}
    assert list(rows) == ["Brier (this report)", "cross-entropy", "zero-one"]
    assert "0.300 [0.290, 0.310]" in rows["cross-entropy"] and "0.0300 [0.0200, 0.0400]" in rows["zero-one"]


def test_harder_images_are_compared_with_plain_ones(richer):
    _, note, numbers = sections_more.shifted(Page(*richer))
    assert "attacked 0.900" in note.content
    assert [row.cells[0].text for row in numbers.content.rows] == ["plain", "attacked"]


def test_risk_and_its_parts_are_drawn_against_severity_beginning_with_plain_images(richer):
    history, tables = richer
    focus = tables.focus.copy()
    focus["corruption"] = "gaussian_noise"
    for severity in range(1, 6):
        for name, value in (("risk", 0.2), ("bias_sq", 0.15), ("variance", 0.05), ("error", 0.1)):
            column = f"corrupted_{severity}_{name}"
            focus[column], focus[f"{column}_lo"], focus[f"{column}_hi"] = (value * severity * f for f in (1, 0.9, 1.1))
    page = Page(history, dataclasses.replace(tables, focus=focus))
    _, note, panel, numbers = sections_more.shifted(page)
    assert "severity 5 1." in note.content
    assert [row.cells[0].text for row in numbers.content.rows][1:3] == ["attacked", "severity 1"]
    found = json.loads(panel.content[0].json)
    drawn = {trace["name"]: trace for trace in found["data"] if trace.get("name")}
    assert list(drawn) == ["risk", "bias² + noise", "variance"]
    assert drawn["risk"]["x"] == [0, 1, 2, 3, 4, 5]
    assert drawn["variance"]["y"][1:] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])
    assert drawn["risk"]["y"][0] == pytest.approx(tables.focus["risk"], rel=1e-4)


def test_attacks_of_several_strengths_are_drawn_against_the_largest_change_of_a_pixel(richer):
    history, tables = richer
    focus = tables.focus.copy()
    focus["attack_epsilon"], focus["attack_strengths"] = 0.2, 4
    for k in range(1, 5):
        for name, value in (("risk", 0.3), ("bias_sq", 0.2), ("variance", 0.1), ("error", 0.15)):
            column = f"attacked_{k}_{name}"
            focus[column], focus[f"{column}_lo"], focus[f"{column}_hi"] = (value * k * f for f in (1, 0.9, 1.1))
    _, note, panel, numbers = sections_more.shifted(Page(history, dataclasses.replace(tables, focus=focus)))
    assert "attacked, ε = 0.15 0.900" in note.content
    names = [row.cells[0].text for row in numbers.content.rows]
    assert names[2:] == [f"attacked, ε = {epsilon}" for epsilon in ("0.05", "0.1", "0.15", "0.2")]
    found = json.loads(panel.content[0].json)
    drawn = {trace["name"]: trace for trace in found["data"] if trace.get("name")}
    assert drawn["bias² + noise"]["x"] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert drawn["bias² + noise"]["y"][1:] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_gradients_are_drawn_of_the_first_the_last_and_two_layers_between(richer):
    table = richer[1].signals
    fig = figures_more.gradients(table)
    assert [t.name for t in fig.data if t.name] == ["layer l0", "layer l2", "layer l3", "layer l5"]
    last = next(t for t in fig.data if t.name == "layer l5")
    assert np.allclose(list(last.y), 1e-5)
    assert figures_more.gradients(table[table["epoch"] == 0]) is None


def test_layers_that_cannot_learn_at_the_end_are_named_with_the_limits(richer):
    history, tables = richer
    more = [(e, signal, layer, 0, value, value, value, 32) for e in (5, 10) for signal, layer, value in (
        ("dead", "0", 0.02 * e), ("dead", "1", 0.061 * e), ("saturated", "0", 0.09 * e if e < 10 else 0.1),
        ("update", "output", 0.03 * e))]  # fmt: skip
    signals = pd.concat([tables.signals, pd.DataFrame(more, columns=list(COLUMNS))], ignore_index=True)
    _, note, _ = sections_more.signals(Page(history, dataclasses.replace(tables, signals=signals)))
    plain = note.content.replace("\u00a0", " ")
    assert plain == (
        "A layer is flagged at the end of training above 50 % of its units dead, 50 % of its values saturated, a step "
        "of 10 % of its weights. Flagged: layer 1: 61 % of its units dead; layer output: a step of 30 % of its weights."
    )
    _, note, _ = sections_more.signals(Page(history, tables))
    assert note.content.endswith("Flagged: none.")


def test_the_page_holds_all_of_it(richer):
    outline = Outline(without_bundle(render(*richer)))
    drawn = {attrs["data-figure"] for attrs, _ in outline.all("div") if "data-figure" in attrs}
    assert "data-signals" in drawn
    headings = [text for _, text in outline.all("h3")]
    assert "Does it hold on harder images?" in headings
    assert any("Gradients vanishing in 2, exploding in 0, " in text for _, text in outline.all("figcaption"))
