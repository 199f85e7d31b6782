"""The section on the confirmed configuration, class by class."""

import numpy as np
import pandas as pd

from lab.report import figures_classes
from lab.report.context import Page, which
from lab.report.sections_more import shifted
from lab.report.text import num, percent, with_interval
from lab.report.view import Block, Section, figure_view, panel, table_view


def classes(page: Page) -> Section:
    """Confusion matrix, and precision, recall and F1 of each class."""
    tables, id, question, short = page.tables, "classes", "Where does it fail?", "Errors by class"
    table = tables.per_class.dropna(subset=["f1"]) if len(tables.per_class) else tables.per_class
    if tables.confusion is None or table.empty or tables.focus is None:
        why = tables.predictions_note or "No configuration was measured, so there are no predictions to look at."
        return Section(id, question, "This cannot be said: no predictions to sort.", (Block("note", why),), short=short)
    percents = tables.confusion.percent_CC
    names = [str(n) for n in page.history.data.get("class_names", range(len(percents)))]
    worst = table.sort_values(["f1", "class"], kind="stable").iloc[0]
    answer = f"Hardest is “{worst['name']}”: F1 {with_interval(worst, 'f1')}"
    off = np.where(np.eye(len(percents), dtype=bool), np.nan, percents)
    if len(percents) > 1 and np.isfinite(off).any() and np.nanmax(off) > 0:
        true, taken = np.unravel_index(np.nanargmax(off), off.shape)
        answer += f"; {off[true, taken]:.1f} % of “{names[true]}” are taken for “{names[taken]}”, the most of any pair"
    answer += "."
    who = f"{which(tables.focus)}, means over n = {tables.confusion.n_replicas} replicas"
    views = []
    fig = figures_classes.confusion(percents, names)
    if fig is not None:
        views.append(figure_view(
            fig, "confusion", title="Who is taken for whom, % of the true class", square=True,
            height="h5" if len(names) > 6 else "h3", label=f"Confusion matrix. {answer}",
            caption=f"{who}; each row adds up to 100. Grey: right. Under 0.5 % is left blank.",
        ))  # fmt: skip
    fig = figures_classes.per_class(table)
    if fig is not None:
        more = (
            f" The {figures_classes.MOST_CLASSES} hardest of {len(table)}."
            if len(table) > figures_classes.MOST_CLASSES
            else ""
        )
        views.append(figure_view(
            fig, "per-class", title="Precision, recall and F1, the hardest class on top",
            height="h5" if len(table) > 6 else "h3",
            label=f"Precision, recall and F1 of each class. {answer}",
            caption=f"{who}. Precision: how many of those called so are. Recall: how many of those that are, are "
            f"found. F1: their harmonic mean. {page.level} % intervals.{more}",
        ))  # fmt: skip
    show = [("name", "class"), *[(m, h) for m, h in (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))],
            ("auc", "AUC"), ("support", "test images")]  # fmt: skip
    table = table.merge(tables.areas[["class", "auc", "auc_lo", "auc_hi"]], on="class", how="left")
    blocks = [*panel(views), *_confidence(page, who), Block("numbers", table_view(
        table, show, title="every class", link=page.link("per_class.csv"),
        caption=f"One row a class; {who[0].lower()}{who[1:]}.",
    ))]  # fmt: skip
    if len(tables.summary):
        summary = tables.summary.rename(columns={"lo": "value_lo", "hi": "value_hi"})
        blocks.append(Block("numbers", table_view(
            summary, [("metric", "metric"), ("value", "value"), ("covers", "the interval covers")],
            title="all classes together", caption=f"{who}; brackets: {page.level} % intervals.",
            link=page.link("summary.csv"),
        )))  # fmt: skip
    return Section(id, question, answer, (*blocks, *shifted(page)), short=short)


def _confidence(page: Page, who: str) -> list[Block]:
    """Return ROC curves and the reliability diagram, with what they say in a sentence."""
    tables, views = page.tables, []
    fig = figures_classes.roc(tables.roc, tables.areas)
    areas = tables.areas.dropna(subset=["auc"]).sort_values(["auc", "class"], kind="stable")
    if fig is not None:
        worst = areas.iloc[0]
        views.append(figure_view(
            fig, "roc", title="Does it rank the right images first? ROC, one class against the rest", height="h4",
            label=f"ROC curves of {len(areas)} classes; the least area is that of {worst['name']}, "
            f"{with_interval(worst, 'auc')}; the mean over classes is {num(areas['auc'].mean())}.",
            caption=f"{who}; bands: ±2 standard errors over replicas. Mean area under the curves "
            f"{num(areas['auc'].mean())}, least {with_interval(worst, 'auc')} (“{worst['name']}”). "
            "0.5 is guessing, 1 is perfect.",
        ))  # fmt: skip
    fig = figures_classes.reliability(tables.reliability)
    if fig is not None:
        said, right = _overall(tables.reliability)
        ece = tables.summary[tables.summary["metric"] == "ece"].rename(columns={"lo": "value_lo", "hi": "value_hi"})
        error = f" Expected calibration error {with_interval(ece.iloc[0], 'value')}." if len(ece) else ""
        verdict = f"on average it says {percent(said, 1)} and is right in {percent(right, 1)}"
        views.append(figure_view(
            fig, "reliability", title="Can its probabilities be taken at their word?", height="h4",
            label=f"Reliability diagram: {verdict}.",
            caption=f"{who}: {verdict}. Below the diagonal it is too sure of itself, above it not sure enough. "
            f"Whiskers: {page.level} % intervals.{error}",
        ))  # fmt: skip
    return panel(views)


def _overall(table: pd.DataFrame) -> tuple[float, float]:
    """Return mean confidence and accuracy of all predictions."""
    return float((table["confidence"] * table["share"]).sum()), float((table["accuracy"] * table["share"]).sum())
