"""Figures of one configuration, class by class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.report.style import GHOST, INK, MUTED, RANKED, VARIANCE, Series, band, figure, line, rounded, whiskers

MOST_CLASSES = 20


def confusion(percent_CC: np.ndarray, names: Sequence[str]) -> go.Figure | None:
    """Return the confusion matrix in percent of the true class: mistakes in colour, what is right in grey.

    Args:
        percent_CC: Rows are true classes, columns predicted ones.
        names: Of the classes.
    """
    size = len(names)
    if not size or not np.isfinite(percent_CC).any():
        return None
    diagonal = np.eye(size, dtype=bool)
    wrong = np.where(diagonal, np.nan, percent_CC)
    right = np.where(diagonal, percent_CC, np.nan)
    labels = _short(names)
    fig = figure(
        x={"title": {"text": ""}, "side": "top", "showline": False, "ticks": "", "type": "category"},
        y={
            "title": {"text": "rows: the true class, columns: the predicted one"},
            "autorange": "reversed",
            "showgrid": False,
            "type": "category",
        },
    )
    shared = {"x": labels, "y": labels, "xgap": 2, "ygap": 2, "showscale": False, "hoverongaps": False}
    if size <= 12:
        shared |= {"texttemplate": "%{text}", "textfont": {"size": 12, "color": INK}}
    hover = "true %{y}, predicted %{x}: %{z:.1f} %<extra></extra>"
    worst = float(np.nanmax(wrong)) if size > 1 else 1.0
    fig.add_heatmap(
        z=[rounded(row, 3) for row in right], text=_percents(right), hovertemplate=hover,
        colorscale=[[0, "#EEF1F4"], [1, "#EEF1F4"]], **shared,
    )  # fmt: skip
    fig.add_heatmap(
        z=[rounded(row, 3) for row in wrong], text=_percents(wrong, least=0.5), hovertemplate=hover, zmin=0,
        zmax=max(worst, 1e-9), colorscale=[[0, "#FCE9DC"], [1, "#F3A66B"]], **shared,
    )  # fmt: skip
    return fig


def _percents(values_CC: np.ndarray, least: float = -1.0) -> list[list[str]]:
    return [["" if not np.isfinite(v) or v < least else f"{v:.0f}" for v in row] for row in values_CC]


def _short(names: Sequence[str], most: int = 14) -> list[str]:
    """Return names that fit an axis; two that would look the same stay apart."""
    cut = [name if len(name) <= most else name[: most - 1] + "…" for name in names]
    return [text if cut.count(text) == 1 else f"{text} ({k})" for k, text in enumerate(cut)]


def per_class(table: pd.DataFrame) -> go.Figure | None:
    """Return precision, recall and F1 of each class with intervals, the hardest class on top.

    Args:
        table: `lab.analysis.classification.per_class`; of more than 20 classes the 20 hardest are drawn.
    """
    table = table.dropna(subset=["f1"]).sort_values(["f1", "class"], kind="stable").head(MOST_CLASSES)
    if table.empty:
        return None
    names = _short([str(n) for n in table["name"]], 18)
    ends = [c for m in ("precision", "recall", "f1") for c in (f"{m}_lo", m)]
    low = float(np.nanmin(table[ends].to_numpy(float)))
    fig = figure(
        x={"title": {"text": "0 = never, 1 = always"}, "showgrid": True, "range": [max(-0.02, low - 0.03), 1.02]},
        y={"title": {"text": ""}, "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False,
           "range": [len(names) - 0.4, -0.6]},
    )  # fmt: skip
    measures = (
        Series("precision", "#009E73", "triangle-up", "solid"),
        Series("recall", VARIANCE, "square", "solid"),
        Series("F1", INK, "circle", "solid"),
    )
    for style, shift in zip(measures, (-0.24, 0.0, 0.24), strict=True):
        column = style.label.lower()
        fig.add_scatter(
            x=rounded(table[column]), y=[k + shift for k in range(len(names))], name=style.label, mode="markers",
            marker={"color": style.color, "symbol": style.symbol, "size": 8},
            error_x=whiskers(table, column, style.color), text=names,
            hovertemplate=f"%{{text}}: {style.label} %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
    return fig


def roc(curves: pd.DataFrame, areas: pd.DataFrame) -> go.Figure | None:
    """Return the ROC curves of all classes, each against all others: the four with the least area in colour.

    Args:
        curves: `lab.analysis.confidence.roc`.
        areas: `lab.analysis.confidence.areas`.
    """
    areas = areas.dropna(subset=["auc"]).sort_values(["auc", "class"], kind="stable")
    if curves.empty or areas.empty:
        return None
    fig = figure(
        x={"title": {"text": "false-positive rate"}, "range": [-0.02, 1.02]},
        y={"title": {"text": "true-positive rate"}, "range": [-0.02, 1.04]},
    )
    worst = areas.head(len(RANKED))
    x: list[float | None] = []
    y: list[float | None] = []
    for c in areas["class"].tolist()[len(worst) :]:
        rows = curves[curves["class"] == c]
        x += [*rounded(rows["fpr"], 4), None]
        y += [*rounded(rows["tpr"], 4), None]
    if x:
        fig.add_scatter(
            x=x, y=y, mode="lines", line={"color": GHOST, "width": 1.2}, name="the other classes", hoverinfo="skip"
        )
    fig.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "width": 1, "dash": "longdash"}, name="guessing",
        hoverinfo="skip",
    )  # fmt: skip
    for (_, area), style in zip(worst.iterrows(), RANKED, strict=False):
        rows = curves[curves["class"] == area["class"]]
        rates = rounded(rows["fpr"], 4)
        band(fig, rates, rows["tpr_lo"], rows["tpr_hi"], style.color)
        name = f"{_short([str(area['name'])])[0]} (AUC {area['auc']:.3f})"
        line(fig, rates, rows["tpr"], style, name=name, markers=False)
    return fig


def reliability(table: pd.DataFrame) -> go.Figure | None:
    """Return how often predictions of some confidence are right, and how many there are of each.

    Args:
        table: `lab.analysis.confidence.reliability`.
    """
    if table.empty:
        return None
    fig = figure(
        x={"title": {"text": "probability given to the predicted class"}, "range": [-0.02, 1.02]},
        y={"title": {"text": "share that is right"}, "range": [-0.02, 1.04]},
    )
    fig.add_bar(
        x=rounded(table["confidence"]), y=rounded(table["share"]), width=0.035, marker={"color": GHOST},
        name="share of all predictions", hovertemplate="%{y:.1%} of all predictions<extra></extra>",
    )  # fmt: skip
    fig.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "width": 1, "dash": "longdash"},
        name="as often right as it says", hoverinfo="skip",
    )  # fmt: skip
    fig.add_scatter(
        x=rounded(table["confidence"]), y=rounded(table["accuracy"]), name="measured", mode="lines+markers",
        line={"color": VARIANCE, "width": 2}, marker={"color": VARIANCE, "symbol": "square", "size": 8},
        error_y=whiskers(table, "accuracy", VARIANCE), text=table["n_predictions"].tolist(),
        hovertemplate="says %{x:.2f}, is right %{y:.2f} (%{text} predictions)<extra></extra>",
    )  # fmt: skip
    return fig
