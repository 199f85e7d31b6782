"""What every section needs to know of a study: its names, its links, its wording."""

from typing import Any
from urllib.parse import quote

import pandas as pd

from lab.commands import command
from lab.history import History
from lab.report.figures import knows_noise
from lab.report.tables import Tables
from lab.report.text import is_number
from lab.report.view import Link

BAND = "Brackets and bands: {level} % intervals over resamples, seeds and test images."
CAUSES = ("variance_resample", "variance_init", "variance_interaction")


class Page:
    """What every section needs to know of a study: its names, its links, its wording."""

    def __init__(self, history: History, tables: Tables) -> None:
        self.history, self.tables = history, tables
        self.study = history.study
        replication = history.spec.get("replication", {})
        self.n_resamples, self.n_inits = int(replication.get("n_resamples", 0)), int(replication.get("n_inits", 0))
        self.known_noise = bool(history.data.get("has_posterior")) and knows_noise(history.trials)
        self.bias = "bias²" if self.known_noise else "bias² + noise"
        levels = history.trials["level"].dropna() if "level" in history.trials else pd.Series(dtype=float)
        self.level = f"{100 * (float(levels.iloc[0]) if len(levels) else 0.95):g}"
        self.band = BAND.format(level=self.level)
        draws = int(replication.get("n_noise_draws", 1))
        self.n_replicas = self.n_resamples * self.n_inits * draws
        self.plan = f"{self.n_resamples} training sets × {self.n_inits} seeds"
        self.plan += f" × {draws} draws of the label noise" if draws > 1 else ""
        most = replication.get("max_replicas")  # of a trial that grows
        self.times = str(self.n_replicas) + (f" and up to {most}" if most else "")
        self.replicas = f"{self.plan} = {self.times}"
        judged = float("nan") if tables.focus is None else tables.focus.get("n_resamples", float("nan"))
        self.n_judged = int(judged) if is_number(judged) else self.n_resamples  # training sets behind the verdict

    @property
    def plans_sizes(self) -> bool:
        """Whether the study measures smaller training sets than that of the confirmed configuration."""
        return any(fraction < 1 for fraction in self.history.spec.get("learning_curve") or ())

    def part(self, name: str) -> str:
        """Return the name of a part of the risk as this study may call it."""
        words = {
            "bias_sq": self.bias,
            "variance_resample": "variance from the training set",
            "variance_init": "variance from the seed",
            "variance_interaction": "variance from both together",
        }
        return words.get(name, name)

    def href(self, name: str) -> str:
        """Return the relative address of a file beside the page."""
        return f"{quote(self.study)}/{quote(name)}"

    def command(self, verb: str = "run", **changes: Any) -> str:
        """Return a command on this study; `run` takes changes of it, see `lab.commands.run_command`."""
        return command(verb, self.study, spec=self.history.spec, asked=self.history.asked, **changes)

    def link(self, name: str) -> Link:
        """Return the file and its address, as `table_view` wants them."""
        return Link(name, self.href(name))

    def columns(self, *names: str) -> list[tuple[str, str]]:
        """Return columns of parts with their headings."""
        return [(name, self.part(name)) for name in names]


def which(focus: pd.Series) -> str:
    """Return whose numbers these are: the confirmed configuration's, or a trial's."""
    return (
        "The confirmed configuration"
        if focus["phase"] == "confirm"
        else f"Trial {focus['number']:g}, not yet confirmed"
    )
