"""Figures of the risk and its parts: each a function of one table (see lab.analysis) that returns a plotly figure.

A figure with nothing to show is None; the page then says why. Names of bias² carry "+ noise" where no posterior is
known, because then it contains the noise. Estimates may be negative (see lab.analysis.decomposition): lines show them,
only stacked areas are cut off at zero. See also figures_trials (many trials) and figures_classes (one configuration).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.report.style import INK, MUTED, NOISE, SERIES, Series, band, figure, line, log_axis, rgba, rounded, tick_text

RISK_AXIS = "Brier risk (0 = perfect, 2 = worst)"
ROOM = 0.22  # of the width of a figure, for a label such as "16.7k" on a telephone


def look(part: str, *, with_noise: bool) -> Series:
    """Return the style of a part; `with_noise`: noise is known, so that bias² is bias² alone."""
    series = SERIES[part]
    return series if part != "bias_sq" or with_noise else series._replace(label="bias² + noise")


def knows_noise(table: pd.DataFrame) -> bool:
    """Return whether the table tells noise apart from bias²."""
    return "noise" in table and bool(table["noise"].notna().any())


def _has(table: pd.DataFrame, column: str) -> bool:
    return column in table and bool(table[column].notna().any())


def _x_capacity(curve: pd.DataFrame) -> dict[str, object]:
    name = str(curve["capacity_name"].iloc[0]) if len(curve) else "capacity"
    title = "number of parameters" if name == "n_parameters" else name
    if (curve["capacity"] <= 0).any():  # depth 0 is a linear model
        return {"title": {"text": title}}
    return log_axis(curve["capacity"], f"{title} (log scale)")


def capacity_stack(curve: pd.DataFrame, *, threshold: float | None = None) -> go.Figure | None:
    """Return noise, bias² and variance stacked against capacity, and the directly measured risk.

    Args:
        curve: `lab.analysis.capacity_curve.capacity_curve`.
        threshold: Capacity of the interpolation threshold, drawn as a vertical line.
    """
    curve = curve.dropna(subset=["capacity", "bias_sq", "variance"])
    if len(curve) < 2:
        return None
    known = knows_noise(curve)
    top = float(np.nanmax(np.maximum(curve["risk_hi"].fillna(0), curve["risk"])))
    fig = figure(x=_x_capacity(curve), y={"title": {"text": RISK_AXIS}, "range": [0, 1.06 * top]}, hover="x unified")
    x = curve["capacity"].tolist()
    patterns = {"noise": ".", "bias_sq": "", "variance": "/"}
    for part in ("noise", "bias_sq", "variance"):
        if not _has(curve, part):
            continue
        style = look(part, with_noise=known)
        exact = [f"{v:.3g}" for v in curve[part]]
        fig.add_scatter(
            x=x, y=rounded(curve[part].clip(lower=0)), name=style.label, stackgroup="risk", mode="lines",
            line={"color": style.color, "width": 1.2}, fillcolor=rgba(style.color, 0.5),
            fillpattern={
                "shape": patterns[part], "fgcolor": style.color, "bgcolor": rgba(style.color, 0.28), "size": 7,
                "fillmode": "replace", "solidity": 0.25,
            } if patterns[part] else None,
            text=exact, hovertemplate=f"{style.label} %{{text}}<extra></extra>",
        )  # fmt: skip
    risk = SERIES["risk"]
    fig.add_scatter(
        x=x, y=rounded(curve["risk"]), name="risk, measured directly", mode="lines+markers",
        line={"color": INK, "width": 2.4}, marker={"color": INK, "symbol": risk.symbol, "size": 9},
        error_y={
            "type": "data", "symmetric": False, "array": rounded(curve["risk_hi"] - curve["risk"]),
            "arrayminus": rounded(curve["risk"] - curve["risk_lo"]), "color": INK, "thickness": 1.2, "width": 3,
        },
        text=[_size(row, curve) for _, row in curve.iterrows()], hovertemplate="risk %{y:.3g} (%{text})<extra></extra>",
    )  # fmt: skip
    best = curve.dropna(subset=["risk"]).sort_values("risk", kind="stable").head(1)
    if len(best):
        fig.add_scatter(
            x=best["capacity"].tolist(), y=rounded(best["risk"]), name="lowest risk", mode="markers", hoverinfo="skip",
            marker={"color": INK, "symbol": "star", "size": 17},
        )  # fmt: skip
    _vertical(fig, threshold, "interpolation threshold")
    _add_parameters_axis(fig, curve)
    return fig


def _add_parameters_axis(fig: go.Figure, curve: pd.DataFrame) -> None:
    """Write numbers of parameters above the figure, at some of the levels, where capacity is a dial such as width."""
    rows = curve.dropna(subset=["n_parameters"])
    if curve["capacity_name"].iloc[0] == "n_parameters" or len(rows) < 2:
        return
    place = np.log(rows["capacity"]) if fig.layout.xaxis.type == "log" else rows["capacity"]
    place = ((place - place.min()) / (place.max() - place.min())).tolist()
    shown = [0]
    for k in range(1, len(rows)):
        if place[k] - place[shown[-1]] >= ROOM and (k == len(rows) - 1 or 1 - place[k] >= ROOM):
            shown.append(k)
    ticks = {
        "tickmode": "array", "tickvals": rows["capacity"].iloc[shown].tolist(),
        "ticktext": [tick_text(n) for n in rows["n_parameters"].iloc[shown]],
    }  # fmt: skip
    axis = fig.layout.xaxis.to_plotly_json() | ticks | {"overlaying": "x", "side": "top", "matches": "x"}
    fig.update_layout(xaxis2=axis | {"title": axis["title"] | {"text": "parameters"}})
    fig.add_scatter(
        x=rows["capacity"].tolist(), y=[0] * len(rows), xaxis="x2", mode="markers", opacity=0, showlegend=False,
        hoverinfo="skip",
    )  # fmt: skip


def _size(row: pd.Series, curve: pd.DataFrame) -> str:
    words = [
        f"{name} {row[name]:g}" for name in ("width", "depth") if pd.notna(row[name]) and curve[name].nunique() > 1
    ]
    return ", ".join([*words, f"{row['n_parameters']:,.0f} parameters"] if pd.notna(row["n_parameters"]) else words)


def _vertical(fig: go.Figure, at: float | None, label: str) -> None:
    """Mark a place on the x axis; not by plotly's add_vline, which puts its label at 10^x on a log axis."""
    if at is None or not at > 0:
        return
    fig.add_shape(
        type="line",
        x0=at,
        x1=at,
        y0=0,
        y1=1,
        xref="x",
        yref="paper",
        line={"color": MUTED, "width": 1.5, "dash": "dot"},
    )
    log = fig.layout.xaxis.type == "log"
    left = not log or np.log10(at) < np.mean(fig.layout.xaxis.range)
    fig.add_annotation(
        x=float(np.log10(at)) if log else at, y=1, yref="paper", text=label, showarrow=False, yanchor="top",
        xanchor="left" if left else "right", xshift=5 if left else -5, font={"color": MUTED, "size": 12},
    )  # fmt: skip


