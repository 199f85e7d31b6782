"""The sections of evidence: each a function of the tables that returns a question, its answer and what shows it.

An answer is one sentence with numbers, and true of the tables it is made from: it says "goes with", never "causes",
since trials differ in many knobs at once. A section that has nothing to show says what is missing and how to get it.
See also sections_trials (attribution, trade-offs) and sections_classes (confusion, precision and recall).
"""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from lab.analysis.capacity_curve import estimate
from lab.analysis.learning_curve import Extrapolation
from lab.report import figures, figures_trials
from lab.report.context import CAUSES, Page, which
from lab.report.sections_more import signals
from lab.report.text import count, interval, is_number, num, percent, sentence, with_interval
from lab.report.view import Block, Section, figure_view, panel, table_view


def capacity(page: Page) -> Section:
    """Error against capacity: stacked parts, the parts apart, and the variance by cause."""
    curve = page.tables.capacity.dropna(subset=["risk"])
    id, question, short = "capacity", "How does error change with capacity?", "Error against capacity"
    if len(curve) < 2:
        answer = (
            f"This was not measured: all trials have one capacity, {_at(curve.iloc[0], curve)}, and a curve needs two."
            if len(curve)
            else "This cannot be said: no trial gave a measured risk."
        )
        return Section(id, question, answer, short=short)
    best, first, last = curve.sort_values("risk", kind="stable").iloc[0], curve.iloc[0], curve.iloc[-1]
    answer = (
        f"Risk is lowest, {with_interval(best, 'risk')}, at {_at(best, curve)}; from the smallest to the largest "
        f"models {page.bias} {_moved(curve, 'bias_sq')}, and variance {_moved(curve, 'variance')}."
    )
    ends = (
        f"From {_at(first, curve)} to {_at(last, curve)} {page.bias} went from {with_interval(first, 'bias_sq')} to "
        f"{with_interval(last, 'bias_sq')}, and variance from {with_interval(first, 'variance')} to "
        f"{with_interval(last, 'variance')}{_bend(curve)}."
    )
    n_trials = int(curve["n_trials"].sum())
    caption = (
        "One point a level of capacity: the trial of the level with the lowest validation risk, "
        f"{count(n_trials, 'trial')} in {count(len(curve), 'level')}, n = {page.replicas} replicas a trial, measured "
        f"on the test set. {page.band}"
    )
    clipped = _negative(curve, ("noise", "bias_sq", "variance"))
    if clipped:
        caption += f" Negative estimates ({clipped}) are drawn as 0 here and kept in the numbers."
    blocks: list[Block] = []
    stack = figures.capacity_stack(curve, threshold=page.tables.threshold)
    if stack is not None:
        label = (
            f"Stacked areas of {page.bias} and variance against capacity, with the measured risk as a line. {answer}"
        )
        blocks += panel([figure_view(stack, "capacity-stack", label=label, caption=caption, height="h4")])
    shares = figures.capacity_parts(curve)
    causes = figures.capacity_parts(curve, CAUSES)
    blocks += panel(
        figure_view(
            fig, f"capacity-{name}", title=title, height="h2",
            label=f"{title} against capacity, with intervals; the numbers are in the table below.", caption=text,
        )
        if fig is not None else None
        for name, title, fig, text in (
            ("parts", f"{page.bias[0].upper()}{page.bias[1:]} and variance apart", shares, page.band),
            ("causes", "Where the variance comes from", causes,
             "Values of 0 or less cannot stand on a log axis: see the numbers."),
        )
    )  # fmt: skip
    blocks += [Block("note", ends), Block("note", sentence(page.tables.peak.reason))]
    if page.tables.threshold is not None:
        name, at = str(curve["capacity_name"].iloc[0]), num(page.tables.threshold)
        size = f"{at} parameters" if name == "n_parameters" else f"{name} {at}"
        blocks.append(Block("note", f"Interpolation threshold: training error is at most 1 % from {size} on."))
    show = [
        ("n_parameters", "parameters"), ("width", "width"), ("depth", "depth"), ("number", "trial"),
        ("n_trials", "trials in level"), *page.columns("risk"), *(page.columns("noise") if page.known_noise else ()),
        *page.columns("bias_sq", "variance", *CAUSES), ("train_error", "training error"), ("test_error", "test error"),
    ]  # fmt: skip
    table = table_view(
        curve, show, title="error against capacity", caption=f"One row a level of capacity. {page.band}",
        best=str(best["key"]), link=page.link("capacity_curve.csv"),
    )  # fmt: skip
    return Section(id, question, answer, (*blocks, Block("numbers", table)), short=short)


def _moved(curve: pd.DataFrame, part: str) -> str:
    """Return how a part goes from the first level to the last, as far as intervals of differences exclude 0.

    With a turn in between, if its lowest (or highest) level is clear of both ends.
    """
    first, last = curve.iloc[0], curve.iloc[-1]
    change = estimate(last, part) - estimate(first, part)
    low, high = (estimate(curve.iloc[place], part) for place in (curve[part].argmin(), curve[part].argmax()))
    if (low - estimate(first, part)).hi < 0 < (estimate(last, part) - low).lo:
        return "falls and rises again"
    if (high - estimate(first, part)).lo > 0 > (estimate(last, part) - high).hi:
        return "rises and falls again"
    if not is_number(change.half):
        return f"goes from {num(first[part])} to {num(last[part])}"
    if not change.excludes_zero:
        return "may rise or fall"
    return "falls" if change.hi < 0 else "rises"


