"""The first stage of a study of two: networks are trained on other data, once, for replicas to start from.

What is asked for stands in lab.pretraining. The networks are kept under mlruns/pretrained as `export-weights` writes
weights, under a digest of all that they depend on. What goes wrong in their training is kept beside them until the next
run, as every trial that needs them would only find it out again.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import files, storage, weights
from lab.errors import LabError, SpecError, one_line
from lab.knobs import FAMILIES, TrialConfig
from lab.pretraining import ARCHITECTURE, NAME, name_of
from lab.spec import Study
from lab.storage import Home
from lab.task import Task

if TYPE_CHECKING:
    from lab.data.pool import Dataset

FAILED = ".failed.json"  # what the name of a failure ends with


class PretrainingError(RuntimeError):
    """The networks broke while they were trained: the trial fails as if it had broken itself."""


def dataset_of(spec: dict[str, Any], *, data_dir: str | None, study_file: str | None) -> "Dataset":
    """Return the data that the networks of a study are trained on before.

    Raises:
        SpecError: There is no such data set.
        DataError: It is missing or damaged.
    """
    from lab.trial import load_dataset

    whole = spec | {"data": name_of(spec), "n_validation": None, "n_test": None}
    return load_dataset(whole, data_dir=data_dir, study_file=study_file)


def check_starts(study: Study) -> None:
    """Read every file of weights that a study names.

    Raises:
        SpecError: One cannot be used, or trunks of torchvision, which nobody trains here, are to start from none.
    """
    for given in sorted(map(str, study.values("weights") - {"", NAME})):
        weights.read(Path(given))
    if study.values("family") == {"pretrained"} and study.values("weights") <= {"", NAME}:
        raise SpecError(
            "family 'pretrained' starts from published weights, which are not downloaded here: fetch them where there "
            "is a network, by the command in the README, then set weights=FILE and new_head=True"
        )


def shared_starts(study: Study) -> list[str]:
    """Return a sentence on each set of networks to start from that has fewer of them than a trial has seeds."""
    n_inits, found = study.replication.most[1], []
    for given in sorted(map(str, study.values("weights") - {""})):
        asked = study.pretraining if given == NAME else None
        n = weights.n_starts(Path(given)) if asked is None else asked.n_seeds
        if n < n_inits:
            found.append(
                f"weights={given}: {n_inits} seeds share {n} network{'s' * (n > 1)} to start from, so the variance by "
                "seed leaves out what another pre-training would change"
            )
    return found


def folder(task: Task, home: Home) -> Path:
    """Return the folder of the networks that a trial starts from; train them if nobody has.

    A confirmation, whose seeds come after those of the search, has networks of its own.

    Raises:
        SpecError: A network could not be built, or its training diverged.
        PretrainingError: Its training broke.
        LabError: See `dataset_of`; or the disk is full.
    """
    import lab
    from lab import own_families
    from lab.data import transforms

    wanted = task.spec["pretraining"]
    config = TrialConfig.from_dict({name: task.config[name] for name in ARCHITECTURE} | wanted["fixed"])
    dataset = dataset_of(dict(task.spec), data_dir=task.data_dir, study_file=task.study_file)
    dataset = transforms.at_side(dataset, config.resize)
    config = dataclasses.replace(config, n_train=min(config.n_train, len(dataset.pool)))
    first_init = -(-task.first_init // wanted["n_seeds"]) * wanted["n_seeds"]  # none that an earlier block had
    what = {
        "config": dataclasses.asdict(config), "data": dataset.digest, "seed": task.spec["seed"],
        "first_init": first_init, "n_seeds": wanted["n_seeds"], "lab": lab.__version__, "device": task.device,
        "family_file": own_families.digest(config.family, task.study_file),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    target = home.mlruns / "pretrained" / key
    if not _is_there(target):
        with storage.made_once(home, f"pretrained-{key}") as alive:
            if not _is_there(target):
                with _failures_kept(target, dataset):
                    _train(config, dataset, task, what, target, alive)
    return target


def tidy(home: Home) -> None:
    """Forget what went wrong in earlier runs, as a run tries once more, and what they left half-written."""
    with files.disk_errors("what earlier runs left of pre-training cannot be removed"):
        for path in (home.mlruns / "pretrained").glob(f"*{FAILED}"):
            path.unlink(missing_ok=True)
        for name in ("pretrained", "features"):
            files.sweep(home.mlruns / name)


def _is_there(target: Path) -> bool:
    """Return whether the networks are there; raise what their training came to if it failed in this run."""
    failure = target.with_name(target.name + FAILED)
    if failure.is_file():
        found = json.loads(failure.read_text())
        raise (SpecError if found["is_infeasible"] else PretrainingError)(found["reason"])
    return (target / weights.INDEX).is_file()


@contextlib.contextmanager
def _failures_kept(target: Path, dataset: "Dataset") -> Iterator[None]:
    """Keep an error that the next trial would meet too; one of the disk, the memory or the data may be gone by then."""
    import torch

    try:
        yield
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, LabError) and not isinstance(error, SpecError):
            raise
        is_infeasible, text = isinstance(error, ValueError), one_line(error)
        reason = text if is_infeasible else f"on {dataset.name}: {type(error).__name__}: {text}"
        record = {"is_infeasible": is_infeasible, "reason": reason}
        files.atomic_write_text(target.with_name(target.name + FAILED), json.dumps(record))
        raise (SpecError if is_infeasible else PretrainingError)(reason) from error


def _train(
    config: TrialConfig, dataset: "Dataset", task: Task, what: dict[str, Any], target: Path, alive: Callable[[], None]
) -> None:
    from lab import own_families, training
    from lab.replication import Grid

    first_init, n_seeds = what["first_init"], what["n_seeds"]
    own_families.register(config.family, task.study_file)
    *_, last = training.fit(
        config, dataset, Grid("seeds", 1, n_seeds), seed=task.spec["seed"], first_init=first_init, n_evaluations=2,
        device=task.device, keep_weights=True, on_epoch=lambda _: alive(),
    )  # fmt: skip
    if last.diverged_R.any():
        raise SpecError(f"pretraining on {dataset.name} diverged: lower its learning_rate")
    replicas = weights.as_torch(last.weights, range(n_seeds), is_own=config.family not in FAMILIES)
    rows = [
        {"replica": i, "init": first_init + i, "val_error": float(last.metrics["val_error"][i])} for i in range(n_seeds)
    ]
    data = {"name": dataset.name, "digest": dataset.digest, "class_names": list(dataset.class_names)}
    record = what | {"data": data, "image_shape": list(dataset.image_shape)}
    target.parent.mkdir(parents=True, exist_ok=True)
    weights.write(target, replicas, rows, record, replaces=False)