def capacity_parts(curve: pd.DataFrame, parts: Sequence[str] = ("bias_sq", "variance")) -> go.Figure | None:
    """Return parts of the risk against capacity with their intervals, both axes logarithmic.

    Points that are zero or negative cannot stand on a log axis: they are in the numbers below the figure.
    """
    return _parts(curve.dropna(subset=["capacity"]), "capacity", _x_capacity(curve), parts)


def learning_parts(curve: pd.DataFrame, ahead: Mapping[str, pd.DataFrame] | None = None) -> go.Figure | None:
    """Return bias² and variance against the number of training examples, both axes logarithmic.

    Args:
        curve: `lab.analysis.learning_curve.learning_curve`.
        ahead: Part → table of `lab.analysis.learning_curve.extrapolate`, drawn dotted beyond the data.
    """
    last = curve["n_train"].max()  # where the dotted lines begin, so that no gap is left
    ahead = {part: table[table["n_train"] >= last] for part, table in (ahead or {}).items()}
    sizes = [*curve["n_train"], *(n for table in ahead.values() for n in table["n_train"])]
    axis = log_axis(sizes, "training examples (log scale)")
    fig = _parts(curve, "n_train", axis, ("bias_sq", "variance"), ahead=[v for t in ahead.values() for v in t["value"]])
    for part, table in ahead.items():
        if fig is None or table.empty:
            continue
        style = look(part, with_noise=knows_noise(curve))
        band(fig, table["n_train"].tolist(), table["lo"].clip(lower=1e-12), table["hi"], style.color)
        dotted = style._replace(dash="dot", label=f"{style.label}, extrapolated")
        line(fig, table["n_train"].tolist(), table["value"], dotted, markers=False)
    return fig


