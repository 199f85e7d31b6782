"""Figures of what some studies measure besides."""

import pandas as pd
import plotly.graph_objects as go

from lab.report.style import RANKED, band, figure, line, log_axis

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
