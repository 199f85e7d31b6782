"""The look of all figures, in one place: colours, markers, axes, ticks. Nothing here knows a table.

Colours are the Okabe–Ito ones, told apart by readers with any colour vision; every series has its own marker and dash
as well. Figures are written in the light colours; the page exchanges each for its `DARK` partner when the reader's
system is dark, so both themes share one figure.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

INK, MUTED, GRID, PAPER = "#1B1F24", "#59626D", "#E4E7EB", "#FFFFFF"
GHOST = "#C3C9D1"  # the many in grey behind the few in colour

BIAS, VARIANCE, NOISE = "#D55E00", "#0072B2", "#8A8A8A"

# light → dark. Contrast of every series with the dark page (#14171B) is at least 5:1, with the white one 3:1.
DARK = {
    INK: "#E9ECEF",
    MUTED: "#A7B0BB",
    GRID: "#2C323A",
    PAPER: "#14171B",
    GHOST: "#4A525C",
    BIAS: "#FF8B3D",
    VARIANCE: "#4FB0EA",
    NOISE: "#A3A3A3",
    "#009E73": "#2CC49A",
    "#B65C8E": "#E39BC3",
    "#8A6D00": "#E0B92E",
    "#EEF1F4": "#23282F",  # the diagonal of the confusion matrix
    "#FCE9DC": "#33231A",  # its scale: from few to many of a class taken for another
    "#F3A66B": "#8C4A1C",
    "#B84A00": "#FF8B3D",
}


class Series(NamedTuple):
    """How one quantity looks in every figure."""

    label: str
    color: str
    symbol: str
    dash: str


SERIES: dict[str, Series] = {
    "risk": Series("risk", INK, "x", "solid"),
    "bias_sq": Series("bias²", BIAS, "circle", "solid"),
    "variance": Series("variance", VARIANCE, "square", "dash"),
    "noise": Series("noise", NOISE, "diamond", "dot"),
    "variance_resample": Series("variance from the training set", VARIANCE, "square", "solid"),
    "variance_init": Series("variance from the seed", "#009E73", "triangle-up", "dash"),
    "variance_interaction": Series("variance from both together", "#B65C8E", "star", "dot"),
    "train": Series("training", "#8A6D00", "triangle-down", "dash"),
    "val": Series("validation", "#009E73", "triangle-up", "solid"),
    "test": Series("test", INK, "x", "solid"),
    "epoch_seconds": Series("seconds an epoch", INK, "diamond", "solid"),
}
# for the few in colour: trials in order of their rank
RANKED = (
    Series("1st", BIAS, "circle", "solid"),
    Series("2nd", VARIANCE, "square", "dash"),
    Series("3rd", "#009E73", "triangle-up", "dot"),
    Series("4th", "#B65C8E", "star", "dashdot"),
)


def rgba(color: str, alpha: float) -> str:
    """Return a hex colour made transparent. The prefix "rgba(r,g,b," is what the page exchanges in dark mode."""
    return f"rgba({','.join(str(int(color[k : k + 2], 16)) for k in (1, 3, 5))},{alpha:g})"


def exchange() -> dict[str, str]:
    """Return what the page replaces in a figure to make it dark: hex colours, and prefixes of transparent ones."""
    transparent = {rgba(light, 0).rsplit(",", 1)[0]: rgba(dark, 0).rsplit(",", 1)[0] for light, dark in DARK.items()}
    return DARK | transparent


def css_colors() -> str:
    """Return CSS classes for the colours of legends, light and dark: class "cD55E00" is the colour #D55E00."""
    light = "".join(f".c{a[1:]}{{color:{a}}}" for a in DARK)
    dark = "".join(f".c{a[1:]}{{color:{b}}}" for a, b in DARK.items())
    return f"{light}\n@media screen and (prefers-color-scheme: dark){{{dark}}}\n"


def rounded(values: Iterable[float | None], digits: int = 5) -> list[float | None]:
    """Return numbers with 5 significant digits (a page is read on a screen), and None where there is none.

    Exact numbers are in the CSV files. Rounded ones make a page of 100 trials a third smaller.
    """
    out: list[float | None] = []
    for value in values:
        missing = value is None or not math.isfinite(value)
        out.append(None if missing else float(f"{value:.{digits}g}"))
    return out


