"""What sections say in words, on histories that are changed in one thing."""

import dataclasses

import pandas as pd

from lab.analysis.noisy_labels import noisy_labels
from lab.report import framing, sections, sections_interventions, sections_trials
from lab.report.context import Page
from lab.report.exports import files
from lab.report.figures_more import labels_variance
from lab.report.page import render
from lab.report.verdict import limits
from tests.analysis.test_noisy_labels import noisy
from tests.report.test_page import Outline, without_bundle


def test_the_first_tile_says_how_often_the_model_is_wrong(made):
    history, tables, _ = made("healthy")
    focus = tables.focus.copy()
    focus[["error", "error_lo", "error_hi"]] = [0.095, 0.073, 0.118]
    _, more = limits(Page(history, dataclasses.replace(tables, focus=focus)))
    assert more["tiles"][0]["note"].replace("\u00a0", " ") == "wrong on 9.5 % [7.3 %, 11.8 %] of the test images"
    assert [tile["note"] for tile in more["tiles"][1:]] == ["", ""]
    focus[["error_lo", "error_hi"]] = float("nan")
    _, more = limits(Page(history, dataclasses.replace(tables, focus=focus)))
    assert more["tiles"][0]["note"].replace("\u00a0", " ") == "wrong on 9.5 % of the test images"


def test_a_balanced_verdict_says_where_its_range_ends(made):
    history, tables, _ = made("healthy")
    known = dataclasses.replace(tables.diagnosis, kind="balanced", share=0.5, share_lo=0.41, share_hi=0.59)
    _, more = limits(Page(history, dataclasses.replace(tables, diagnosis=known)))
    told = more["sure"][-1].replace("\u00a0", " ")
    assert told == "What would change it: if one of the ends, now 41 % and 59 %, left the range from 40 % to 60 %."


def test_parts_that_are_not_clear_of_each_other_may_rise_or_fall_and_a_dip_between_the_ends_is_told(made):
    history, tables, _ = made("healthy")
    curve = pd.DataFrame({
        "risk": [0.5, 0.2, 0.3], "bias_sq": [0.3, 0.1, 0.1], "variance": [0.2, 0.16, 0.21],
        "n_parameters": [10, 20, 30], "width": [1, 2, 3], "depth": [1, 1, 1],
    }).assign(capacity=[1, 2, 3], capacity_name="width", n_trials=1, key="k", number=0, noise=float("nan"))  # fmt: skip

    def told_of(curve):
        section = sections.capacity(Page(history, dataclasses.replace(tables, capacity=curve, threshold=2.0)))
        return section, " ".join(block.content for block in section.blocks if block.kind == "note")

    for part in ("risk", "bias_sq", "variance"):
        curve = curve.assign(**{f"{part}_lo": curve[part] - 0.05, f"{part}_hi": curve[part] + 0.05})
    section, notes = told_of(curve)
    assert section.answer.endswith("bias² + noise falls, and variance may rise or fall.")
    assert "variance from 0.200 [0.150, 0.250] to 0.210 [0.160, 0.260] (lowest at 20 parameters" in notes
    assert "highest at" not in notes  # that is an end
    for ends, said, bend in (
        ((0.2, 0.02, 0.21), "falls and rises again", "lowest"), ((0.1, 0.35, 0.12), "rises and falls again", "highest"),
        ((0.1, 0.2, 0.35), "rises", None), ((0.35, 0.2, 0.1), "falls", None),
    ):  # fmt: skip
        turned = curve.assign(variance=ends)
        turned = turned.assign(variance_lo=turned["variance"] - 0.05, variance_hi=turned["variance"] + 0.05)
        section, told = told_of(turned)
        assert section.answer.endswith(f"and variance {said}.")
        assert [word for word in ("lowest", "highest") if f"{word} at " in told] == [bend] * (bend is not None)
    assert "at most 1\u00a0% from width 2 on" in notes


