"""The forest of a study of variants: what each one changes, with intervals."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from lab.report.figures import look
from lab.report.style import MUTED, figure, rounded, whiskers


def forest(table: pd.DataFrame, terms: Sequence[str], *, with_noise: bool) -> go.Figure | None:
    """Return the differences from the baseline in some terms, a line a variant, the largest gain in risk on top.

    Args:
        table: `lab.analysis.interventions.interventions`.
        terms: Which terms, each with its own marker.
        with_noise: Noise is known, so that bias² is bias² alone.
    """
    order = by_gain(table)[::-1]
    rows = table[table["term"].isin(terms)]
    if not order or rows.empty:
        return None
    fig = figure(
        x={"title": {"text": "change against the baseline"}, "showgrid": True},
        y={"title": {"text": ""}, "tickvals": list(range(len(order))), "ticktext": [readable(name) for name in order],
           "showgrid": False, "range": [-0.6, len(order) - 0.4]},
    )  # fmt: skip
    fig.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, yref="paper", line={"color": MUTED, "width": 1})
    for k, term in enumerate(terms):
        part, style = rows[rows["term"] == term], look(term, with_noise=with_noise)
        ends = part.rename(columns={"lo": "difference_lo", "hi": "difference_hi"})
        shift = 0.24 * ((len(terms) - 1) / 2 - k)
        fig.add_scatter(
            x=rounded(part["difference"]), y=[order.index(name) + shift for name in part["variant"]], name=style.label,
            mode="markers", marker={"color": style.color, "symbol": style.symbol, "size": 8},
            error_x=whiskers(ends, "difference", style.color), text=[readable(name) for name in part["variant"]],
            hovertemplate=f"%{{text}}: {style.label} %{{x:.3g}}<extra></extra>",
        )  # fmt: skip
    return fig


def by_gain(table: pd.DataFrame) -> list[str]:
    """Return the variants, those that lower the risk most first."""
    risk = table[table["term"] == "risk"].dropna(subset=["difference"])
    return [str(name) for name in risk.sort_values(["difference", "variant"], kind="stable")["variant"]]


def readable(name: str) -> str:
    """Return the name of a variant as words."""
    return name.replace("_", " ")