def epochs_parts(table: pd.DataFrame) -> go.Figure | None:
    """Return bias², variance and risk of one configuration against the epoch (from `History.epochs`)."""
    return _parts(table, "epoch", {"title": {"text": "epoch"}}, ("risk", "bias_sq", "variance"), log=False)


def _parts(
    table: pd.DataFrame,
    at: str,
    x_axis: dict[str, object],
    parts: Sequence[str],
    *,
    log: bool = True,
    ahead: Sequence[float] = (),
) -> go.Figure | None:
    table = table.sort_values(at)
    parts = [p for p in parts if _has(table, p)]
    if not parts or len(table) < 2:
        return None
    values = [v for p in parts for v in table[p]]
    if log and not any(v > 0 for v in values):
        return None
    y_axis = (
        log_axis([*values, *ahead], "part of the Brier risk (log scale)", pad=0.12)
        if log
        else {"title": {"text": RISK_AXIS}}
    )
    fig = figure(x=x_axis, y=y_axis, hover="x unified")
    styles = [look(p, with_noise=knows_noise(table)) for p in parts]
    floor = min((v for v in values if v > 0), default=1.0) * 0.1 if log else -np.inf
    for part, style in zip(parts, styles, strict=True):
        if f"{part}_lo" in table:
            shown = table[part] > 0 if log else table[part].notna()
            rows = table[shown]
            band(fig, rows[at].tolist(), rows[f"{part}_lo"].clip(lower=floor), rows[f"{part}_hi"], style.color)
    for part, style in zip(parts, styles, strict=True):
        shown = table[part].where(table[part] > 0) if log else table[part]
        line(fig, table[at].tolist(), shown, style)
    return fig


def learning_curve(curve: pd.DataFrame, extrapolation: pd.DataFrame | None = None) -> go.Figure | None:
    """Return training and test risk against the number of training examples, both axes logarithmic.

    Args:
        curve: `lab.analysis.learning_curve.learning_curve`.
        extrapolation: Table of `lab.analysis.learning_curve.extrapolate`, drawn dotted beyond the data.
    """
    curve = curve.dropna(subset=["risk"])
    if len(curve) < 2:
        return None
    sizes, values = curve["n_train"].tolist(), [*curve["risk"], *curve["train_risk"]]
    ahead = None if extrapolation is None else extrapolation[extrapolation["n_train"] >= max(sizes)]
    if ahead is not None and len(ahead):
        values += [*ahead["lo"], *ahead["hi"]]
    # a training risk of 1e-6, or a band that reaches 0, would press all else against the top
    floor = 0.1 * min([*curve["risk"], *([] if ahead is None else ahead["value"])])
    span = [*sizes, *([] if ahead is None else ahead["n_train"].tolist())]
    fig = figure(
        x=log_axis(span, "training examples (log scale)"), hover="x unified",
        y=log_axis([v for v in values if v > floor], f"{RISK_AXIS}, log scale", pad=0.1),
    )  # fmt: skip
    for column, series in (("risk", "test"), ("train_risk", "train")):
        style = SERIES[series]
        if not (curve[column] > floor).any():
            continue  # a training risk that is nothing beside the test risk: it is in the numbers
        if _has(curve, f"{column}_lo"):
            band(fig, sizes, curve[f"{column}_lo"].clip(lower=floor), curve[f"{column}_hi"], style.color)
        line(fig, sizes, curve[column].where(curve[column] > floor), style, name=f"{style.label} risk")
    if ahead is not None and len(ahead) > 1:
        x = ahead["n_train"].tolist()
        band(fig, x, ahead["lo"].clip(lower=floor), ahead["hi"], NOISE)
        style = Series("test risk, extrapolated", INK, "x", "dot")
        line(fig, x, ahead["value"], style, markers=False)
        same = Series("no change", MUTED, "x", "longdash")
        line(fig, [x[0], x[-1]], [float(curve["risk"].iloc[-1])] * 2, same, markers=False, width=1.2)
    return fig
