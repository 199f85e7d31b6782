"""The section on ensembles: what averaging several trainings would bring."""

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
    """Return the risk by the number of members."""
    table, focus, id, question, short = (
        page.tables.ensembles, page.tables.focus, "ensemble", "Would an ensemble help?", "Ensembles"
    )  # fmt: skip
    if table.empty or focus is None:
        why = page.tables.predictions_note or (
            "What seeds and training sets do to a prediction cannot be told from the replicas that finished."
        )
        return Section(id, question, "This cannot be said: too few replicas were measured.", (Block("note", why),),
                       short=short)  # fmt: skip
    single = table[table["n_members"] == 1].iloc[0]
    best = table.sort_values(["risk", "n_members"], kind="stable").iloc[0]
    seeds = table[table["ensemble"] == "same_data"].iloc[-1]
    answer = (
        f"The mean of {seeds['n_members']} {NAMES['same_data']} has a risk of {with_interval(seeds, 'risk')}, "
        f"{with_interval(seeds, 'gain')} less than one of them ({percent(_share(seeds))})"
    )
    if best["ensemble"] != "same_data":
        answer += (
            f". Best of all: {best['n_members']} {NAMES[best['ensemble']]}, {with_interval(best, 'risk')}, which takes "
            f"{best['n_members']} times the data"
        )
    answer += "."
    fig = figures_more.ensembles(table)
    views = [] if fig is None else [figure_view(
        fig, "ensembles", label=f"Risk of the mean of several predictions by their number. {answer}", height="h3",
        caption=f"{which(focus)}. From all {count(float(single['n_resamples']), 'training set')} × "
        f"{num(single['n_inits'])} seeds, "
        + (f"{page.level} % intervals over training sets, seeds and test images." if single["risk_lo"] > -1 else
           "too few for intervals.")
        + _check(seeds, float(single["n_held_back"])),
    )]  # fmt: skip
    show: list[Any] = [
        ("ensemble", "members are", lambda kind: NAMES[kind]), ("n_members", "members"),
        ("risk", "risk"), ("gain", "less than its members"), ("risk_predicted", "predicted from half of the sets"),
        ("risk_measured", "measured on the others"), ("error", "error"), ("n_ensembles", "ensembles of that error"),
    ]  # fmt: skip
    alone = table["n_members"] == 1  # gains nothing over itself
    shown = table.assign(**{c: table[c].where(~alone) for c in ("gain", "gain_lo", "gain_hi")})
    numbers = table_view(shown, show, title="ensembles", caption="One row a kind and size.",
                         link=page.link("ensembles.csv"))  # fmt: skip
    return Section(id, question, answer, (*panel(views), Block("numbers", numbers)), short=short)


def _check(seeds: pd.Series, n_held_back: float) -> str:
    """Return whether a prediction came true on training sets that had no part in it; empty if that was not measured."""
    if pd.isna(seeds["risk_measured"]):
        return ""
    return (
        f" Checked on {seeds['n_members']} seeds: half of the training sets predict {num(seeds['risk_predicted'])}, "
        f"and ensembles on the other {num(n_held_back)} have {with_interval(seeds, 'risk_measured')}."
    )


def _share(row: pd.Series) -> float:
    """Return the gain as a share of the members' own risk."""
    alone = row["risk"] + row["gain"]
    return float(row["gain"] / alone) if alone > 0 else float("nan")