def _bend(curve: pd.DataFrame) -> str:
    """Return where between the ends of the curve the variance is lower, or higher, than at both; empty if nowhere."""
    told = []
    for word, place in (("lowest", curve["variance"].argmin()), ("highest", curve["variance"].argmax())):
        if 0 < place < len(curve) - 1:
            told.append(f"{word} at {_at(curve.iloc[place], curve)}: {with_interval(curve.iloc[place], 'variance')}")
    return f" ({'; '.join(told)})" if told else ""


def _at(row: pd.Series, curve: pd.DataFrame) -> str:
    """Return the capacity of a level: its parameters, and the dials that the curve turns."""
    size = f"{num(row['n_parameters'])} parameters"
    dials = [k for k in ("width", "depth") if curve[k].nunique() > 1 or len(curve) == 1]
    words = [f"{k} {row[k]:g}" for k in dials if is_number(row.get(k))]
    return f"{size} ({', '.join(words)})" if words else size


def _negative(table: pd.DataFrame, names: tuple[str, ...]) -> str:
    found = [f"{n.replace('_sq', '²')} {num(v)}" for n in names if n in table for v in table[n] if v < 0]
    return ", ".join(found[:3])


def training(page: Page) -> Section:
    """Training curves of all trials, and the parts of the risk through training."""
    id, question = "training", "Was training long enough, or too long?"
    table, runs = page.tables.training, page.tables.convergence
    runs = runs[runs["phase"] == "explore"]
    if table.empty or runs.empty:
        return Section(id, question, "This cannot be said: no training curve was recorded.", short="Training curves")
    counts = runs["status"].value_counts()
    told = ", ".join(f"{counts[s]} {s}" for s in sorted(counts.index, key=lambda s: (-counts[s], s)))
    answer = f"Of {count(len(runs), 'trial')}: {told}."
    chosen = page.tables.convergence
    chosen = chosen[chosen["key"] == (page.tables.focus["key"] if page.tables.focus is not None else "")]
    if len(chosen) and is_number(chosen.iloc[0]["best_epoch"]):
        row = chosen.iloc[0]
        answer += (
            f" The configuration of the verdict had its lowest validation risk, {num(row['val_best'])}, at epoch "
            f"{num(row['best_epoch'])} of {num(row['n_epochs'])} ({row['status']})."
        )
    explore = page.tables.explore
    ranked = explore.dropna(subset=["selection_risk"]) if "selection_risk" in explore else explore.iloc[:0]
    best = {row["key"]: _name(row) for row in ranked.sort_values(["selection_risk", "number"], kind="stable").head(4)
            .to_dict("records")}  # fmt: skip
    shown = table[table["phase"] == "explore"]
    views = []
    for column, title in (("val_risk", "Validation risk"), ("train_risk", "Training risk")):
        fig = figures_trials.training_curves(shown, best, column, title)
        if fig is not None:
            views.append(figure_view(
                fig, f"curves-{column}", title=title, height="h3",
                label=f"{title} of {shown['key'].nunique()} trials against the epoch, the best {len(best)} in colour.",
            ))  # fmt: skip
    blocks = panel(views)
    if blocks:
        blocks.append(Block("caption", (
            f"Means over n = {page.times} replicas a trial (diverged ones left out, and counted "
            f"below); the best {len(best)} by validation risk in colour, with bands of ±2 standard errors over "
            "replicas. All other trials in grey."
        )))  # fmt: skip
    blocks += [*_through_epochs(page), *signals(page)]
    show: list[Any] = [
        ("number", "trial"), ("status", "status"), ("best_epoch", "best epoch"), ("n_epochs", "epochs"),
        ("val_best", "lowest validation risk"), ("val_last", "last"), ("gl", "rise, %"), ("n_diverged", "diverged"),
    ]  # fmt: skip
    numbers = table_view(
        runs.sort_values("number"), show, title="convergence of every trial",
        caption="One row a trial; rise: of validation risk from its lowest to the last epoch.",
        link=page.link("convergence.csv"),
    )  # fmt: skip
    return Section(id, question, answer, (*blocks, Block("numbers", numbers)), short="Training curves")


def _name(row: Mapping[Hashable, Any]) -> str:
    """Return what a trial is called in a legend: its variant, or its number."""
    variant = row.get("variant")
    return variant.replace("_", " ") if isinstance(variant, str) else f"trial {row['number']:g}"


