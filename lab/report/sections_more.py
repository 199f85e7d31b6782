"""What some studies measure besides: other losses, test sets that are harder than the training data, signal health."""

from typing import Any

import pandas as pd

from lab.analysis import coverage
from lab.analysis.signals import LIMITS, flagged
from lab.report import figures_more
from lab.report.context import Page, which
from lab.report.text import is_number, num, percent, sentence
from lab.report.view import Block, figure_view, panel, table_view

LOSSES = {  # loss → its columns: risk, noise, bias, variance and its causes
    "Brier (this report)": ("risk", "noise", "bias_sq", "variance", "variance_resample", "variance_init",
                            "variance_interaction"),
    "cross-entropy": tuple(f"cross_entropy_{part}" for part in ("risk", "noise", "bias", "variance",
                           "variance_resample", "variance_init", "variance_interaction")),
    "zero-one": ("error", None, "zero_one_bias", "zero_one_variance", None, None, None),
    "zero-one (Kohavi–Wolpert)": ("error", None, "zero_one_kw_bias_sq", "zero_one_kw_variance",
                                  "zero_one_kw_variance_resample", "zero_one_kw_variance_init",
                                  "zero_one_kw_variance_interaction"),
}  # fmt: skip
PARTS = ("risk", "noise", "bias", "variance", "variance_resample", "variance_init", "variance_interaction")
SEVERITIES = {f"corrupted_{severity}": severity for severity in range(1, 6)}
ATTACKS = {f"attacked_{k}": k for k in range(1, 11)}
SHIFTS = ("attacked", *ATTACKS, "corrupted", *SEVERITIES)


def other_losses(page: Page) -> list[Block]:
    """Return the parts of the same configuration in every loss that was decomposed; nothing if Brier is alone."""
    focus, rows = page.tables.focus, []
    if focus is None:
        return []
    for loss, columns in LOSSES.items():
        row: dict[str, Any] = {"loss": loss}
        for part, column in zip(PARTS, columns, strict=True):
            for end in ("", "_lo", "_hi"):
                row[f"{part}{end}"] = focus.get(f"{column}{end}") if column else None
        if pd.notna(row["variance"]):
            rows.append(row)
    if len(rows) < 2:
        return []
    table = _numeric(rows, "loss")
    noise = [("noise", "noise")] if page.known_noise else []
    bias = "bias" if page.known_noise else "bias + noise"
    show: list[Any] = [("loss", "loss"), ("risk", "risk"), *noise, ("bias", bias), ("variance", "variance"),
                       *((name, page.part(name)) for name in PARTS[4:])]  # fmt: skip
    return [Block("numbers", table_view(
        table, show, title="the same configuration in other losses", link=page.link("trials.csv"),
        caption=f"One row a loss; {which(focus).lower()}. Cross-entropy: bias-corrected by leaving out one training "
        "set, approximate; it has no unbiased estimator. In the zero-one loss bias and variance do not add up to the "
        f"error (Domingos 2000), and rest on a mode: no interval. Brackets: {page.level} % intervals.{_short(focus)}",
    ))]  # fmt: skip


def _short(focus: pd.Series) -> str:
    """Return which of these intervals were measured to hold the truth too seldom; empty if none."""
    sizes: list[Any] = [focus.get(name) for name in ("n_resamples", "n_inits")]
    if not all(is_number(n) for n in sizes):
        return ""
    D, I = map(int, sizes)  # noqa: E741 - the letters of the shape legend
    told = ""
    for loss, columns in LOSSES.items():
        for part, column in zip(PARTS, columns, strict=True):
            for key in ("cross_entropy", "zero_one"):
                if column and column.startswith(f"{key}_"):
                    text = coverage.remark(column.removeprefix(f"{key}_"), D, I, loss=key)
                    words = part.replace("_resample", " from the training set").replace("_init", " from the seed")
                    words = words.replace("_interaction", " from both together")
                    told += f" {sentence(f'{loss}, {words}: {text}')}" if text else ""
    return told


