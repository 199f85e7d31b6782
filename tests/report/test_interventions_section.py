"""The report of a study of variants: the forest, the answer above it, the advice, and the numbers beside it."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from synthetic import SyntheticHistory, synthetic_history

from lab.analysis.paired import paired_seconds
from lab.history import Predictions
from lab.report import page
from lab.report.exports import files
from lab.report.figures_interventions import by_gain, forest
from lab.report.tables import collect, variants, verdict
from lab.report.text import interval, num

SHARPER = {"explore-0000": 1.0, "explore-0001": 1.6, "explore-0002": 0.3, "explore-0003": 1.0}
VARIANTS = {"baseline": {}, "label_smoothing": {"label_smoothing": 0.1}, "narrow_net": {"width": 8}, "same": {}}


@dataclasses.dataclass(frozen=True)
class OfVariants(SyntheticHistory):
    """Variants whose predictions are those of the baseline, sharper or flatter."""

    def predictions(self, key):
        p, labels, _ = super().predictions(key)
        p = p.astype(np.float64) ** SHARPER.get(key, 1.0)
        return Predictions((p / p.sum(axis=-1, keepdims=True)).astype(np.float32), labels, None)


@pytest.fixture(scope="module")
def history():
    whole = synthetic_history("healthy")
    trials = whole.trials
    trials = trials[trials["key"].isin(SHARPER) | (trials["phase"] == "confirm")].reset_index(drop=True)
    names = dict(zip(SHARPER, VARIANTS, strict=True))
    trials = trials.assign(variant=[names.get(key, "label_smoothing") for key in trials["key"]])
    fields = {f.name: getattr(whole, f.name) for f in dataclasses.fields(whole)}
    spec = {k: v for k, v in whole.spec.items() if k != "space"} | {"space": {}, "variants": VARIANTS}
    return OfVariants(**(fields | {"trials": trials, "spec": spec}))


@pytest.fixture(scope="module")
def tables(history):
    return collect(history)


def test_the_forest_has_a_line_a_technique_the_best_on_top_and_whiskers(tables):
    table = tables.interventions
    order = by_gain(table)
    risk = table[table["term"] == "risk"].set_index("variant")["difference"]
    assert list(risk[order]) == sorted(risk)
    fig = forest(table, ("risk", "bias_sq"), with_noise=False)
    assert list(fig.layout.yaxis.ticktext) == [name.replace("_", " ") for name in order[::-1]]
    trace = fig.data[0]
    best = list(trace.text).index(order[0].replace("_", " "))
    assert trace.y[best] == max(trace.y)
    assert trace.x[best] == pytest.approx(risk[order[0]], rel=1e-3)
    ends = table[(table["term"] == "risk") & (table["variant"] == order[0])].iloc[0]
    assert trace.x[best] + trace.error_x.array[best] == pytest.approx(ends["hi"], abs=1e-4)
    assert forest(table.iloc[:0], ("risk",), with_noise=False) is None


def test_the_page_answers_with_counts_that_are_those_of_the_table(history, tables):
    text = page.render(history, tables)
    risk = tables.interventions[tables.interventions["term"] == "risk"]
    lower, higher = (risk["hi"] < 0).sum(), (risk["lo"] > 0).sum()
    rest = len(risk) - lower - higher
    assert lower >= 1
    assert higher >= 1
    said = re.search(
        r"Of (\d+) techniques switched on one at a time, (\d+) lowered the risk, (\d+) raised it, and of (\d+)", text
    )
    assert said is not None
    assert [int(n) for n in said.groups()] == [len(risk), lower, higher, rest]


def test_a_technique_without_a_result_is_named_with_the_reason(history):
    trials = history.trials.copy()
    lost = trials["key"] == "explore-0003"
    trials.loc[lost, ["risk", "bias_sq", "variance"]] = np.nan
    trials.loc[lost, ["outcome", "reason"]] = ["infeasible", "too few examples of class 2"]
    other = dataclasses.replace(history, trials=trials)
    text = page.render(other, collect(other))
    assert "; same gave no result." in text
    assert "same gave no result: Too few examples of class 2." in text


@pytest.fixture(scope="module")
def timed(history):
    taken = {
        "explore-0001": paired_seconds([[0.2, 0.3], [0.22, 0.34], [0.18, 0.26]]),
        "explore-0002": paired_seconds([[0.2, 0.1], [0.21, 0.1], [0.2, 0.11]]),
    }
    columns = pd.DataFrame([taken.get(key, {}) for key in history.trials["key"]], index=history.trials.index)
    other = dataclasses.replace(history, trials=pd.concat([history.trials, columns], axis=1))
    return other, collect(other)


def test_the_time_of_an_epoch_is_drawn_and_listed_with_its_interval_and_how_it_was_taken(timed):
    history, tables = timed
    text = page.render(history, tables)
    assert "Seconds an epoch of all replicas takes" in text
    assert "3 epochs of the baseline and of the technique by turns" in text
    rows = tables.interventions[tables.interventions["term"] == "epoch_time"].set_index("variant")
    assert "time of an epoch, of the baseline" in text
    told = [interval(1 + rows.loc[name, "lo"], 1 + rows.loc[name, "hi"]) for name in ("label_smoothing", "narrow_net")]
    assert all(ends in text for ends in told)
    drawn = forest(tables.interventions, ("epoch_seconds",), with_noise=False).data[0]
    best = list(drawn.text).index("label smoothing")
    ends = tables.interventions[tables.interventions["term"] == "epoch_seconds"].set_index("variant")
    assert drawn.x[best] == pytest.approx(0.1, abs=1e-3)
    assert drawn.x[best] - drawn.error_x.arrayminus[best] == pytest.approx(ends.loc["label_smoothing", "lo"], abs=1e-4)
    of_ensemble = list(drawn.text).index(
        "ensemble of 2 seeds"
    )  # without whiskers: it takes twice as long by its nature
    assert drawn.error_x.array[of_ensemble] is None


def test_advice_says_what_a_technique_costs_in_time(timed):
    history, tables = timed
    names = history.trials["variant"].where(history.trials["phase"] != "confirm", "baseline")
    other = dataclasses.replace(history, trials=history.trials.assign(variant=names))
    found = [a.text for a in verdict(other, interventions=tables.interventions).actions if "label smoothing" in a.text]
    ratio = tables.interventions.set_index(["variant", "term"]).loc[("label_smoothing", "epoch_time"), "value"]
    assert f"an epoch takes {num(ratio)} times as long" in found[0]


def test_without_timings_no_figure_and_no_column_of_them(history, tables):
    text = page.render(history, tables)
    assert "Seconds an epoch" not in text
    assert "time of an epoch" not in text


def test_the_best_technique_is_advised_with_the_command_that_switches_it_on_unless_the_judged_run_has_it(
    history, tables
):
    names = history.trials["variant"].where(history.trials["phase"] != "confirm", "baseline")
    other = dataclasses.replace(history, trials=history.trials.assign(variant=names))
    judged = {"label_smoothing": history, "baseline": other}
    said = {name: verdict(h, interventions=tables.interventions).actions for name, h in judged.items()}
    found = [action for action in said["baseline"] if action.text.startswith("label smoothing")]
    assert len(found) == 1
    assert "--set label_smoothing=0.1" in found[0].command
    assert not any(action.text.startswith("label smoothing") for action in said["label_smoothing"])
    assert not any(action.text.startswith("narrow") for actions in said.values() for action in actions)


def test_the_differences_lie_beside_the_page_as_csv(history, tables):
    text = files(history, tables)["interventions.csv"]
    assert text.splitlines()[0].startswith("variant,term,baseline,value,difference,lo,hi")
    assert len(text.splitlines()) == 1 + len(tables.interventions)


def test_a_study_without_variants_has_no_such_section():
    history = synthetic_history("one_trial")
    assert variants(history).empty
    assert isinstance(variants(history), pd.DataFrame)
    assert "What does each technique change?" not in page.render(history, collect(history))
