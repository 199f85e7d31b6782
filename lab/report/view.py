"""What the templates get: sections made of panels, tables and notes. No template computes anything.

A `go.Figure` becomes a `FigureView`: its legend and y title are taken out of the drawing and set as text, which wraps
on a phone and is read aloud. Markup made here is escaped here.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup, escape

from lab.report.style import INK
from lab.report.text import MISSING, is_number, knob_value, num, with_interval

_SHAPES = {  # of the legend, in a 12 × 12 box around (0, 0)
    "circle": "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z",
    "square": "M-4-4H4V4H-4Z",
    "diamond": "M0-5L5 0L0 5L-5 0Z",
    "triangle-up": "M0-5L5 4H-5Z",
    "triangle-down": "M0 5L5-4H-5Z",
    "star": "M0-6L1.5-2L6-2L2.5 1L4 5.5L0 2.8L-4 5.5L-2.5 1L-6-2L-1.5-2Z",
    "x": "M-4-2.4L-2.4-4L0-1.6L2.4-4L4-2.4L1.6 0L4 2.4L2.4 4L0 1.6L-2.4 4L-4 2.4L-1.6 0Z",
}
_HATCHES = {  # of a filled area
    "/": '<path d="M3 12L10 2M9 12L16 2M15 12L22 2" stroke="currentColor" stroke-width="1.4"/>',
    ".": '<path d="M6 4h2v2H6zM12 4h2v2h-2zM18 4h2v2h-2zM9 8h2v2H9zM15 8h2v2h-2z"/>',
}
_DASHES = {"dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdash": "10 4"}


@dataclass(frozen=True)
class LegendItem:
    """One entry of a legend: a drawn swatch and its text."""

    swatch: Markup
    label: str


@dataclass(frozen=True)
class FigureView:
    """A figure of the page. `label` is what a screen reader says instead of the drawing."""

    id: str
    json: Markup
    label: str
    title: str
    axis: str
    legend: tuple[LegendItem, ...]
    caption: str
    height: str
    square: bool = False


class Link(NamedTuple):
    """A file beside the page, and its address from there."""

    file: str
    href: str


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and whether it is set and sorted as numbers."""

    label: str
    numeric: bool


@dataclass(frozen=True)
class Cell:
    """A cell: text to read, `raw` to sort by."""

    text: str
    numeric: bool
    raw: str | None = None
    title: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table; `best` is marked."""

    cells: tuple[Cell, ...]
    best: bool = False


@dataclass(frozen=True)
class TableView:
    """A table of the page; `link` leads to the CSV with everything."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    link: Link


@dataclass(frozen=True)
class Block:
    """A piece of a section: "panel" (figures side by side), "numbers" (a folded table), "note" and so on."""

    kind: str
    content: Any


@dataclass(frozen=True)
class Section:
    """A question, one sentence that answers it, and the evidence. `partial` names a part of the template, if any."""

    id: str
    question: str
    answer: str
    blocks: tuple[Block, ...] = ()
    partial: str = ""
    partial_first: bool = True
    short: str = ""  # for the table of contents


def script_json(text: str) -> Markup:
    """Return JSON that can stand in a script element: nothing in it can close the element or open a comment."""
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def figure_view(
    fig: go.Figure, id: str, *, label: str, caption: str = "", title: str = "", height: str = "h3", square: bool = False
) -> FigureView:
    """Return a figure as the page shows it."""
    content = json.loads(fig.to_json())
    layout = content["layout"]
    layout.pop("template", None)
    legend = layout.pop("legend", None)
    traces = [t for t in content["data"] if t.get("showlegend", True) and t.get("name")]
    layout["showlegend"] = False
    axis = layout.get("yaxis", {}).get("title", {}).pop("text", "")
    kinds = {t["type"] for t in traces}
    items = tuple(_legend_item(t) for t in traces) if legend is not None and kinds == {"scatter"} else ()
    for trace in content["data"]:
        trace["name"] = str(escape(trace.get("name", "")))  # plotly reads some HTML in names
    return FigureView(
        id=id,
        json=script_json(json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)),
        label=label,
        title=title,
        axis=axis if not axis or layout["yaxis"].get("type") == "category" else "↑ " + axis,
        legend=items if len(items) > 1 else (),
        caption=caption,
        height=height,
        square=square,
    )


def _legend_item(trace: dict[str, Any]) -> LegendItem:
    line, marker, mode = trace.get("line", {}), trace.get("marker", {}), trace.get("mode", "lines")
    color = escape((marker if mode == "markers" else line).get("color") or INK)
    parts = []
    if trace.get("stackgroup"):
        parts.append('<path d="M2 1H24V13H2Z" opacity="0.4"/>')
        parts.append(_HATCHES.get((trace.get("fillpattern") or {}).get("shape", ""), ""))
    elif "lines" in mode:
        dash = _DASHES.get(line.get("dash", ""), "")
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<path d="M0 7H26" stroke="currentColor" stroke-width="{line.get("width", 2):g}"{dashed}/>')
    if "markers" in mode:
        shape = _SHAPES.get(marker.get("symbol", "circle"), _SHAPES["circle"])
        parts.append(f'<path transform="translate(13 7)" d="{shape}"/>')
    # the colour is a class (see style.css_colors): it changes with the theme, and style attributes are not allowed
    svg = (
        f'<svg class="c{color[1:]}" width="26" height="14" viewBox="0 0 26 14" fill="currentColor" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )
    return LegendItem(Markup(svg), str(trace["name"]))


Show = tuple[str, str] | tuple[str, str, Callable[[Any], str]]


def table_view(
    frame: pd.DataFrame, show: Sequence[Show], *, title: str, caption: str, link: Link,
    most: int = 60, sortable: bool = False, best: str | None = None,
) -> TableView:  # fmt: skip
    """Return columns of a table as text, with their intervals where there are `_lo` and `_hi`.

    Args:
        frame: The table.
        show: (column, heading) or (column, heading, value → text); columns that the table lacks are left out.
        title: What the table is, for its summary line.
        caption: What a row is, n, and what the brackets mean.
        link: The CSV with all of it.
        most: Rows shown; the caption says so when there are more.
        sortable: Keep the exact values beside the text.
        best: Value of column "key" of the row to mark.
    """
    show = [s for s in show if s[0] in frame]
    numeric = [_is_numeric(frame[s[0]]) for s in show]
    columns = tuple(Column(s[1], n) for s, n in zip(show, numeric, strict=True))
    rows = []
    for row in frame.head(most).to_dict("records"):
        cells = []
        for s, n in zip(show, numeric, strict=True):
            value = row[s[0]]
            text = s[2](value) if len(s) == 3 else _text(row, s[0], n)
            raw = None
            if sortable and n:
                raw = f"{float(value):.6g}" if is_number(value) else ""
            cells.append(Cell(text, n, raw))
        rows.append(Row(tuple(cells), best is not None and row.get("key") == best))
    if len(frame) > most:
        caption = f"{caption} The first {most} of {len(frame)} rows."
    return TableView(title, caption, columns, tuple(rows), link)


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _text(row: dict[Hashable, Any], name: str, numeric: bool) -> str:
    value = row[name]
    if not numeric:
        return MISSING if value is None or value != value else knob_value(value)
    return with_interval(row, name) if f"{name}_lo" in row else num(value)


def panel(figures: Iterable[FigureView | None]) -> list[Block]:
    """Return figures side by side as a block; nothing if there are none."""
    shown = tuple(f for f in figures if f is not None)
    return [Block("panel", shown)] if shown else []
