"""The section of a study that redraws the noise of its labels: how much of the variance that makes."""

from typing import Any

from lab.analysis.noisy_labels import TERMS
from lab.report.context import Page
from lab.report.figures_more import labels_variance
from lab.report.text import count, num, percent, with_interval
from lab.report.view import Block, Section, figure_view, panel, table_view
from lab.spec import CAPACITY_KNOBS

HEADINGS = ("from the noise alone", "with the training set", "with the seed", "with both")


def noisy_labels(page: Page) -> Section | None:
    """Return the variance that comes from redrawing the noise of the labels; None where none was redrawn."""
    table = page.tables.noisy_labels
    if table.empty:
        return None
    varied = [knob for knob in CAPACITY_KNOBS if table[knob].nunique() > 1]
    most = table.sort_values(["label_noise", *varied], kind="stable").iloc[
        -1
    ]  # not the largest estimate: that is lucky
    at = ", ".join(f"{knob} {most[knob]:g}" for knob in varied)
    answer = (
        f"With {percent(most['label_noise'])} of the labels redrawn{' and ' + at if at else ''}, the most that was "
        "tried, another draw alone, on the same images and from the same seed, makes a variance of "
        f"{with_interval(most, 'variance_of_labels')}, {percent(most['share'])} of all of it."
    )
    fig = labels_variance(table, varied)
    views = [] if fig is None else [figure_view(
        fig, "noisy-labels", label=f"Variance from the noise of the labels against its share. {answer}", height="h3",
        caption=f"{count(len(table), 'trial')}, n = {page.replicas} replicas each, test set. The sum of all terms that "
        f"the {most['n_noise_draws']:g} draws of the noise have a part in; bands: the {page.level} % intervals of the "
        "terms added up, which is on the safe side.",
    )]  # fmt: skip
    show: list[Any] = [
        ("label_noise", "share of redrawn labels", num), *((knob, knob, num) for knob in varied),
        ("number", "trial", num),
        ("variance", "variance"), ("variance_of_labels", "of it from the labels"), ("share", "share", percent),
        *zip(TERMS, HEADINGS, strict=True), ("n_replicas", "replicas", num),
    ]  # fmt: skip
    numbers = table_view(
        table, show, title="variance from the noise of the labels", link=page.link("noisy_labels.csv"),
        caption=f"One row a share and capacity. {page.band}",
    )  # fmt: skip
    question = "How much of the variance do noisy labels make?"
    return Section("labels", question, answer, (*panel(views), Block("numbers", numbers)), short="Noisy labels")
