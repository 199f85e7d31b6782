"""The section on single test images: which are hard for every training, which depend on it, which labels look odd."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from lab.analysis.examples import AGREEMENT, CONFIDENCE, concentration
from lab.report import figures_examples
from lab.report.context import Page, which
from lab.report.pictures import overlay, picture, vote_bars
from lab.report.text import count, num, percent
from lab.report.view import Block, Section, figure_view, panel, table_view

MOST_CARDS = 8
SEEN_NOTE = (
    "The second picture of an image shows in colour where the replicas see the class that most of them call: Grad-CAM "
    "of the last block's maps (Selvaraju et al. 2017), the mean over {n} replicas, each scaled to its largest value. "
    "It shows what the networks reacted to, not whether that was right; where there is no colour, nothing in the maps "
    "speaks for the class by this measure."
)


@dataclass(frozen=True)
class Card:
    """One image of the gallery, what its label is, what the replicas say, and its parts of the risk."""

    image: Markup | str
    seen: Markup | str
    title: str
    said: str
    bars: Markup
    parts: str


@dataclass(frozen=True)
class Gallery:
    """A row of images with what they have in common."""

    title: str
    note: str
    cards: tuple[Card, ...]


def examples(page: Page) -> Section:
    """Return the map of test images and galleries of the hardest."""
    table, id, question, short = page.tables.examples, "examples", "Which examples are hard?", "Hard examples"
    focus = page.tables.focus
    if table.empty or focus is None:
        why = page.tables.predictions_note or "No configuration was measured, so there are no predictions to look at."
        return Section(id, question, "This cannot be said: no predictions to look at.", (Block("note", why),),
                       short=short)  # fmt: skip
    suspected = table[table["suspected"]]
    wrong = int((table["vote"] != table["label"]).sum())
    labels = (
        f"{count(len(suspected), 'label')} should be checked"
        if len(suspected)
        else "no label is suspected of being wrong"
    )
    answer = (
        f"The hardest tenth of the {len(table)} test images carries {percent(concentration(table))} of the risk; most "
        f"replicas are wrong on {count(wrong, 'image')}, and {labels}."
    )
    who = f"{which(focus)}, n = {num(focus.get('n_replicas'))} replicas"
    caption = f"{who}, one point an image. Estimates of a single image are noisy, and near 0 can be negative."
    if len(table) > figures_examples.MOST_POINTS:
        caption += f" {figures_examples.MOST_POINTS} of {len(table)} are drawn, the hardest all."
    fig = figures_examples.example_map(table, with_noise=page.known_noise)
    blocks = panel([] if fig is None else [figure_view(
        fig, "example-map", label=f"Scatter of {page.bias} against variance of each test image. {answer}",
        caption=caption, height="h4",
    )])  # fmt: skip
    galleries = [g for g in _galleries(page, table) if g.cards]
    blocks += [Block("gallery", g) for g in galleries]
    if galleries and page.tables.images is not None and page.tables.images.seen_KHW is not None:
        blocks.append(Block("note", SEEN_NOTE.format(n=num(focus.get("n_replicas")))))
    if galleries and page.tables.images is None:
        blocks.append(Block("note", "Images are kept of the confirmed configuration only: they come with the "
                            "confirmation."))  # fmt: skip
    show: list[Any] = [
        ("index", "image"), ("name", "label"), ("vote_name", "called"), ("agreement", "by", percent), ("risk", "risk"),
        *page.columns("bias_sq", "variance"), ("p_label", "probability of the label"),
    ]  # fmt: skip
    numbers = table_view(
        table.sort_values(["risk", "index"], ascending=[False, True], kind="stable"), show,
        title="the hardest images", link=page.link("examples.csv"),
        caption=f"One row a test image, the hardest first; by: share of the replicas. {who}.", most=40,
    )  # fmt: skip
    return Section(id, question, answer, (*blocks, Block("numbers", numbers)), short=short)


def _galleries(page: Page, table: pd.DataFrame) -> list[Gallery]:
    suspected = table[table["suspected"]].sort_values(["bias_sq", "index"], ascending=[False, True], kind="stable")
    rest, above = table[~table["suspected"]], ", other than those above" if len(suspected) else ""
    hard, order = ["bias_sq", "index"], [False, True]
    rows = (
        ("Labels to check",
         f"At least {percent(AGREEMENT)} of the replicas agree on another class, and give it {percent(CONFIDENCE)} or "
         "more: the label is wrong, or the image looks like the other class.", suspected),
        ("Hard for every training", f"Highest {page.bias}{above}: more of the same training does not help.",
         rest.sort_values(hard, ascending=order, kind="stable")),
        ("It depends on the training", "Highest variance: another training set or seed gives another answer; an "
         "ensemble helps.", rest.sort_values(["variance", "index"], ascending=order, kind="stable")),
    )  # fmt: skip
    return [
        Gallery(title, note, tuple(_card(page, row) for row in chosen.head(MOST_CARDS).to_dict("records")))
        for title, note, chosen in rows
    ]


def _brief(part: float) -> str:
    """Return a part of one image with at most two decimals: more of them would be noise."""
    return num(round(float(part), 2), 2)


def _card(page: Page, row: dict[Hashable, Any]) -> Card:
    images, votes_NC = page.tables.images, page.tables.votes_NC
    assert votes_NC is not None
    votes = votes_NC[row["index"]]
    names = [str(n) for n in page.history.data.get("class_names", range(len(votes)))]
    image: Markup | str = ""
    seen: Markup | str = ""
    if images is not None and row["index"] in images.index_K:
        place = int((images.index_K == row["index"]).argmax())
        image = picture(images.images_KCHW[place], f"Test image {row['index']}, labelled {row['name']}")
        if images.seen_KHW is not None:
            drawn = overlay(images.images_KCHW[place], images.seen_KHW[place])
            seen = picture(drawn, f"Where the replicas see “{row['vote_name']}” in test image {row['index']}")
    return Card(
        image=image,
        seen=seen,
        title=f"labelled “{row['name']}”",
        said=f"{votes[row['vote']]} of {votes.sum()} say “{row['vote_name']}”",
        bars=vote_bars(votes.tolist(), int(row["label"]), names),
        parts=f"image {row['index']}: {_brief(row['bias_sq'])} + {_brief(row['variance'])}",
    )
