"""The live page of a running study: how far it is, the best so far, the last trials. Drawn without plotly, in SVG."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from lab.analysis.capacity_curve import planned_replicas, selection_risk
from lab.history import History
from lab.report.figures_interventions import readable
from lab.report.page import environment, policy, style, template_text
from lab.report.text import count, duration, knob_value, num, with_interval

WIDTH, HEIGHT = 640, 190
LEFT, BOTTOM = 64, 30  # room for the labels of the ends, also in the larger type of a telephone
LAST_TRIALS = 8


def live_page(status: Mapping[str, Any], history: History | None, *, report_note: str) -> str:
    """Return the page as text; its script asks for it again every few seconds and puts the new one in place.

    Args:
        status: How the study stands (`lab.search.status`).
        history: Its run history; None before the first trial is published.
        report_note: What to say of the partial report.
    """
    script = template_text("live.js")
    done = sum(status["counts"].values())
    planned = max(int(status.get("n_planned") or 0), done)  # the plan may have been cut since
    explore = history.phase("explore") if history is not None else pd.DataFrame()
    context = {
        "study": status["study"], "question": status.get("question") or status["study"],
        "state": _state(status, done, planned), "done": done, "planned": max(planned, 1),
        "facts": _facts(status, explore, done, planned), "best": _best(explore, history),
        "charts": [] if history is None else [c for c in (_search_chart(explore), _curves_chart(history)) if c],
        "rows": _last_trials(explore, history), "report_note": report_note, "has_report": history is not None,
    }  # fmt: skip
    sheet = style()
    return (
        environment()
        .get_template("live.html")
        .render(
            **context,
            style=Markup(sheet),
            script=Markup(script),
            csp=policy([script], [sheet]) + "; connect-src 'self'",
        )
    )


def _state(status: Mapping[str, Any], done: int, planned: int) -> str:
    if status.get("in_use"):
        return "running"
    return "finished" if done >= planned else f"not running; to go on: {status['again']}"


def _facts(status: Mapping[str, Any], explore: pd.DataFrame, done: int, planned: int) -> list[tuple[str, str]]:
    counts = ", ".join(f"{n} {outcome}" for outcome, n in status["counts"].items() if n) or "none yet"
    facts = [("Trials", f"{done} of {planned}: {counts}"), ("Under way", str(status.get("n_unfinished", 0)))]
    if len(explore) > 1:
        seconds = float(explore["finished"].max() - explore["started"].min())
        replicas = float(planned_replicas(explore).sum())
        facts.append(("Speed", f"{num(replicas / seconds)} replicas a second"))
        if status.get("in_use") and done < planned:
            facts.append(("Left", f"about {duration(seconds / len(explore) * (planned - done))} of search"))
    return facts


def _best(explore: pd.DataFrame, history: History | None) -> str:
    rows = explore.assign(s=selection_risk(explore)).dropna(subset=["s"]) if len(explore) else explore
    if rows.empty or history is None:
        return "No trial has been measured yet."
    row = rows.sort_values(["s", "number"], kind="stable").iloc[0]
    bias = _bias(history)
    return (
        f"Best so far: trial {row['number']:g}{_variant(row)}, validation risk {with_interval(row, 'val_risk')}; on "
        f"the test set {bias} {with_interval(row, 'bias_sq')}, variance {with_interval(row, 'variance')}."
    )


def _variant(row: pd.Series) -> str:
    return f" ({readable(row['variant'])})" if isinstance(row.get("variant"), str) else ""


def _bias(history: History) -> str:
    return "bias²" if history.data.get("has_posterior") else "bias² + noise"


def _search_chart(explore: pd.DataFrame) -> dict[str, Any] | None:
    rows = explore.assign(s=selection_risk(explore)).dropna(subset=["s"]).sort_values("number", kind="stable")
    if len(rows) < 2:
        return None
    x, y = rows["number"].tolist(), rows["s"].tolist()
    best = rows["s"].cummin().tolist()
    stairs = [point for k in range(len(x)) for point in ([(x[k], best[k - 1])] if k else []) + [(x[k], best[k])]]
    label = f"Validation risk of {count(len(rows), 'trial')}; the lowest so far is {num(best[-1])}."
    return {"title": "Validation risk by trial, and the lowest so far",
            "svg": _svg([("line best", stairs)], list(zip(x, y, strict=True)), label)}  # fmt: skip


def _curves_chart(history: History) -> dict[str, Any] | None:
    epochs = history.epochs
    if epochs.empty or "val_risk" not in epochs:
        return None
    last = history.trials.sort_values("finished")["key"].tail(LAST_TRIALS).tolist()
    lines = []
    for key in last:
        rows = epochs[epochs["key"] == key].dropna(subset=["val_risk"])
        if len(rows) > 1:
            lines.append(
                ("line newest" if key == last[-1] else "line", list(zip(rows["epoch"], rows["val_risk"], strict=True)))
            )
    if not lines:
        return None
    n = count(len(lines), "trial")
    return {"title": f"Validation risk by epoch, the last {n}, the newest in colour",
            "svg": _svg(lines, [], f"Validation risk against the epoch of the last {n}.")}  # fmt: skip


def _svg(lines: Iterable[tuple[str, list[tuple[float, float]]]], dots: list[tuple[float, float]], label: str) -> Markup:
    """Return lines and dots in one frame from 0 up, the ends of both axes labelled."""
    lines = list(lines)
    points = [p for _, line in lines for p in line] + dots
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    top = max(p[1] for p in points) * 1.05 or 1.0

    def place(point: tuple[float, float]) -> tuple[str, str]:
        x = LEFT + (WIDTH - LEFT - 10) * (point[0] - x0) / ((x1 - x0) or 1)
        return f"{x:.1f}", f"{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 10) * point[1] / top:.1f}"

    parts = [f'<path class="base" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - 10}"/>']
    for css, line in lines:
        parts.append(f'<polyline class="{css}" points="{" ".join(",".join(place(p)) for p in line)}"/>')
    parts += [f'<circle class="dot" cx="{place(p)[0]}" cy="{place(p)[1]}" r="3"/>' for p in dots]
    ends = (
        (num(top, 2), LEFT - 5, 18, "end"), ("0", LEFT - 5, HEIGHT - BOTTOM + 4, "end"),
        (f"{x0:g}", LEFT, HEIGHT - 6, "start"),
        (f"{x1:g}", WIDTH - 10, HEIGHT - 6, "end"),
    )  # fmt: skip
    for text, x, y, anchor in ends:
        parts.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>')
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return Markup(head + "".join(parts) + "</svg>")


def _last_trials(explore: pd.DataFrame, history: History | None) -> dict[str, Any] | None:
    if explore.empty or history is None:
        return None
    knobs = [k for k in history.spec.get("space") or ["variant"] if k in explore][:6]
    rows = explore.sort_values("finished", ascending=False, kind="stable").head(LAST_TRIALS)
    words = {"val_risk": "validation risk", "bias_sq": _bias(history), "variance": "variance"}
    names = [n for n in words if n in explore]
    return {
        "columns": ["trial", "outcome", *(words[n] for n in names), *knobs],
        "rows": [
            [
                f"{row['number']}",
                str(row["outcome"]),
                *(num(row[n]) for n in names),
                *(knob_value(row[k]) for k in knobs),
            ]
            for row in rows.to_dict("records")
        ],
    }