def log_ticks(low: float, high: float, most: int = 6) -> tuple[list[float], list[str]]:
    """Return readable ticks of a log axis (many steps a decade, 1-2-5, 1-3, powers of ten), at most `most` of them.

    plotly's own label the steps in between with a lone digit ("2", "5"), which readers take for 2 and 5.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks: list[float] = []
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [s * 10.0**e for e in range(first, last + 1) for s in steps if low <= s * 10.0**e <= high]
        if len(ticks) <= most:
            break
    else:
        ticks = ticks[:: math.ceil(len(ticks) / most)]
    if len(ticks) < 2:
        ticks = sorted({float(f"{low:.2g}"), *ticks, float(f"{high:.2g}")})
    return ticks, [tick_text(t) for t in ticks]


def tick_text(value: float) -> str:
    """Return a short label: 0.05, 20, 5k, 1.5M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def log_axis(values: Iterable[float | None], title: str, *, pad: float = 0.06) -> dict[str, Any]:
    """Return a log axis that spans the positive ones of `values`, with readable ticks."""
    positive = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    if not positive:
        return {"title": {"text": title}}
    low, high = math.log10(min(positive)), math.log10(max(positive))
    margin = max(pad * (high - low), 0.04)
    low, high = low - margin, high + margin
    ticks, texts = log_ticks(10**low, 10**high)
    return {
        "title": {"text": title}, "type": "log", "range": rounded([low, high]), "tickvals": rounded(ticks),
        "ticktext": texts,
    }  # fmt: skip


def figure(
    *, x: dict[str, Any] | None = None, y: dict[str, Any] | None = None, hover: str = "closest", **layout: Any
) -> go.Figure:
    """Return an empty figure in the style of the report (no template: plotly's own weighs 6.5 KB a figure)."""
    axis: dict[str, Any] = {
        "gridcolor": GRID, "zeroline": False, "linecolor": MUTED, "tickcolor": MUTED, "ticks": "outside", "ticklen": 4,
        "automargin": True, "title": {"standoff": 8, "font": {"size": 12.5, "color": MUTED}}, "fixedrange": True,
    }  # fmt: skip
    base: dict[str, Any] = {
        "template": {"layout": {}},
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "hovermode": hover,
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": GRID, "font": {"color": INK, "size": 13}},
        "legend": {"orientation": "h", "y": 1.12, "x": 0},
        "dragmode": False,
    }
    y_axis = _merge(_merge(axis, {"tickcolor": GRID, "showline": False, "ticks": ""}), y or {})
    x_axis = _merge(_merge(axis, {"showgrid": False, "showline": True}), x or {})
    return go.Figure(layout=_merge(base, {"xaxis": x_axis, "yaxis": y_axis, **layout}))


def _merge(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        merged[key] = _merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return merged


def line(
    fig: go.Figure, x: Sequence[Any], y: Iterable[float | None], look: Series, *, name: str | None = None,
    text: Sequence[str] | None = None, hover: str = "%{y:.3g}", markers: bool = True, width: float = 2.2,
) -> None:  # fmt: skip
    """Add a line with the marker and dash of its series."""
    fig.add_scatter(
        x=list(x), y=rounded(y), name=name or look.label, mode="lines+markers" if markers else "lines",
        line={"color": look.color, "width": width, "dash": look.dash},
        marker={"color": look.color, "symbol": look.symbol, "size": 8}, text=text,
        hovertemplate=f"{name or look.label} {hover}<extra></extra>",
    )  # fmt: skip


def band(
    fig: go.Figure, x: Sequence[Any], low: Iterable[float | None], high: Iterable[float | None], color: str
) -> None:
    """Add the band between two curves; points at which either end is missing are left out."""
    points = [
        (a, b, c)
        for a, b, c in zip(x, rounded(low), rounded(high), strict=True)
        if b is not None and c is not None
    ]  # fmt: skip
    if len(points) < 2:
        return
    xs = [p[0] for p in points]
    fig.add_scatter(
        x=xs + xs[::-1], y=[p[2] for p in points] + [p[1] for p in reversed(points)], fill="toself", mode="lines",
        line={"width": 0}, fillcolor=rgba(color, 0.16), hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def whiskers(table: pd.DataFrame, column: str, color: str) -> dict[str, object]:
    """Return the error bars from `column`_lo to `column`_hi."""
    return {
        "type": "data", "symmetric": False, "array": rounded(table[f"{column}_hi"] - table[column]),
        "arrayminus": rounded(table[column] - table[f"{column}_lo"]), "color": color, "thickness": 1.6, "width": 3,
    }  # fmt: skip
