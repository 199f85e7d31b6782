"""The forest of differences between studies."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from lab.report.figures import look
from lab.report.style import MUTED, figure, rounded, whiskers

PARTS = ("risk", "bias_sq", "variance")


def difference_forest(tables: Sequence[tuple[str, pd.DataFrame]], *, with_noise: bool) -> go.Figure:
    """Return the differences of risk, bias² and variance with their intervals, a group of rows a study.

    Args:
        tables: Name of the study, and columns term, difference, lo, hi.
        with_noise: Noise is known, so that bias² is bias² alone.
    """
    names = [name for name, _ in tables]
    fig = figure(
        x={"title": {"text": "difference of the Brier risk's parts"}, "showgrid": True},
        y={"title": {"text": ""}, "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False,
           "range": [len(names) - 0.4, -0.6]},
    )  # fmt: skip
    for part, shift in zip(PARTS, (-0.2, 0.0, 0.2), strict=True):
        style = look(part, with_noise=with_noise)
        found = pd.concat([table[table["term"] == part].assign(at=k) for k, (_, table) in enumerate(tables)])
        found = found.rename(columns={"lo": "difference_lo", "hi": "difference_hi"})
        fig.add_scatter(
            x=rounded(found["difference"]), y=[k + shift for k in found["at"]], name=style.label, mode="markers",
            marker={"color": style.color, "symbol": style.symbol, "size": 10},
            error_x=whiskers(found, "difference", style.color), text=[names[k] for k in found["at"]],
            hovertemplate=f"%{{text}}: {style.label} %{{x:.3g}}<extra></extra>",
        )  # fmt: skip
    fig.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, yref="paper", line={"color": MUTED, "width": 1})
    return fig
