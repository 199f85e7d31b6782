"""The tables of a report as files beside its page: CSV with full precision, and a JSON summary for programs."""

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.learning_curve import Extrapolation
from lab.history import History
from lab.report.tables import Tables


def files(history: History, tables: Tables) -> dict[str, str]:
    """Return the files beside the page: name → text. CSV tables with full precision, and a JSON summary."""
    texts = {f"{name}.csv": to_csv(frame) for name, frame in _frames(history, tables).items()}
    texts[f"{history.study}.json"] = to_json(history, tables)
    return texts


def file_names(history: History, tables: Tables) -> list[str]:
    """Return the names of `files` without making them."""
    return sorted([*(f"{name}.csv" for name in _frames(history, tables)), f"{history.study}.json"])


def _frames(history: History, tables: Tables) -> dict[str, pd.DataFrame]:
    frames: dict[str, pd.DataFrame] = {
        "trials": history.trials,
        "checks": tables.checks,
        "capacity_curve": tables.capacity,
        "importance": tables.importance,
        "epochs": history.epochs,
        "convergence": tables.convergence,
        "learning_curve": tables.learning,
        "per_class": tables.per_class,
        "summary": tables.summary,
        "areas": tables.areas,
        "roc": tables.roc,
        "reliability": tables.reliability,
        "examples": tables.examples,
        "signals": tables.signals,
        "ensembles": tables.ensembles,
    }
    if len(tables.noisy_labels):
        frames["noisy_labels"] = tables.noisy_labels
    if len(tables.interventions):
        frames["interventions"] = tables.interventions
    ahead = {"risk": tables.extrapolation, **tables.extrapolations}
    continued = [e.table.assign(column=name) for name, e in ahead.items() if isinstance(e, Extrapolation)]
    if continued:
        frames["extrapolation"] = pd.concat(continued, ignore_index=True)
    if tables.directions:
        frames["directions"] = pd.concat(
            [d.table.assign(knob=d.knob, target=d.target) for d in tables.directions], ignore_index=True
        )
    if tables.confusion is not None:
        names = [str(n) for n in history.data.get("class_names", range(len(tables.confusion.percent_CC)))]
        frames["confusion"] = pd.DataFrame(tables.confusion.percent_CC, columns=names).assign(true_class=names)
    return frames


def to_csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV: full precision, empty where there is no number, no cell that a spreadsheet would run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([defused(str(c)) for c in frame.columns])
    writer.writerows(zip(*(_cells(frame.iloc[:, place]) for place in range(frame.shape[1])), strict=True))
    return text.getvalue()


def _cells(column: pd.Series) -> list[str]:
    """Return a column as texts; of one kind of number all are written in one way, so none is asked for its kind."""
    if column.dtype == np.float64:
        return ["" if value != value else repr(value) for value in column.tolist()]
    if column.dtype == np.int64:
        return [str(value) for value in column.tolist()]
    return [_cell(value) for value in column.tolist()]


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, bool | np.bool_ | int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        return repr(float(value))
    # a lone carriage return would end the line for some readers, and is not quoted by every version of csv
    return defused(str(value)).replace("\r\n", "\n").replace("\r", "\n")


def defused(text: str) -> str:
    """Return a text that a spreadsheet shows and does not run as a formula (OWASP, "CSV injection"); numbers stay."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")):
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text
    return text


def to_json(history: History, tables: Tables) -> str:
    """Return verdict, numbers and specification as JSON for programs (strict: null where there is no number)."""
    diagnosis = tables.diagnosis
    content = {
        "format": 1,
        "study": history.study,
        "question": history.spec.get("question"),
        "verdict": diagnosis.verdict,
        "kind": diagnosis.kind,
        "share_of_bias": [diagnosis.share, diagnosis.share_lo, diagnosis.share_hi],
        "evidence": list(diagnosis.evidence),
        "actions": [
            {
                "text": a.text,
                "command": a.command,
                "gain": None if a.gain is None else [a.gain.value, a.gain.lo, a.gain.hi],
            }
            for a in diagnosis.actions
        ],
        "checks": tables.checks.to_dict("records"),
        "measured": None if tables.focus is None else tables.focus.to_dict(),
        "specification": history.spec,
        "data": history.data,
        "environment": history.environment,
    }
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