def shifted(page: Page) -> list[Block]:
    """Return the test scores under attack and on corrupted images beside the plain ones; nothing if not measured."""
    focus = page.tables.focus
    kinds = [kind for kind in SHIFTS if focus is not None and pd.notna(focus.get(f"{kind}_risk"))]
    if focus is None or not kinds:
        return []
    rows = []
    for name, prefix in (("plain", ""), *((kind, f"{kind}_") for kind in kinds)):
        row: dict[str, Any] = {"test": _condition(name, focus), "kind": name}
        for score in ("risk", "error", "bias_sq", "variance"):
            column = f"{prefix}{score}"
            for end in ("", "_lo", "_hi"):
                row[f"{score}{end}"] = focus.get(f"{column}{end}")
        rows.append(row)
    table = _numeric(rows, "test", "kind")
    told = ", ".join(f"{row['test']} {num(row['risk'])}" for row in rows)
    corruption = f"the corruption “{str(focus.get('corruption', '')).replace('_', ' ')}”"
    views = []
    for id, strengths, of, x_title, source in (
        ("severities", SEVERITIES, f"severity of {corruption}", "severity of the corruption (0: none)",
         "The same test images at each severity (Hendrycks & Dietterich 2019)."),
        ("attacks", {kind: _epsilon(kind, focus) for kind in kinds if kind in ATTACKS}, "strength of the attack",
         "largest change of a pixel, of its range (0: none)",
         "The same test images, each replica attacked by its own gradients (PGD, Madry et al. 2018)."),
    ):  # fmt: skip
        graded = table.assign(strength=table["kind"].map({"plain": 0, **strengths})).dropna(subset=["strength"])
        fig = figures_more.harder(graded, x_title, with_noise=page.known_noise)
        if fig is not None:
            views.append(figure_view(
                fig, id, title=f"Risk and its parts by the {of}", height="h3",
                label=f"Risk, {page.bias} and variance against the {of}. {told}.",
                caption=f"{which(focus)}. {page.band} {source}",
            ))  # fmt: skip
    show: list[Any] = [("test", "test images"), *page.columns("risk", "bias_sq", "variance"), ("error", "error")]
    return [
        Block("heading", "Does it hold on harder images?"),
        Block("note", f"Risk by test images: {told}."),
        *panel(views),
        Block("numbers", table_view(table, show, title="harder test images", link=page.link("trials.csv"),
                                    caption=f"One row a kind of test image; {which(focus).lower()}.")),
    ]  # fmt: skip


def _condition(kind: str, focus: pd.Series) -> str:
    """Return what the test images went through, in words."""
    if kind in SEVERITIES:
        return f"severity {SEVERITIES[kind]}"
    return f"attacked, ε = {_epsilon(kind, focus):.3g}" if kind in ATTACKS else kind


def _epsilon(kind: str, focus: pd.Series) -> float:
    """Return the largest change of a pixel in one of several attacks of evenly rising strengths."""
    return float(focus["attack_epsilon"]) * ATTACKS[kind] / int(focus["attack_strengths"])


def _numeric(rows: list[dict[str, Any]], *names: str) -> pd.DataFrame:
    """Return a table whose columns but `names` are numbers, NaN where there is none."""
    table = pd.DataFrame(rows)
    return table.astype({column: "float64" for column in table.columns if column not in names})


def signals(page: Page) -> list[Block]:
    """Return how gradients and activations went through the layers; nothing if it was not measured."""
    table, focus = page.tables.signals, page.tables.focus
    if table.empty or focus is None:
        return []
    fig = figures_more.gradients(table)
    counts = [f"{w} in {int(focus[n])}" for n, w in (("n_vanishing", "vanishing"), ("n_exploding", "exploding"))
              if pd.notna(focus.get(n))]  # fmt: skip
    ratio = f"in the first layer {num(focus.get('signal_gradient_ratio'))} times those in the last"
    told = f"Gradients {', '.join([*counts, ratio])}, of n = {num(focus.get('n_replicas'))} replicas."
    views = [] if fig is None else [figure_view(
        fig, "signals", title="Gradients by layer through training", height="h2",
        label=f"Root mean square of the gradient of each layer against the epoch. {told}",
        caption=f"{which(focus)}; means over replicas, bands: their range. {told} Vanishing or exploding: a "
        "thousandth, or a thousand times, from first to last layer at the first evaluation.",
    )]  # fmt: skip
    show: list[Any] = [
        ("epoch", "epoch"), ("signal", "signal"), ("layer", "layer"), ("mean", "mean"), ("low", "lowest"),
        ("high", "highest"), ("n_replicas", "replicas"),
    ]  # fmt: skip
    return [*panel(views), Block("note", _flags(table)), Block("numbers", table_view(
        table, show, title="signal health of the layers", link=page.link("signals.csv"),
        caption=f"One row an epoch, signal and layer; {which(focus).lower()}.",
    ))]  # fmt: skip


def _flags(table: pd.DataFrame) -> str:
    """Return which layers cannot learn any more at the end, or take too large steps, and above what that is said."""
    words = {"dead": "{} of its units dead", "saturated": "{} of its values saturated",
             "update": "a step of {} of its weights"}  # fmt: skip
    limits = ", ".join(words[name].format(percent(limit)) for name, limit in LIMITS.items())
    rows = [f"layer {row['layer']}: {words[row['signal']].format(percent(row['mean']))}"
            for _, row in flagged(table).iterrows()]  # fmt: skip
    return f"A layer is flagged at the end of training above {limits}. Flagged: {'; '.join(rows) or 'none'}."