def _through_epochs(page: Page) -> list[Block]:
    focus = page.tables.focus
    if focus is None:
        return []
    epochs = page.history.epochs
    rows = epochs[epochs["key"] == focus["key"]]
    fig = figures.epochs_parts(rows) if "bias_sq" in rows else None
    views = []
    if fig is not None:
        rows = rows.dropna(subset=["bias_sq", "variance"])
        first, last = rows.iloc[0], rows.iloc[-1]
        views.append(figure_view(
            fig, "epochs-parts", title=f"{page.bias[0].upper()}{page.bias[1:]} and variance through training",
            label=f"From epoch {num(first['epoch'])} to {num(last['epoch'])} {page.bias} goes from "
            f"{num(first['bias_sq'])} to {num(last['bias_sq'])}, variance from {num(first['variance'])} to "
            f"{num(last['variance'])}.",
            caption=f"{which(focus)}, n = {num(focus.get('n_replicas'))} replicas, test set. {page.band}",
        ))  # fmt: skip
    histogram = figures_trials.best_epochs(page.tables.convergence[page.tables.convergence["phase"] == "explore"])
    if histogram is not None:
        views.append(figure_view(
            histogram, "best-epochs", title="When was each trial at its best?", height="h3",
            label="Histogram of the epoch of the lowest validation risk, as a share of all epochs.",
            caption="Bars at the right end: train longer. At the left end: training was too long, or too fast.",
        ))  # fmt: skip
    table = table_view(
        rows,
        [("epoch", "epoch"), *page.columns("risk", "bias_sq", "variance", *CAUSES), ("train_risk", "training risk"),
         ("val_risk", "validation risk")],
        title="the parts through training", caption=f"{which(focus)}. {page.band}", link=page.link("epochs.csv"),
    )  # fmt: skip
    return [*panel(views), Block("numbers", table)] if views else []


def more_data(page: Page) -> Section:
    """The learning curve, and what it promises beyond the data."""
    curve, ahead = page.tables.learning.dropna(subset=["risk"]), page.tables.extrapolation
    id, question, short = "data", "Would more data help?", "Learning curve"
    if len(curve) < 2:
        blocks: list[Block] = []
        answer = "This was not measured: the plan of this study, in its file, has no learning curve."
        if page.plans_sizes:
            answer = (
                "This was not measured: the learning curve is trained after the search, on the confirmed configuration."
            )
            blocks = [Block("note", "To finish the study:"), Block("command", page.command("run"))]
        return Section(id, question, answer, tuple(blocks), short=short)
    first, last = curve.iloc[0], curve.iloc[-1]
    answer = (
        f"From {num(first['n_train'])} to {num(last['n_train'])} training examples the risk went from "
        f"{with_interval(first, 'risk')} to {with_interval(last, 'risk')}"
    )
    table = ahead.table if isinstance(ahead, Extrapolation) else None
    if table is not None:
        far = table.iloc[(table["n_train"] - 2 * last["n_train"]).abs().argmin()]
        answer += (
            f"; twice the examples may bring it to about {num(far['value'])} "
            f"{interval(far['lo'], far['hi'], far['value'])}."
        )
    else:
        answer += "; how it goes on cannot be told from this curve."
    caption = f"n = {page.replicas} replicas a size, the same configuration throughout, test set. {page.band}"
    if isinstance(ahead, Extrapolation):
        caption += (
            f" Dotted: {ahead.model} fitted to {ahead.n_sizes} sizes; predicting the last two from the others it "
            f"missed by {percent(ahead.backtest_error, 1)}."
        )
    views = []
    fig = figures.learning_curve(curve, table)
    if fig is not None:
        views.append(figure_view(fig, "learning", title="Risk", label=f"Learning curve. {answer}", caption=caption))
    apart = {k: e.table for k, e in page.tables.extrapolations.items() if isinstance(e, Extrapolation)}
    parts = figures.learning_parts(curve, apart)
    if parts is not None:
        views.append(figure_view(
            parts, "learning-parts", title=f"{page.bias[0].upper()}{page.bias[1:]} and variance",
            label=f"From {num(first['n_train'])} to {num(last['n_train'])} examples {page.bias} goes from "
            f"{num(first['bias_sq'])} to {num(last['bias_sq'])}, variance from {num(first['variance'])} to "
            f"{num(last['variance'])}.",
            caption=f"The same runs. From {num(first['n_train'])} to {num(last['n_train'])} examples {page.bias} goes "
            f"from {with_interval(first, 'bias_sq')} to {with_interval(last, 'bias_sq')}, variance from "
            f"{with_interval(first, 'variance')} to {with_interval(last, 'variance')}.",
        ))  # fmt: skip
    blocks = panel(views)
    if not isinstance(ahead, Extrapolation):
        blocks.append(Block("note", sentence(f"No extrapolation: {ahead.reason}")))
    elif page.tables.needed:
        blocks += [Block("heading", "How many examples for a lower risk?"),
                   Block("list", [sentence(needed.text) for needed in page.tables.needed])]  # fmt: skip
    numbers = table_view(
        curve, [("n_train", "n_train"), *page.columns("risk", "bias_sq", "variance", *CAUSES),
                ("train_risk", "training risk"), ("test_error", "test error"), ("n_replicas", "replicas")],
        title="the learning curve", caption=f"One row a training-set size. {page.band}",
        link=page.link("learning_curve.csv"),
    )  # fmt: skip
    return Section(id, question, answer, (*blocks, Block("numbers", numbers)), short=short)
