"""The section on ensembles: what averaging several trainings would bring, predicted and measured."""

from typing import Any

import pandas as pd

from lab.report import figures_more
from lab.report.context import Page, which
from lab.report.text import count, num, percent, with_interval
from lab.report.view import Block, Section, figure_view, panel, table_view

NAMES = {
    "same_data": "seeds on one training set", "one_seed": "training sets from one seed",
    "fresh_data": "training sets and seeds of their own",
}  # fmt: skip


def ensemble(page: Page) -> Section:
    """Return predicted against measured risk by the number of members."""
    table, focus, id, question, short = (
        page.tables.ensembles, page.tables.focus, "ensemble", "Would an ensemble help?", "Ensembles"
    )  # fmt: skip
    if table.empty or focus is None:
        why = page.tables.predictions_note or (
            "Half of the training sets predict and the other half measure: that needs four training sets whose "
            "replicas all finished, and two seeds."
        )
        return Section(id, question, "This cannot be said: too few replicas were measured.", (Block("note", why),),
                       short=short)  # fmt: skip
    single = table[table["n_members"] == 1].iloc[0]
    best = table.sort_values(["risk_measured", "n_members"], kind="stable").iloc[0]
    seeds = table[table["ensemble"] == "same_data"].iloc[-1]
    answer = (
        f"The mean of {seeds['n_members']} {NAMES['same_data']} has a risk of {with_interval(seeds, 'risk_measured')}, "
        f"{with_interval(seeds, 'gain')} less than one of them ({percent(_share(seeds))}); "
        f"{num(seeds['risk_predicted'])} was predicted"
    )
    if best["ensemble"] != "same_data":
        answer += (
            f". Best of all measured: {best['n_members']} {NAMES[best['ensemble']]}, "
            f"{with_interval(best, 'risk_measured')}, which takes {best['n_members']} times the data"
        )
    answer += "."
    fig = figures_more.ensembles(table)
    views = [] if fig is None else [figure_view(
        fig, "ensembles", label=f"Risk of the mean of several predictions by their number. {answer}", height="h3",
        caption=f"{which(focus)}. Lines: predicted from the parts of half of the training sets. Points: measured by "
        f"averaging predictions of the other {count(float(single['n_resamples']), 'training set')} × "
        f"{num(single['n_inits'])} seeds, "
        + (f"{page.level} % intervals over training sets and test images." if single["risk_measured_lo"] > -1 else
           "too few training sets for intervals."),
    )]  # fmt: skip
    show: list[Any] = [
        ("ensemble", "members are", lambda kind: NAMES[kind]), ("n_members", "members"),
        ("risk_predicted", "risk predicted"), ("risk_measured", "risk measured"),
        ("gain", "less than its members"), ("error", "error measured"), ("n_ensembles", "ensembles averaged over"),
    ]  # fmt: skip
    numbers = table_view(table, show, title="ensembles", caption="One row a kind and size.",
                         link=page.link("ensembles.csv"))  # fmt: skip
    return Section(id, question, answer, (*panel(views), Block("numbers", numbers)), short=short)


def _share(row: pd.Series) -> float:
    """Return the gain as a share of the members' own risk."""
    alone = row["risk_measured"] + row["gain"]
    return float(row["gain"] / alone) if alone > 0 else float("nan")
