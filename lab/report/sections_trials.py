"""Sections on many trials at once: what goes with which part of the risk, what is traded, and all of them."""

from typing import Any

import pandas as pd

from lab.report import figures_trials
from lab.report.context import Page
from lab.report.tables import TARGETS
from lab.report.text import count, interval, is_number, knob_value, num, percent, with_interval
from lab.report.view import Block, Cell, Row, Section, TableView, figure_view, panel, table_view


def drivers(page: Page) -> Section:
    """Which knobs go with bias², which with variance, and in which direction."""
    table = page.tables.importance
    id, question, short = "drivers", "What drives bias, what drives variance?", "What drives them"
    ranked = table[table["status"] != "no ranking"]
    if ranked.empty:
        n = int(table["n_trials"].max()) if len(table) else len(page.tables.explore)
        r2 = [
            f"{page.part(str(t))} R² = {num(g['r2'].iloc[0], 2)}"
            for t, g in table.groupby("target")
            if is_number(g["r2"].iloc[0])
        ]
        answer = f"No ranking can be given from {count(n, 'trial')}: " + (
            f"the knobs do not predict the parts of trials left out ({'; '.join(r2)}; 0.2 is needed)."
            if r2 else "too few have a measured decomposition."
        )  # fmt: skip
        blocks: list[Block] = []
        if page.tables.focus is not None and page.history.spec.get("sampler") != "grid":  # a grid has no more points
            more = page.command("run", trials=max(2 * n, 40))
            blocks = [Block("note", "More trials may show it:"), Block("command", more)]
        return Section(id, question, answer, tuple(blocks), short=short)
    sentences = []
    for target in TARGETS:
        rows = ranked[ranked["target"] == target].sort_values("rank", kind="stable")
        clear = rows[rows["importance_lo"] > 0]
        name = page.part(target)
        if rows.empty:
            sentences.append(f"what goes with {name} cannot be ranked")
        elif clear.empty:
            sentences.append(f"no single knob stands out for {name}")
        else:
            top = clear.iloc[0]
            sentences.append(f"{name} goes most with {top['knob']} ({_strength(top)})")
    answer = "; ".join(sentences) + "."
    answer = answer[0].upper() + answer[1:]
    facts = [
        f"{page.part(str(t))}: {_ranking(g['status'].iloc[0])}, R² = {num(g['r2'].iloc[0], 2)}, "
        f"{percent(g['unexplained'].iloc[0])} unexplained"
        for t, g in table.groupby("target", sort=True)
    ]
    caption = (
        "Loss of out-of-fold R² of a random forest on the log of each part when one knob is shuffled, "
        f"n = {int(table['n_trials'].max())} trials. {'; '.join(facts)}. Hollow: the share that no knob "
        "explains. Association, not cause: trials differ in many knobs at once."
    )
    blocks = []
    bars = figures_trials.importance_bars(table, with_noise=page.known_noise)
    if bars is not None:
        knobs = table["knob"].nunique()
        blocks += panel([figure_view(bars, "importance", label=f"Importance of each knob. {answer}", caption=caption,
                                     height="h2" if knobs <= 5 else "h3" if knobs <= 9 else "h4")])  # fmt: skip
    blocks += _directions(page)
    show: list[Any] = [
        ("target", "part", page.part), ("knob", "knob"), ("importance", "importance"), ("rank", "rank"),
        ("r2", "R²"), ("unexplained", "unexplained"), ("status", "ranking"),
    ]  # fmt: skip
    numbers = table_view(
        table, show, title="importance of the knobs", caption="One row a part and knob; brackets: 95 % intervals.",
        link=page.link("importance.csv"),
    )  # fmt: skip
    return Section(id, question, answer, (*blocks, Block("numbers", numbers)), short=short)


def _ranking(status: str) -> str:
    return status if status == "no ranking" else f"{status} ranking"


def _strength(row: pd.Series) -> str:
    band = interval(row["importance_lo"], row["importance_hi"], row["importance"])
    return f"importance {num(row['importance'])} {band}"