def test_a_grid_of_too_few_points_for_a_ranking_is_not_asked_for_more(made):
    history, tables, _ = made("healthy")
    tables = dataclasses.replace(tables, importance=tables.importance.assign(status="no ranking"))
    for sampler, n_blocks in (("qmc", 2), ("grid", 0)):
        page = Page(dataclasses.replace(history, spec=history.spec | {"sampler": sampler}), tables)
        assert len(sections_trials.drivers(page).blocks) == n_blocks


def test_one_capacity_is_named_as_such(made):
    history, tables, _ = made("healthy")
    one = tables.capacity.dropna(subset=["risk"]).head(1)
    section = sections.capacity(Page(history, dataclasses.replace(tables, capacity=one)))
    assert section.answer.startswith("This was not measured: all trials have one capacity, ")
    assert "parameters" in section.answer


def test_a_study_whose_plan_has_no_learning_curve_is_not_told_to_finish_it(made):
    history, tables, _ = made("healthy")
    tables = dataclasses.replace(tables, learning=tables.learning.iloc[:0])
    for sizes, n_blocks in (([1.0, 0.5], 2), ([], 0), ([1.0], 0)):
        spec, planned = history.spec | {"learning_curve": sizes}, n_blocks > 0
        section = sections.more_data(Page(dataclasses.replace(history, spec=spec), tables))
        assert len(section.blocks) == n_blocks
        assert ("plan of this study" in section.answer) != planned
        trials = history.trials[history.trials["phase"] != "learning_curve"]
        said = framing.state(Page(dataclasses.replace(history, spec=spec, trials=trials), tables))
        assert said.startswith("This is a partial report: there is no learning curve yet") if planned else said == ""


def test_techniques_of_which_nothing_is_in_doubt_are_counted_without_a_rest(made):
    history, tables, _ = made("healthy")
    changes = pd.DataFrame([
        {"variant": name, "term": term, "baseline": 0.4, "value": 0.3, "difference": -0.1, "lo": -0.2, "hi": -0.05,
         "n_resamples": 8, "n_inits": 4, "n_test": 400, "n_timings": float("nan")}
        for name in ("a", "b") for term in ("risk", "bias_sq", "variance", "variance_resample", "variance_init",
                                            "variance_interaction", "error")
    ])  # fmt: skip
    spec = history.spec | {"variants": {"base": {}, "a": {}, "b": {}}}
    page = Page(dataclasses.replace(history, spec=spec), dataclasses.replace(tables, interventions=changes))
    answer = sections_interventions.interventions(page).answer
    assert answer.startswith("Of 2 techniques switched on one at a time, 2 lowered the risk, none raised it; a lowered")


def test_the_variance_from_redrawn_labels_has_a_section_of_its_own_where_it_was_measured(made):
    history, tables, page = made("healthy")
    assert 'id="labels"' not in page
    rows = [noisy(share, width, share * width / 1000, number=k) for k, (share, width) in enumerate(
        [(0.0, 16), (0.0, 64), (0.4, 16), (0.4, 64)])]  # fmt: skip
    tables = dataclasses.replace(tables, noisy_labels=noisy_labels(pd.DataFrame(rows)))
    outline = Outline(without_bundle(render(history, tables)))
    [section] = [text for attrs, text in outline.all("section") if attrs["id"] == "labels"]
    told = " ".join(section.replace("\u00a0", " ").split())
    assert "With 40 % of the labels redrawn and width 64, the most that was tried, another draw alone" in told
    assert "a variance of 0.154 [0.114, 0.234], 38 % of all of it." in told  # 0.4 · 64 / 1000 · (0 + 1 + 2 + 3) of 0.4
    figure = labels_variance(tables.noisy_labels, ["width"])
    assert [trace.name for trace in figure.data if trace.name] == ["width 16", "width 64"]
    assert "noisy_labels.csv" in files(history, tables)


def test_an_ensemble_of_one_has_no_gain_over_itself(made):
    outline = Outline(without_bundle(made("healthy")[2]))
    table = next(text for _, text in outline.all("table") if text.strip().startswith("One row a kind and size."))
    assert "0 [0.00, 0.00]" not in table and "–" in table
