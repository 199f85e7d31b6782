"""The section of a study of variants: what each technique changed, and what that cost."""

import numpy as np
import pandas as pd

from lab.analysis.capacity_curve import number_column
from lab.report.context import CAUSES, Page
from lab.report.figures_interventions import by_gain, forest, readable
from lab.report.text import count, interval, num, sentence
from lab.report.view import Block, Section, figure_view, panel, table_view

PARTS = ("risk", "bias_sq", "variance")


def interventions(page: Page) -> Section | None:
    """What each variant changes against the baseline; None in a study without variants."""
    table = page.tables.interventions
    if table.empty:
        return None
    order, baseline = by_gain(table), readable(next(iter(page.history.spec["variants"])))
    wide = _wide(table).loc[order]
    risk = wide["risk"]
    lower = [name for name in order if risk.loc[name, "hi"] < 0]
    higher = [name for name in order if risk.loc[name, "lo"] > 0]
    rest = len(order) - len(lower) - len(higher)
    answer = (
        f"Of {count(len(order), 'technique')} switched on one at a time, {len(lower) or 'none'} lowered the risk, "
        f"{len(higher) or 'none'} raised it" + (f", and of {rest} it cannot be said" if rest else "")
    )
    if lower:
        row = risk.loc[lower[0]]
        answer += (
            f"; {readable(lower[0])} lowered it most, by {num(-row['difference'])} "
            f"{interval(-row['hi'], -row['lo'], row['difference'])} of {num(row['baseline'])}"
        )
    lost = _without_result(page)
    if lost:
        answer += f"; {', '.join(lost)} gave no result"
    counts = table[table["term"] == "risk"].iloc[0]
    caption = (
        f"Difference from {baseline} on the same {counts['n_resamples']:g} training sets, seeds and "
        f"{counts['n_test']:g} test images. Brackets: {page.level} % intervals of each paired difference by itself: of "
        f"{len(order)} techniques without any effect, about {(1 - float(page.level) / 100) * len(order):.1f} would "
        "seem to have one."
    )
    blocks: list[Block] = []
    height = "h3" if len(order) < 5 else "h4" if len(order) < 8 else "h5" if len(order) < 13 else "h6"
    for id, terms, title in (
        ("interventions-parts", PARTS, "Risk and its parts"),
        ("interventions-causes", CAUSES, "Where the variance changes"),
    ):
        fig = forest(table, terms, with_noise=page.known_noise)
        if fig is not None:
            label = f"{title}: change by each technique, with intervals; the numbers are in the table below. {answer}."
            blocks += panel([figure_view(fig, id, label=label, title=title, caption=caption, height=height)])
    fig = forest(table, ("epoch_seconds",), with_noise=page.known_noise)
    if fig is not None and "epoch_time" in wide:
        told = f"Longest: {_longest(table)}."
        blocks += panel([figure_view(
            fig, "interventions-seconds", title="Seconds an epoch of all replicas takes", height=height,
            label=f"Seconds of an epoch: change by each technique, with intervals. {told}",
            caption=f"{_pairs(table)} {page.level} % intervals. {told}",
        )])  # fmt: skip
    if lost:
        blocks.append(Block("list", [f"{name} gave no result: {reason}" for name, reason in lost.items()]))
    flat = pd.DataFrame({"variant": [readable(name) for name in order]})
    show: list[tuple[str, str]] = [("variant", "technique")]
    for term in (*PARTS, *CAUSES, "error"):
        for end, suffix in (("difference", ""), ("lo", "_lo"), ("hi", "_hi")):
            flat[f"{term}{suffix}"] = wide[term][end].to_numpy()
        show.append((term, f"change of {page.part(term)}"))
    if "epoch_time" in wide:
        for end, suffix in (("difference", ""), ("lo", "_lo"), ("hi", "_hi")):
            flat[f"times{suffix}"] = 1 + wide["epoch_time"][end].to_numpy()
        show.append(("times", "time of an epoch, of the baseline's"))
    if "seconds" in wide:
        flat["whole"] = (wide["seconds"]["value"] / wide["seconds"]["baseline"]).to_numpy()
        show.append(("whole", "time of the whole training, of the baseline's (n = 1)"))
    numbers = table_view(
        flat, show, title="what each technique changes", caption=f"One row a technique. {page.band} {_pairs(table)}",
        link=page.link("interventions.csv"),
    )  # fmt: skip
    question = "What does each technique change?"
    return Section(
        "interventions", question, sentence(answer), (*blocks, Block("numbers", numbers)), short="Techniques"
    )


def _without_result(page: Page) -> dict[str, str]:
    """Return the techniques of which nothing was measured, and why."""
    rows = page.tables.explore
    if "variant" not in rows:
        return {}
    rows = rows[~np.isfinite(number_column(rows, "bias_sq"))]
    return {readable(row["variant"]): sentence(row["reason"] or row["outcome"]) for row in rows.to_dict("records")}


def _pairs(table: pd.DataFrame) -> str:
    """Return how the time of an epoch was taken; empty if it was not."""
    n = table.loc[table["term"] == "epoch_seconds", "n_timings"].dropna()
    if n.empty:
        return ""
    return (
        f"Time of an epoch: {n.iloc[0]:g} epochs of the baseline and of the technique by turns, without evaluation; "
        "an ensemble of M takes M times as long by its nature. That a technique trains for more epochs, or stops "
        "early, shows only in the time of the whole training, which was taken once and beside other work."
    )


def _longest(table: pd.DataFrame) -> str:
    times = table[table["term"] == "epoch_time"].set_index("variant")["value"]
    return f"{readable(str(times.idxmax()))}, {num(times.max())} times the baseline's"


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a variant, columns (term, what)."""
    wide = table.pivot(index="variant", columns="term", values=["baseline", "value", "difference", "lo", "hi"])
    return wide.swaplevel(axis=1)
