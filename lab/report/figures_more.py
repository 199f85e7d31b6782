"""Figures of ensembles, and of what some studies measure besides."""

import pandas as pd
import plotly.graph_objects as go

from lab.report.figures import RISK_AXIS, look
from lab.report.style import RANKED, band, figure, line, log_axis, rounded, whiskers

MOST_LAYERS = len(RANKED)


def gradients(table: pd.DataFrame) -> go.Figure | None:
    """Return the size of each layer's gradient against the epoch, with the range over replicas.

    Args:
        table: `lab.analysis.signals.table`; of more than four layers the first, the last and two between are drawn.
    """
    rows = table[(table["signal"] == "gradient") & (table["mean"] > 0)]
    if rows["epoch"].nunique() < 2:
        return None
    places = sorted(rows["position"].unique().tolist())
    if len(places) > MOST_LAYERS:
        places = [places[round(k * (len(places) - 1) / (MOST_LAYERS - 1))] for k in range(MOST_LAYERS)]
    fig = figure(
        x={"title": {"text": "epoch"}}, hover="x unified",
        y=log_axis([*rows["low"], *rows["high"]], "root mean square of the gradient (log scale)"),
    )  # fmt: skip
    for place, style in zip(places, RANKED, strict=False):
        layer = rows[rows["position"] == place].sort_values("epoch")
        floor = 0.1 * float(layer["mean"].min())
        band(fig, layer["epoch"].tolist(), layer["low"].clip(lower=floor), layer["high"], style.color)
        line(fig, layer["epoch"].tolist(), layer["mean"], style, name=f"layer {layer['layer'].iloc[0]}")
    return fig


def harder(table: pd.DataFrame, x_title: str, *, with_noise: bool) -> go.Figure | None:
    """Return risk, bias² and variance against how hard the test images were made, with bands.

    Args:
        table: One row a strength, with the parts and their intervals; strength 0 is the images as they are.
        x_title: What a strength is.
        with_noise: Whether noise is known, so that bias² is bias² alone.
    """
    rows = table.sort_values("strength")
    if len(rows) < 2:
        return None
    x = rows["strength"].tolist()
    fig = figure(x={"title": {"text": x_title}, "tickvals": x}, y={"title": {"text": RISK_AXIS}}, hover="x unified")
    for part in ("risk", "bias_sq", "variance"):
        style = look(part, with_noise=with_noise)
        band(fig, x, rows[f"{part}_lo"], rows[f"{part}_hi"], style.color)
        line(fig, x, rows[part], style)
    return fig


def ensembles(table: pd.DataFrame) -> go.Figure | None:
    """Return the risk of ensembles against the number of members, a colour a kind.

    Args:
        table: `lab.analysis.ensemble.ensembles`.
    """
    if table["n_members"].max() < 2:
        return None
    names = {"same_data": "seeds, same data", "one_seed": "data, same seed", "fresh_data": "data and seeds"}
    sizes = sorted(table["n_members"].unique().tolist())
    fig = figure(
        x={"title": {"text": "members that are averaged"}, "tickvals": sizes, "range": [0.6, sizes[-1] + 0.4]},
        y={"title": {"text": RISK_AXIS}},
    )
    for k, ((kind, name), style) in enumerate(zip(names.items(), RANKED, strict=False)):
        rows = table[table["ensemble"] == kind]
        if rows.empty:
            continue
        places = [m + 0.08 * (k - 1) for m in rows["n_members"]]
        line(fig, places, rows["risk"], style, name=name, markers=False)
        fig.add_scatter(
            x=places, y=rounded(rows["risk"]), name=name, showlegend=False, mode="markers",
            marker={"color": style.color, "symbol": style.symbol, "size": 9},
            error_y=whiskers(rows, "risk", style.color), text=rows["n_members"].tolist(),
            hovertemplate=f"%{{text}} {name}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
    return fig


def labels_variance(table: pd.DataFrame, knobs: list[str]) -> go.Figure | None:
    """Return the variance that redrawn labels make against the share of them that is noise, a line a capacity.

    Args:
        table: `lab.analysis.noisy_labels.noisy_labels`.
        knobs: The capacity knobs that vary in it; of more than four capacities the first, the last and two between.
    """
    lines = [rows for _, rows in table.groupby(knobs, sort=True)] if knobs else [table]
    if len(lines) > len(RANKED):
        lines = [lines[round(k * (len(lines) - 1) / (len(RANKED) - 1))] for k in range(len(RANKED))]
    if max(len(rows) for rows in lines) < 2:
        return None
    fig = figure(
        x={"title": {"text": "share of redrawn labels"}}, hover="x unified",
        y={"title": {"text": "variance from the noise of the labels"}},
    )  # fmt: skip
    for rows, style in zip(lines, RANKED, strict=False):
        x = rows["label_noise"].tolist()
        name = ", ".join(f"{knob} {rows[knob].iloc[0]:g}" for knob in knobs) or "from the labels"
        band(fig, x, rows["variance_of_labels_lo"], rows["variance_of_labels_hi"], style.color)
        line(fig, x, rows["variance_of_labels"], style, name=name)
    return fig
