"""Pre-training: networks trained on other data before a trial begins, for its replicas to start from.

A study that gives a `Pretraining` asks for it with the knob `weights="pretraining"`. A network of the trial's own
architecture is trained once a seed, whoever needs it first (lab.first_stage): so a study of two stages stays one study,
and its architecture can be searched.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lab.errors import SpecError
from lab.knobs import TrialConfig, Value, check_knob

NAME = "pretraining"  # the value of the knob `weights` that asks for it
# of the trial's knobs, what its networks and the images they see have in common with those that are trained before
ARCHITECTURE = (
    "family", "backbone", "depth", "width", "activation", "norm", "pooling", "convolutions", "residual", "resize",
    "normalize",
)  # fmt: skip
MOST_SEEDS = 64


@dataclass(frozen=True)
class Pretraining:
    """What networks are trained on before: a data set, knobs (n_train, epochs …), and how many, each from its seed.

    `data` is a name, or other classes of the study's own data set, as in `[0-4]` (lab.data.classes). Of a pool that is
    smaller than `n_train` all is taken. Seed i of a trial starts from network i modulo `n_seeds`. The knobs that make
    the architecture are the trial's.

    Raises:
        SpecError: A knob is unknown or impossible, or is one of the architecture.
    """

    data: str
    fixed: Mapping[str, Value] = field(default_factory=dict)
    n_seeds: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.data, str) or not self.data:
            raise SpecError(f"pretraining: data = {self.data!r} has to name a data set, or classes as in '[0-4]'")
        if not isinstance(self.fixed, Mapping):
            raise SpecError(f"pretraining: fixed = {self.fixed!r} has to be a dict of knobs")
        object.__setattr__(self, "fixed", MappingProxyType(dict(self.fixed)))
        for name, value in self.fixed.items():
            check_knob(name, value, where="pretraining")
            if name in (*ARCHITECTURE, "weights"):
                raise SpecError(f"pretraining: {name} is that of the trial: leave it out")
        if type(self.n_seeds) is not int or not 1 <= self.n_seeds <= MOST_SEEDS:
            raise SpecError(f"pretraining: n_seeds = {self.n_seeds!r} has to be an integer from 1 to {MOST_SEEDS}")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"data": self.data, "fixed": dict(self.fixed), "n_seeds": self.n_seeds}

    def smoke(self) -> "Pretraining":
        """Return the same made small enough to run in seconds."""
        config = TrialConfig.from_dict(self.fixed)
        small = {"epochs": min(config.epochs, 8), "n_train": min(config.n_train, 300)}
        n_seeds = min(self.n_seeds, 3)  # as many as Replication.smoke leaves
        return dataclasses.replace(self, fixed={**self.fixed, **small}, n_seeds=n_seeds)


def name_of(spec: Mapping[str, Any]) -> str:
    """Return the name of the data that the networks of a stored study learn first."""
    name = str(spec["pretraining"]["data"])
    return str(spec["data"]).partition("[")[0] + name if name.startswith("[") else name
