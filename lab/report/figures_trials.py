"""Figures of many trials at once: what drives the parts of the risk, what they trade, how training went."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.report.figures import knows_noise, look
from lab.report.style import (
    BIAS,
    GHOST,
    MUTED,
    PAPER,
    RANKED,
    VARIANCE,
    band,
    figure,
    line,
    log_axis,
    rounded,
    whiskers,
)


def importance_bars(table: pd.DataFrame, *, with_noise: bool) -> go.Figure | None:
    """Return each knob's importance for bias² and for variance side by side, with intervals, and what none explains.

    Args:
        table: `lab.analysis.attribution.importance`; knobs of a target without a ranking are left out.
        with_noise: Noise is known, so that bias² is bias² alone.
    """
    table = table[table["status"] != "no ranking"]
    if table.empty:
        return None
    knobs = table.groupby("knob", sort=True)["importance"].max().sort_values(kind="stable").index.tolist()
    order = ["(unexplained)", *knobs]
    fig = figure(
        x={"title": {"text": "importance (loss of R²)"}, "showgrid": True,
           "rangemode": "tozero"},
        y={"title": {"text": ""}, "tickvals": list(range(len(order))), "ticktext": order, "showgrid": False,
           "range": [-0.6, len(order) - 0.4]},
    )  # fmt: skip
    for target, shift in (("bias_sq", 0.16), ("variance", -0.16)):
        rows = table[table["target"] == target]
        if rows.empty:
            continue
        style = look(target, with_noise=with_noise)
        fig.add_scatter(
            x=rounded(rows["importance"]), y=[order.index(k) + shift for k in rows["knob"]], name=style.label,
            mode="markers", marker={"color": style.color, "symbol": style.symbol, "size": 10},
            error_x=whiskers(rows, "importance", style.color), text=rows["knob"].tolist(),
            hovertemplate=f"%{{text}} → {style.label}: %{{x:.2f}}<extra></extra>",
        )  # fmt: skip
        left = float(rows["unexplained"].iloc[0])
        fig.add_scatter(
            x=[round(left, 4)], y=[shift], mode="markers", name=f"{style.label}: unexplained", showlegend=False,
            marker={"color": style.color, "symbol": f"{style.symbol}-open", "size": 10, "line": {"width": 2}},
            hovertemplate=f"unexplained of {style.label}: %{{x:.2f}}<extra></extra>",
        )  # fmt: skip
    fig.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, yref="paper", line={"color": MUTED, "width": 1})
    return fig


def direction_curve(
    table: pd.DataFrame, trials: pd.DataFrame, knob: str, target: str, *, log: bool
) -> go.Figure | None:
    """Return how a part of the risk goes with one knob: partial dependence with its band, raw trials behind.

    Args:
        table: `lab.analysis.attribution.direction` of this knob and target.
        trials: The trials behind it, drawn in grey.
        knob: The x axis.
        target: "bias_sq" or "variance".
        log: The knob was searched on a log scale.
    """
    raw = trials.dropna(subset=[knob, target])
    raw = raw[raw[target] > 0]
    if table.empty or raw.empty:
        return None
    numeric = pd.api.types.is_numeric_dtype(table["value"]) and not pd.api.types.is_bool_dtype(table["value"])
    style = look(target, with_noise=knows_noise(trials))
    x_axis: dict[str, object] = {"title": {"text": knob}}
    if numeric and log:
        x_axis = log_axis(raw[knob], f"{knob} (log scale)")
    y_values = [*raw[target], *table["mean"]]
    fig = figure(x=x_axis, y=log_axis(y_values, f"{style.label} (log scale)", pad=0.1))
    x = table["value"].tolist() if numeric else [str(v) for v in table["value"]]
    fig.add_scatter(
        x=raw[knob].tolist() if numeric else [str(v) for v in raw[knob]], y=rounded(raw[target]), name="trials",
        mode="markers", marker={"color": GHOST, "size": 6}, text=raw["number"].tolist(), cliponaxis=False,
        hovertemplate="trial %{text}: %{y:.3g}<extra></extra>",
    )  # fmt: skip
    if numeric:
        band(fig, x, table["lo"].clip(lower=0.1 * float(raw[target].min())), table["hi"], style.color)
        line(fig, x, table["mean"], style, name=f"{style.label}, other knobs averaged out")
    else:
        fig.add_scatter(
            x=x, y=rounded(table["mean"]), name=f"{style.label}, other knobs averaged out", mode="markers",
            marker={"color": style.color, "symbol": style.symbol, "size": 11},
            error_y=whiskers(table, "mean", style.color)
            if {"mean_lo", "mean_hi"} <= set(table.columns)
            else whiskers(table.rename(columns={"lo": "mean_lo", "hi": "mean_hi"}), "mean", style.color),
            hovertemplate="%{x}: %{y:.3g}<extra></extra>",
        )  # fmt: skip
    return fig


def trade_off(trials: pd.DataFrame, best: str | None = None) -> go.Figure | None:
    """Return bias² against variance of all trials with lines of equal risk and the Pareto front.

    Args:
        trials: Rows of `History.trials`.
        best: Key of the trial to mark.
    """
    shown = trials.dropna(subset=["bias_sq", "variance"])
    shown = shown[(shown["bias_sq"] > 0) & (shown["variance"] > 0)]
    if len(shown) < 2:
        return None
    x_axis = log_axis(shown["variance"], "variance (log scale)", pad=0.08)
    bias = look("bias_sq", with_noise=knows_noise(trials))
    fig = figure(x=x_axis, y=log_axis(shown["bias_sq"], f"{bias.label} (log scale)", pad=0.08))
    total = shown["bias_sq"] + shown["variance"]
    low, high = np.log10(total.min()), np.log10(total.max())
    for k, risk in enumerate(10 ** np.linspace(low + 0.05 * (high - low), high, 4)):
        x = np.geomspace(10 ** x_axis["range"][0], 0.999 * risk, 30)
        y = risk - x
        keep = y > 0.5 * shown["bias_sq"].min()
        fig.add_scatter(
            x=rounded(x[keep]), y=rounded(y[keep]), mode="lines", line={"color": GHOST, "width": 1, "dash": "dot"},
            name="equal risk", showlegend=k == 0, hovertemplate=f"risk {risk:.3g}<extra></extra>",
        )  # fmt: skip
    fig.add_scatter(
        x=rounded(shown["variance"]), y=rounded(shown["bias_sq"]), name="trials", mode="markers",
        marker={"color": MUTED, "size": 7, "opacity": 0.75}, text=[f"trial {n:g}" for n in shown["number"]],
        hovertemplate=f"%{{text}}<br>{bias.label} %{{y:.3g}}, variance %{{x:.3g}}<extra></extra>",
    )  # fmt: skip
    front = pareto(shown)
    fig.add_scatter(
        x=rounded(front["variance"]), y=rounded(front["bias_sq"]), name="nothing beats these in both (Pareto front)",
        mode="lines+markers", line={"color": VARIANCE, "width": 1.8, "shape": "hv"},
        marker={"color": VARIANCE, "symbol": "square", "size": 9}, hoverinfo="skip",
    )  # fmt: skip
    chosen = shown[shown["key"] == best]
    if len(chosen):
        fig.add_scatter(
            x=rounded(chosen["variance"]), y=rounded(chosen["bias_sq"]), name="lowest validation risk", mode="markers",
            marker={"color": BIAS, "symbol": "star", "size": 16, "line": {"color": PAPER, "width": 1}},
            hoverinfo="skip",
        )  # fmt: skip
    return fig


def pareto(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that no other beats in both bias² and variance, by ascending variance."""
    ordered = trials.sort_values(["variance", "bias_sq"], kind="stable")
    best_before = ordered["bias_sq"].cummin().shift(fill_value=np.inf)
    return ordered[ordered["bias_sq"] < best_before]


