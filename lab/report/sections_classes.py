"""The section on the confirmed configuration, class by class."""

import numpy as np

from lab.report import figures_classes
from lab.report.context import Page, which
from lab.report.text import with_interval
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
            ("support", "test images")]  # fmt: skip
    blocks = [*panel(views), Block("numbers", table_view(
        table, show, title="every class", caption=f"One row a class; {who}.", link=page.link("per_class.csv"),
    ))]  # fmt: skip
    if len(tables.summary):
        blocks.append(Block("numbers", table_view(
            tables.summary, [("metric", "metric"), ("value", "value"), ("covers", "the interval covers")],
            title="all classes together", caption=f"{who}; brackets: {page.level} % intervals.",
            link=page.link("summary.csv"),
        )))  # fmt: skip
    return Section(id, question, answer, tuple(blocks), short=short)
