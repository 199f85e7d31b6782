"""Run history → the tables behind the report, and those tables as CSV and JSON beside the page."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lab.analysis.attribution import directions, importance
from lab.analysis.capacity_curve import Peak, capacity_curve, find_peak, interpolation_threshold, selection_risk
from lab.analysis.classification import Confusion, confusion, per_class, summary
from lab.analysis.diagnosis import Diagnosis, checks_table, diagnose
from lab.analysis.learning_curve import Extrapolation, Refusal, extrapolate, learning_curve
from lab.analysis.training_curve import convergence, training_curves
from lab.errors import LabError
from lab.history import History

TARGETS = ("bias_sq", "variance")
LEAST_IMPORTANCE = 0.05  # in R²
MOST_DIRECTIONS = 2  # knobs whose direction is drawn, for each of bias² and variance


class Direction(NamedTuple):
    """How a part of the risk goes with a knob."""

    knob: str
    target: str
    table: pd.DataFrame


@dataclass(frozen=True)
class Tables:
    """All that the page shows, computed from one run history.

    `focus` is the run the verdict speaks of: the confirmed configuration, else the best trial; None where nothing was
    measured. `predictions_note` says why there are no per-class tables, where there are none.
    """

    explore: pd.DataFrame
    focus: pd.Series | None
    diagnosis: Diagnosis
    checks: pd.DataFrame
    capacity: pd.DataFrame
    threshold: float | None
    peak: Peak
    importance: pd.DataFrame
    directions: tuple[Direction, ...]
    training: pd.DataFrame
    convergence: pd.DataFrame
    learning: pd.DataFrame
    extrapolation: Extrapolation | Refusal
    confusion: Confusion | None = None
    per_class: pd.DataFrame = field(default_factory=pd.DataFrame)
    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions_note: str = ""


def verdict(history: History, capacity: pd.DataFrame | None = None, learning: pd.DataFrame | None = None) -> Diagnosis:
    """Return the diagnosis of a run history."""
    return diagnose(
        history.trials,
        history.epochs,
        history.replicas,
        capacity=capacity_curve(history.trials) if capacity is None else capacity,
        learning=learning_curve(history.trials) if learning is None else learning,
        study=history.study,
        spec=history.spec,
        data=history.data,
    )


def collect(history: History) -> Tables:
    """Return the tables behind the report. Costs what the analysis costs: no figure is made here."""
    explore = history.phase("explore")
    explore = explore.assign(selection_risk=selection_risk(explore)) if len(explore) else explore
    capacity, learning = capacity_curve(history.trials), learning_curve(history.trials)
    diagnosis = verdict(history, capacity, learning)
    ranking = importance(history.trials, seed=int(history.spec.get("seed", 0)))
    focus = _focus(history, explore, diagnosis)
    tables = Tables(
        explore=explore,
        focus=focus,
        diagnosis=diagnosis,
        checks=checks_table(diagnosis),
        capacity=capacity,
        threshold=interpolation_threshold(capacity),
        peak=find_peak(capacity, history.replicas),
        importance=ranking,
        directions=_directions(history, ranking),
        training=training_curves(history.epochs),
        convergence=convergence(history.replicas),
        learning=learning,
        extrapolation=extrapolate(learning),
    )
    return tables if focus is None else _with_classes(history, tables, str(focus["key"]))


def _focus(history: History, explore: pd.DataFrame, diagnosis: Diagnosis) -> pd.Series | None:
    rows = history.trials[history.trials["key"] == diagnosis.key] if diagnosis.key else history.trials.iloc[:0]
    if rows.empty and len(explore):
        measured = explore.dropna(subset=[c for c in ("selection_risk", "risk") if c in explore])
        rows = measured.sort_values(["selection_risk", "number"], kind="stable").head(1)
    return None if rows.empty else rows.iloc[0]


def _directions(history: History, ranking: pd.DataFrame) -> tuple[Direction, ...]:
    found = []
    for target in TARGETS:
        rows = ranking[(ranking["target"] == target) & (ranking["status"] != "no ranking")]
        # only effects whose interval excludes 0 are quoted, and only those that one could see in a figure
        rows = rows[(rows["importance_lo"] > 0) & (rows["importance"] >= LEAST_IMPORTANCE)]
        knobs = rows.sort_values("rank", kind="stable")["knob"].head(MOST_DIRECTIONS).tolist()
        tables = directions(history.trials, knobs, target, seed=int(history.spec.get("seed", 0)))
        found += [Direction(str(knob), target, tables[knob]) for knob in knobs if knob in tables]
    return tuple(found)


def _with_classes(history: History, tables: Tables, key: str) -> Tables:
    try:
        p_DINC, labels, _ = history.predictions(key)
    except (LabError, OSError, KeyError) as error:
        return _replace(tables, predictions_note=f"The stored predictions of {key} cannot be read: {error}")
    if not np.isfinite(p_DINC).any():
        return _replace(tables, predictions_note=f"All replicas of {key} diverged: there are no predictions to sort.")
    names = [str(n) for n in history.data.get("class_names", [])] or None
    n_classes = p_DINC.shape[-1]
    return _replace(
        tables,
        confusion=confusion(p_DINC, labels, n_classes),
        per_class=per_class(p_DINC, labels, n_classes, class_names=names),
        summary=summary(p_DINC, labels, n_classes),
    )


def _replace(tables: Tables, **changes: Any) -> Tables:
    return Tables(**{**{name: getattr(tables, name) for name in tables.__dataclass_fields__}, **changes})


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
    }
    if isinstance(tables.extrapolation, Extrapolation):
        frames["extrapolation"] = tables.extrapolation.table
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
    for row in frame.itertuples(index=False, name=None):
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


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
        "actions": [{"text": a.text, "command": a.command} for a in diagnosis.actions],
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