def _directions(page: Page) -> list[Block]:
    views = []
    space = page.history.spec.get("space", {})
    for d in page.tables.directions:
        log = bool(space.get(d.knob, {}).get("log"))
        fig = figures_trials.direction_curve(d.table, page.tables.explore, d.knob, d.target, log=log)
        if fig is None:
            continue
        title = f"{page.part(d.target)} against {d.knob}"
        views.append(figure_view(
            fig, f"direction-{d.target}-{d.knob}", title=title[0].upper() + title[1:], height="h2",
            label=f"{title}: mean {num(d.table['mean'].iloc[0])} at {_value(d.table, 0)}, "
            f"{num(d.table['mean'].iloc[-1])} at {_value(d.table, -1)}.",
        ))  # fmt: skip
    if not views:
        return []
    caption = "In grey the trials; the line is a forest's mean with the other knobs averaged out, and its 95 % band."
    return [Block("heading", "In which direction?"), *panel(views), Block("caption", caption)]


def _value(table: pd.DataFrame, place: int) -> str:
    value = table["value"].iloc[place]
    return num(value) if is_number(value) else str(value)


def trade_offs(page: Page) -> Section:
    """bias² against variance, and the table of trials."""
    explore = page.tables.explore
    id, question, short = "trials", "What are the trade-offs?", "Trade-offs and trials"
    measured = explore.dropna(subset=["bias_sq", "variance"]) if "bias_sq" in explore else explore.iloc[:0]
    blocks: list[Block] = []
    if len(measured) < 2:
        answer = f"{count(len(measured), 'trial')} with a measured decomposition: there is nothing to trade yet."
    else:
        front = figures_trials.pareto(measured)
        ends = front.iloc[0], front.iloc[-1]
        if len(front) == 1:
            answer = (
                f"There is no trade-off: trial {ends[0]['number']:g} has the lowest {page.bias}, "
                f"{with_interval(ends[0], 'bias_sq')}, and the lowest variance, {with_interval(ends[0], 'variance')}."
            )
        else:
            answer = (
                f"{len(front)} of {len(measured)} trials are beaten by no other in both parts, from "
                f"{_ends(page, ends[0])} to {_ends(page, ends[1])}."
            )
        best = measured.sort_values(["selection_risk", "number"], kind="stable").iloc[0]
        fig = figures_trials.trade_off(explore, str(best["key"]))
        if fig is not None:
            caption = (
                f"One point a trial, n = {page.replicas} replicas each, test set. Dotted: equal sums of the two parts. "
                "Points near 0 have wide intervals; trials with a part of 0 or less are only in the table."
            )
            blocks += panel([figure_view(fig, "trade-off", label=f"Scatter of {page.bias} against variance. {answer}",
                                         caption=caption, height="h4")])  # fmt: skip
    return Section(id, question, answer, tuple(blocks), partial="trials", partial_first=False, short=short)


def _ends(page: Page, row: pd.Series) -> str:
    parts = f"{page.bias} {with_interval(row, 'bias_sq')}, variance {with_interval(row, 'variance')}"
    return f"trial {row['number']:g} ({parts})"


def trials_table(page: Page) -> TableView:
    """Return the table of trials: numbers to sort by, the knobs that vary, and the id of each run."""
    explore = page.tables.explore
    knobs = [k for k in page.history.spec.get("space", {}) if k in explore]
    show: list[Any] = [
        ("number", "trial"), ("outcome", "outcome"), ("val_risk", "validation risk", num), ("risk", "test risk", num),
        ("bias_sq", page.bias, num), ("variance", "variance", num), ("test_error", "test error", num),
        ("train_error", "training error", num), ("n_diverged", "diverged replicas", num),
        ("n_parameters", "parameters", num), *[(k, k, knob_value) for k in knobs], ("run_id", "MLflow run"),
    ]  # fmt: skip
    if "half_width" in explore:  # trials that grow
        show[7:7] = [("n_replicas", "replicas", num), ("half_width", "half-width", num)]
    best = page.tables.explore.dropna(subset=["selection_risk"]) if "selection_risk" in explore else explore.iloc[:0]
    key = str(best.sort_values(["selection_risk", "number"], kind="stable")["key"].iloc[0]) if len(best) else None
    order = ["selection_risk", "number"]
    view = table_view(
        explore.sort_values(order, kind="stable") if "selection_risk" in explore else explore,
        show, title="all trials", most=2000, sortable=True, best=key,
        caption=f"One row a trial, n = {page.times} replicas each, by validation risk; the best is marked.",
        link=page.link("trials.csv"),
    )  # fmt: skip
    rows = []
    for row in view.rows:
        *cells, run = row.cells
        cells.append(Cell(run.text[:8], False, run.text, f"run id {run.text}"))
        rows.append(Row(tuple(cells), row.best))
    return TableView(view.title, view.caption, view.columns, tuple(rows), view.link)
