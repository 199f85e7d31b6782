"""The run that a diagnosis judges, with everything of the study that bears on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.attribution import Effect
from lab.analysis.capacity_curve import (
    Estimate,
    Peak,
    estimate,
    newest_first,
    number,
    number_column,
    of_phase,
    planned_replicas,
    selection_risk,
)
from lab.commands import run_command

NOISE_FLOOR = 0.1
MIN_REPLICAS = 10


def share_of_bias(bias_sq: Estimate, variance: Estimate) -> Estimate:
    """Return bias²/(bias² + variance) in [0, 1] with the interval that the module's docstring explains."""

    def share(b: float, v: float) -> float:
        b, v = (math.nan if math.isnan(x) else max(x, 0.0) for x in (b, v))
        return b / (b + v) if b + v > 0 else math.nan

    point = share(bias_sq.value, variance.value)
    lo, hi = share(bias_sq.lo, variance.hi), share(bias_sq.hi, variance.lo)
    return Estimate(point, lo, hi)


def chosen(trials: pd.DataFrame) -> pd.Series | None:
    """Return the run to judge: the newest measured confirm run, else the explore trial with the lowest risk.

    Where a study confirms several configurations, it is the confirm run with the lowest objective.
    """
    for phase in ("confirm", "explore"):
        rows = of_phase(trials, phase)
        measured = np.isfinite(number_column(rows, "bias_sq")) & np.isfinite(number_column(rows, "variance"))
        rows = rows[measured]
        if rows.empty:
            continue
        if phase == "confirm":
            return newest_first(rows).iloc[0]
        return rows.iloc[int(np.argmin(selection_risk(rows).fillna(math.inf).to_numpy()))]
    return None


@dataclass(frozen=True)
class Case:
    """The run that is judged and everything that bears on it."""

    row: pd.Series
    capacity: pd.DataFrame
    learning: pd.DataFrame
    training: Mapping[str, Any]  # row of `convergence`; empty if not measured
    peak: Peak
    study: str
    trials: pd.DataFrame
    spec: Mapping[str, Any]
    data: Mapping[str, Any]
    asked: Mapping[str, str]  # what the study's command said that its name does not
    importance: pd.DataFrame | None  # of `lab.analysis.attribution`
    interventions: pd.DataFrame | None = None  # of `lab.analysis.interventions`, in a study of variants
    ensembles: pd.DataFrame | None = None  # of `lab.analysis.ensemble`
    test_share: float = math.nan  # of the variance of the risk's estimate, what having few test images makes
    effects: tuple[Effect, ...] = ()  # of single knobs on the risk, from where they stand to their best

    @property
    def bias_name(self) -> str:
        """What the bias may be called: with the noise in it, unless that is known."""
        return "bias²" if math.isfinite(estimate(self.row, "noise").value) else "bias² + noise"

    @property
    def n_replicas(self) -> int:
        """How many replicas the numbers rest on."""
        planned = float(planned_replicas(self.row.to_frame().T).iloc[0])
        gone = np.nan_to_num(number(self.row, "n_diverged"))
        counts = [x for x in (planned - gone, number(self.row, "n_replicas")) if math.isfinite(x)]
        return int(min(counts)) if counts else 0

    @property
    def reducible(self) -> Estimate:
        """bias² + variance: the risk less the noise, with the interval of the risk (of the parts if missing)."""
        b, v, risk = (estimate(self.row, name) for name in ("bias_sq", "variance", "risk"))
        total = b.value + v.value
        if math.isfinite(risk.half):
            return Estimate(total, total - (risk.value - risk.lo), total + (risk.hi - risk.value))
        return Estimate(total, b.lo + v.lo, b.hi + v.hi)

    @property
    def relative_width(self) -> float:
        """Half the width of the interval of `reducible`, over its value."""
        total = self.reducible
        return total.half / total.value if total.value > 0 else math.inf

    @property
    def lacks_test_images(self) -> bool:
        """Whether having few test images makes more of the interval of the risk than having few replicas."""
        return self.test_share > 0.5 and self.n_replicas >= MIN_REPLICAS

    @property
    def at_floor(self) -> bool:
        """Whether what is left beside the noise is at most a tenth of it."""
        noise = estimate(self.row, "noise").value
        return bool(noise > 0 and self.reducible.hi <= NOISE_FLOOR * noise)

    def command(self, **settings: Any) -> str | None:
        """Return the command that runs the study with knobs or its plan changed; None if the study has no name."""
        return run_command(self.study, spec=self.spec, asked=self.asked, **settings) if self.study else None

    @property
    def is_smoke(self) -> bool:
        """Whether this is the small version of a study."""
        return "smoke" in self.study.split(",")[1:]

    def command_in_full(self) -> str | None:
        """Return the command that runs the study that this is the small version of."""
        return self.command(smoke=False)
