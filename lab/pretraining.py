"""Pre-training: networks trained on other data before a trial begins, for its replicas to start from.

A study that gives a `Pretraining` asks for it with the knob `weights="pretraining"`. A network of the trial's own
architecture is trained once a seed, whoever needs it first, and kept under mlruns/pretrained as `export-weights` writes
weights: so a study of two stages stays one study, and its architecture can be searched.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lab.errors import SpecError
from lab.knobs import TrialConfig, Value, check_knob

if TYPE_CHECKING:
    from lab.data.pool import Dataset
    from lab.storage import Home
    from lab.task import Task

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
        return dataclasses.replace(self, fixed={**self.fixed, **small}, n_seeds=min(self.n_seeds, 2))


def dataset_of(spec: Mapping[str, Any], *, data_dir: str | None, study_file: str | None) -> "Dataset":
    """Return the data that the networks of a study are trained on before.

    Raises:
        SpecError: There is no such data set.
        DataError: It is missing or damaged.
    """
    from lab.trial import load_dataset

    name = spec["pretraining"]["data"]
    if name.startswith("["):
        name = spec["data"].partition("[")[0] + name
    whole = dict(spec) | {"data": name, "n_validation": None, "n_test": None}
    return load_dataset(whole, data_dir=data_dir, study_file=study_file)


def folder(task: "Task", home: "Home") -> Path:
    """Return the folder of the networks that a trial starts from; train them if nobody has.

    A confirmation, whose seeds come after those of the search, has networks of its own.

    Raises:
        SpecError: A network could not be built, or its training diverged.
        LabError: See `dataset_of`; or the disk is full.
    """
    import lab
    from lab import own_families, storage, weights
    from lab.data import transforms

    wanted = task.spec["pretraining"]
    config = TrialConfig.from_dict({name: task.config[name] for name in ARCHITECTURE} | wanted["fixed"])
    dataset = dataset_of(task.spec, data_dir=task.data_dir, study_file=task.study_file)
    dataset = transforms.at_side(dataset, config.resize)
    config = dataclasses.replace(config, n_train=min(config.n_train, len(dataset.pool)))
    first_init = task.first_init // wanted["n_seeds"] * wanted["n_seeds"]
    what = {
        "config": dataclasses.asdict(config), "data": dataset.digest, "seed": task.spec["seed"],
        "first_init": first_init, "n_seeds": wanted["n_seeds"], "lab": lab.__version__, "device": task.device,
        "family_file": own_families.digest(config.family, task.study_file),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    target = home.mlruns / "pretrained" / key
    if not (target / weights.INDEX).is_file():
        with storage.made_once(home, f"pretrained-{key}"):
            if not (target / weights.INDEX).is_file():
                _train(config, dataset, task, what, target)
    return target


def _train(config: TrialConfig, dataset: "Dataset", task: "Task", what: dict[str, Any], target: Path) -> None:
    from lab import own_families, training, weights
    from lab.replication import Grid

    first_init, n_seeds = what["first_init"], what["n_seeds"]
    own_families.register(config.family, task.study_file)
    *_, last = training.fit(
        config, dataset, Grid("seeds", 1, n_seeds), seed=task.spec["seed"], first_init=first_init, n_evaluations=2,
        device=task.device, keep_weights=True,
    )  # fmt: skip
    if last.diverged_R.any():
        raise SpecError(f"pretraining on {dataset.name} diverged: lower its learning_rate")
    is_own = config.family not in weights.FAMILIES
    replicas, _ = weights.unpacked(weights.packed(last.weights, range(n_seeds), {}, is_own=is_own))
    rows = [
        {"replica": i, "init": first_init + i, "val_error": float(last.metrics["val_error"][i])} for i in range(n_seeds)
    ]
    data = {"name": dataset.name, "digest": dataset.digest, "class_names": list(dataset.class_names)}
    target.parent.mkdir(parents=True, exist_ok=True)
    weights.write(target, replicas, rows, what | {"data": data, "image_shape": list(dataset.image_shape)})
