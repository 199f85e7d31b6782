"""The map of test images: bias² against variance, a point an image."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.report.figures import look
from lab.report.style import BIAS, GHOST, INK, MUTED, figure, rounded

MOST_POINTS = 1500


def example_map(table: pd.DataFrame, *, with_noise: bool) -> go.Figure | None:
    """Return bias² against variance of the test images: those called right, called wrong, and labels to check.

    Args:
        table: `lab.analysis.examples.per_example`; of more than 1,500 points the hardest half of that number is drawn
            and as many of the others, evenly by their risk.
        with_noise: Noise is known, so that bias² is bias² alone.
    """
    table = table.dropna(subset=["bias_sq", "variance"])
    if table.empty:
        return None
    shown = thinned(table)
    bias = look("bias_sq", with_noise=with_noise)
    ends = [min(float(shown["variance"].min()), 0.0), float(shown["variance"].max())]
    pad = 0.04 * (ends[1] - ends[0]) or 0.01
    x_axis = {"title": {"text": "variance of the image"}, "range": rounded([ends[0] - pad, ends[1] + pad])}
    fig = figure(x=x_axis, y={"title": {"text": f"{bias.label} of the image"}, "rangemode": "tozero"})
    top = float(table["risk"].quantile(0.999))
    for k, risk in enumerate(np.linspace(0, top, 5)[1:]):
        fig.add_scatter(
            x=[0, round(risk, 3)], y=[round(risk, 3), 0], mode="lines",
            line={"color": GHOST, "width": 1, "dash": "dot"}, name="equal risk", showlegend=k == 0,
            hovertemplate=f"risk {risk:.2g}<extra></extra>",
        )  # fmt: skip
    right = shown["vote"] == shown["label"]
    groups = (
        ("most replicas are right", right & ~shown["suspected"], MUTED, "circle", 6),
        ("most replicas are wrong", ~right & ~shown["suspected"], BIAS, "square", 7),
        ("label to check", shown["suspected"], INK, "star", 12),
    )
    for name, rows, color, symbol, size in groups:
        part = shown[rows]
        if len(part):
            fig.add_scatter(
                x=rounded(part["variance"], 3), y=rounded(part["bias_sq"], 3), name=name, mode="markers",
                marker={"color": color, "symbol": symbol, "size": size, "opacity": 0.7},
                text=[f"image {i}: {a}, called {b}" for i, a, b in
                      zip(part["index"], part["name"], part["vote_name"], strict=True)],
                hovertemplate="%{text}<br>%{y:.2f} + %{x:.2f}<extra></extra>",
            )  # fmt: skip
    return fig


def thinned(table: pd.DataFrame, most: int = MOST_POINTS) -> pd.DataFrame:
    """Return the points to draw: all, or the hardest half of `most` and as many others, evenly by rank of risk."""
    if len(table) <= most:
        return table
    ranked = table.sort_values(["risk", "index"], ascending=[False, True], kind="stable")
    rest = ranked.iloc[most // 2 :]
    kept = np.unique(np.linspace(0, len(rest) - 1, most - most // 2).astype(int))
    return pd.concat([ranked.iloc[: most // 2], rest.iloc[kept]])