def training_curves(table: pd.DataFrame, best: Mapping[str, str], column: str, title: str) -> go.Figure | None:
    """Return one metric of all trials against the epoch: all in grey, the best few in colour.

    Args:
        table: `lab.analysis.training_curve.training_curves`.
        best: Key → name of the trials in colour, best first, at most four.
        column: "val_risk", "train_risk", …
        title: Of the y axis.
    """
    table = table.dropna(subset=[column])
    if table.empty:
        return None
    values = table[column]
    fig = figure(x={"title": {"text": "epoch"}}, y=log_axis(values[values > 0], f"{title} (log scale)"))
    x: list[float | None] = []
    y: list[float | None] = []
    others = table[~table["key"].isin(list(best))].sort_values("key", kind="stable")
    # a gap ends each line; the table is rounded as a whole, since a thousand trials one by one take seconds
    ends = np.flatnonzero(others["key"].ne(others["key"].shift(-1))) + 1
    epochs, risks = others["epoch"].tolist(), rounded(others[column].where(others[column] > 0))
    for start, end in pairwise([0, *ends.tolist()]):
        x += [*epochs[start:end], None]
        y += [*risks[start:end], None]
    if x:
        fig.add_scatter(
            x=x, y=y, mode="lines", line={"color": GHOST, "width": 1}, name="all other trials", hoverinfo="skip"
        )
    for key, style in zip(best, RANKED, strict=False):
        rows = table[table["key"] == key].sort_values("epoch")
        if rows.empty:
            continue
        epochs = rows["epoch"].tolist()
        if f"{column}_sd" in rows:
            spread = 2 * rows[f"{column}_sd"] / np.sqrt(rows["n_replicas"].clip(lower=1))
            low = (rows[column] - spread).where(rows[column] > spread, 0.5 * rows[column])
            band(fig, epochs, low, rows[column] + spread, style.color)
        line(fig, epochs, rows[column].where(rows[column] > 0), style, name=best[key])
    return fig


def best_epochs(table: pd.DataFrame) -> go.Figure | None:
    """Return at which share of the epochs validation risk was lowest, a bar counts trials.

    Args:
        table: `lab.analysis.training_curve.convergence`.
    """
    share = table["best_fraction"].dropna()
    if len(share) < 2:
        return None
    counts, _ = np.histogram(share, bins=10, range=(0, 1))
    fig = figure(
        x={"title": {"text": "best epoch, as a share of all epochs"}, "tickformat": ".0%"},
        y={
            "title": {"text": "trials"},
            "rangemode": "tozero",
            "tickformat": "d",
            "dtick": max(1, int(counts.max()) // 4),
        },
    )
    fig.add_bar(
        x=[0.05 + 0.1 * k for k in range(10)], y=counts.tolist(), width=0.09, marker={"color": VARIANCE},
        name="trials", showlegend=False, hovertemplate="%{y} trials<extra></extra>",
    )  # fmt: skip
    return fig
