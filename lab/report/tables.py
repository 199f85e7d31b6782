"""Run history → the tables behind the report."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lab.analysis.attribution import directions, importance, moves
from lab.analysis.capacity_curve import Peak, capacity_curve, find_peak, interpolation_threshold, selection_risk
from lab.analysis.case import chosen
from lab.analysis.classification import Confusion, confusion, per_class, summary
from lab.analysis.confidence import areas, reliability, roc
from lab.analysis.diagnosis import Diagnosis, checks_table, diagnose
from lab.analysis.ensemble import ensembles
from lab.analysis.examples import per_example, votes
from lab.analysis.interventions import interventions
from lab.analysis.learning_curve import Extrapolation, Needed, Refusal, extrapolate, learning_curve, n_needed
from lab.analysis.noisy_labels import noisy_labels
from lab.analysis.training_curve import convergence, training_curves
from lab.errors import LabError
from lab.history import Examples, History

TARGETS = ("bias_sq", "variance")
LEAST_IMPORTANCE = 0.05  # in R²
ERRORS = 1.96  # standard errors in half an interval, of a normal estimate: a share that rests on it is not too large
LOWER_RISKS = (0.9, 0.75, 0.5)  # of the risk at the largest measured size
MOST_DIRECTIONS = 3  # knobs whose direction is drawn, for each of bias² and variance


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
    extrapolation: Extrapolation | Refusal  # of the risk
    extrapolations: dict[str, Extrapolation | Refusal]  # of bias² and of variance, each apart
    needed: tuple[Needed, ...]  # training examples for lower risks
    confusion: Confusion | None = None
    per_class: pd.DataFrame = field(default_factory=pd.DataFrame)
    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    areas: pd.DataFrame = field(default_factory=pd.DataFrame)
    roc: pd.DataFrame = field(default_factory=pd.DataFrame)
    reliability: pd.DataFrame = field(default_factory=pd.DataFrame)
    examples: pd.DataFrame = field(default_factory=pd.DataFrame)
    votes_NC: np.ndarray | None = None  # how many replicas predict each class
    images: Examples | None = None  # of the hardest test images
    interventions: pd.DataFrame = field(default_factory=pd.DataFrame)  # in a study of variants
    noisy_labels: pd.DataFrame = field(default_factory=pd.DataFrame)  # where the noise of the labels is redrawn
    signals: pd.DataFrame = field(default_factory=pd.DataFrame)
    ensembles: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions_note: str = ""


def verdict(history: History, **known: Any) -> Diagnosis:
    """Return the diagnosis of a run history; `known` are tables of it that `diagnose` takes."""
    return diagnose(
        history.trials, history.epochs, history.replicas, study=history.study, spec=history.spec, data=history.data,
        asked=history.asked,
        **{"interventions": variants(history)} | known,
    )  # fmt: skip


def variants(history: History) -> pd.DataFrame:
    """Return what the variants of a study change against the first of them; empty in a study without variants."""
    names = list(history.spec.get("variants", {}))
    explore = history.phase("explore")
    if not names or "variant" not in explore:
        return pd.DataFrame()
    return interventions(explore, history.predictions, baseline=names[0])


def collect(history: History) -> Tables:
    """Return the tables behind the report. Costs what the analysis costs: no figure is made here."""
    explore, seed = history.phase("explore"), int(history.spec.get("seed", 0))
    explore = explore.assign(selection_risk=selection_risk(explore)) if len(explore) else explore
    capacity, learning = capacity_curve(history.trials), learning_curve(history.trials)
    ranking, changes, focus = importance(history.trials, seed=seed), variants(history), focus_of(history, explore)
    pictures = {} if focus is None else _of_predictions(history, str(focus["key"]))
    diagnosis = verdict(
        history, capacity=capacity, learning=learning, importance=ranking, interventions=changes,
        ensembles=pictures.get("ensembles"), test_share=test_share(focus, pictures.get("examples")),
        effects=() if focus is None else moves(history.trials, focus, seed=seed),
    )  # fmt: skip
    ahead = extrapolate(learning)
    return Tables(
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
        extrapolation=ahead,
        extrapolations={target: extrapolate(learning, target) for target in TARGETS},
        needed=_needed(learning, ahead),
        interventions=changes,
        noisy_labels=noisy_labels(history.trials),
        **pictures,
    )


def test_share(focus: pd.Series | None, examples: pd.DataFrame | None) -> float:
    """Return how much of the variance of a run's estimated risk is from having few test images; NaN if not known."""
    half = math.nan if focus is None else float(focus.get("risk_hi", math.nan) - focus.get("risk_lo", math.nan)) / 2
    if examples is None or len(examples) < 2 or not half > 0:
        return math.nan
    of_images = float(examples["risk"].var()) / len(examples)
    return min(of_images / (half / ERRORS) ** 2, 1.0)


def focus_of(history: History, explore: pd.DataFrame) -> pd.Series | None:
    """Return the run that is judged, else the best explore trial; None where nothing was measured."""
    judged = chosen(history.trials)
    if judged is not None or explore.empty:
        return judged
    measured = explore.dropna(subset=[c for c in ("selection_risk", "risk") if c in explore])
    rows = measured.sort_values(["selection_risk", "number"], kind="stable")
    return None if rows.empty else rows.iloc[0]


def _needed(learning: pd.DataFrame, ahead: Extrapolation | Refusal) -> tuple[Needed, ...]:
    if isinstance(ahead, Refusal):
        return ()
    risk = float(learning.dropna(subset=["risk"])["risk"].iloc[-1])
    return tuple(n_needed(ahead, share * risk) for share in LOWER_RISKS)


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


def _of_predictions(history: History, key: str) -> dict[str, Any]:
    """Return the tables that are made of a run's predictions, or why there are none, as fields of `Tables`."""
    try:
        p_DINC, labels, posterior = history.predictions(key)
        images, watched = history.examples(key), history.signals(key)
    except (LabError, OSError, KeyError) as error:
        return {"predictions_note": f"The stored predictions of {key} cannot be read: {error}"}
    if not np.isfinite(p_DINC).any():
        return {"predictions_note": f"All replicas of {key} diverged: there are no predictions to sort."}
    names = [str(n) for n in history.data.get("class_names", [])] or None
    n_classes = p_DINC.shape[-1]
    return {
        "confusion": confusion(p_DINC, labels, n_classes),
        "per_class": per_class(p_DINC, labels, n_classes, class_names=names),
        "summary": summary(p_DINC, labels, n_classes),
        "areas": areas(p_DINC, labels, class_names=names),
        "roc": roc(p_DINC, labels, class_names=names),
        "reliability": reliability(p_DINC, labels),
        "examples": per_example(p_DINC, labels, posterior, class_names=names),
        "votes_NC": votes(p_DINC, labels, range(len(labels))),
        "images": images,
        "signals": watched,
        "ensembles": ensembles(p_DINC, labels, posterior, seed=int(history.spec.get("seed", 0))),
    }
