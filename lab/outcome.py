"""The files of an outcome: what a trial measured, as bytes by file name.

request (config.json), environment, curves (parquet), decomposition, predictions (npz), metrics: one function each.

Legend: D resamples, I initialisations, R = D·I replicas (replica r = d·I + i), N points, C classes.
"""

import contextlib
import functools
import io
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lab
from lab import objectives, weights

if TYPE_CHECKING:
    from lab.data.pool import Dataset
    from lab.growth import Growth
    from lab.replication import Replication
    from lab.task import Task

SPLITS = ("train", "val", "test")
SCORES = ("loss", "risk", "error")
TRAIN_ERRORS = (0.1, 0.01)
LEVEL = 0.95
OTHER_LOSSES = ("cross_entropy", "zero_one")  # decomposed at the end, beside the Brier score
N_MEMBERS = (2, 4)  # of the ensembles whose risk is tracked: the larger that there are replicas for
ENSEMBLE_COLUMNS = (
    "risk", "risk_lo", "risk_hi", "risk_predicted", "risk_measured", "risk_measured_lo", "risk_measured_hi"
)  # fmt: skip
N_EXAMPLES = 24  # of the hardest test images, by bias² and by variance each


@dataclass(frozen=True)
class Snapshot:
    """Scores of the replicas at one evaluation, by name as in `train_risk`, and which of them have diverged.

    `signals` are those of lab.training.health, where they were measured.
    """

    epoch: int
    metrics: Mapping[str, np.ndarray]
    diverged_R: np.ndarray
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What training a trial gave."""

    n_parameters: int
    replication: "Replication"  # as it was carried out: with the replicas of a trial that grew
    snapshots: list[Snapshot]
    decompositions: list[dict[str, Any] | None]  # on the test set, one a snapshot; None: no replica is left
    validation: dict[str, Any] | None  # at the end
    log_probabilities_DINC: np.ndarray  # on the test set, at the end
    shifted: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)  # the same under attack …
    losses: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)  # of other losses, on the test set
    seconds: float = math.nan  # of training, over all attempts that went on from another
    growth: "Growth | None" = None
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)  # at the end, see lab.training.scores.Evaluation
    timed: Mapping[str, float] = field(default_factory=dict)  # of a variant, see lab.timing

    @property
    def probabilities_DINC(self) -> np.ndarray:
        """Final predictions on the test set."""
        return np.exp(self.log_probabilities_DINC)


def results(task: "Task", dataset: "Dataset", trained: Trained, *, note: Callable[[str], None]) -> dict[str, bytes]:
    """Return the files of a trial that was trained, by name. `note` is told what is left out."""
    files = {
        "curves.parquet": curves(task, trained),
        "decomposition.json": as_json(decomposition(trained)),
        "predictions.npz": predictions(dataset, trained),
        "metrics.json": as_json(metrics(task, dataset, trained)),
        "per_class.json": as_json(per_class(dataset, trained)),
    }
    if trained.growth is not None:
        files["growth.json"] = as_json(trained.growth.to_dict(task.replication))
    if any(step.signals for step in trained.snapshots):
        files["signals.parquet"] = signals(trained)
    # the report shows them, and is built from the run history alone; of every trial they would be a burden
    images = examples(task, dataset, trained) if task.phase == "confirm" else None
    if images is not None:
        files["examples.npz"] = images
    kept, left_out = weights.of_trial(task, trained)
    if left_out is not None:
        note(left_out)
    return files if kept is None else files | {weights.FILE: kept}


def as_json(value: Any) -> bytes:
    """Return a value as a JSON file; NaN and infinity are refused."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def request(task: "Task", dataset: "Dataset", plan: "Replication", n_parameters: int | None) -> dict[str, Any]:
    """Return what was asked for: the study, the configuration, its replicas (by the plan carried out) and the data."""
    from lab.data.check import findings
    from lab.data.resampling import describe

    return {
        "study": task.study,
        "spec": dict(task.spec),
        "phase": task.phase,
        "number": task.number,
        "variant": task.variant,
        "config": dict(task.config),
        "replication": plan.to_dict(),
        "training_sets": describe(plan, n_train=task.config["n_train"], n_pool=len(dataset.pool)),
        "first_resample": task.first_resample,
        "first_init": task.first_init,
        "first_noise": task.first_noise,
        "seed": task.spec["seed"],
        "n_parameters": n_parameters,
        "image_shape": list(dataset.image_shape),
        "device": task.device,
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "source": dataset.source,
            "n_pool": len(dataset.pool.labels),
            "n_validation": len(dataset.validation.labels),
            "n_test": len(dataset.test.labels),
            "class_names": list(dataset.class_names),
            "has_posterior": dataset.test.posterior is not None,
            "findings": list(findings(dataset)),
        },
    }


def environment(device: str) -> dict[str, Any]:
    """Return what it ran on."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "n_threads": torch.get_num_threads(),
        "lab": lab.__version__,
        "git_commit": _git_commit(),
    }


@functools.cache
def _git_commit() -> str | None:
    """Return the commit of the lab's own source, None where that is no git repository."""
    folder = Path(lab.__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
        return answer.stdout.strip() or None
    return None


def curves(task: "Task", trained: Trained) -> bytes:
    """Return the training curves as parquet: a row an (evaluated epoch, replica); NaN from where a replica diverged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_replicas, (_, n_inits, n_draws) = trained.replication.n_replicas, trained.replication.shape
    replica_R = np.arange(n_replicas)
    n_epochs = len(trained.snapshots)
    columns: dict[str, np.ndarray] = {
        "epoch": np.repeat([step.epoch for step in trained.snapshots], n_replicas),
        "replica": np.tile(replica_R, n_epochs),
        "resample": np.tile(task.first_resample + replica_R // (n_inits * n_draws), n_epochs),
        "init": np.tile(task.first_init + replica_R // n_draws % n_inits, n_epochs),
        "noise_draw": np.tile(task.first_noise + replica_R % n_draws, n_epochs),
        "diverged": np.concatenate([step.diverged_R for step in trained.snapshots]),
    }
    for split in SPLITS:
        for score in SCORES:
            name = f"{split}_{score}"
            columns[name] = np.concatenate([_alive(step, name) for step in trained.snapshots])
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def signals(trained: Trained) -> bytes:
    """Return the signal health of each layer through training as parquet, see `lab.analysis.signals.table`."""
    from lab.analysis.signals import table

    sink = io.BytesIO()
    rows = table([step.epoch for step in trained.snapshots], [step.signals for step in trained.snapshots])
    rows.to_parquet(sink, index=False, compression="zstd")
    return sink.getvalue()


def _alive(step: Snapshot, name: str) -> np.ndarray:
    """Return a score of each replica, NaN for those that diverged."""
    value_R = np.asarray(step.metrics[name], dtype=np.float64)
    return np.where(step.diverged_R | ~np.isfinite(value_R), np.nan, value_R)


def decomposition(trained: Trained) -> dict[str, Any]:
    """Return the decompositions: on the test set at each evaluation, and on both held-out sets at the end."""
    return {
        "level": LEVEL,
        "final": trained.decompositions[-1],
        "validation": trained.validation,
        "shifted": dict(trained.shifted),
        "losses": dict(trained.losses),
        "epochs": [
            {"epoch": step.epoch} | parts
            for step, parts in zip(trained.snapshots, trained.decompositions, strict=True)
            if parts is not None
        ],
    }


def predictions(dataset: "Dataset", trained: Trained) -> bytes:
    """Return the final predictions on the test set, those of diverged replicas NaN, see `_kept`.

    Log probabilities in float32: what is nearly impossible still has its cross-entropy.
    """
    log_p_DINC = _kept(trained, trained.log_probabilities_DINC.astype(np.float32))
    arrays = {"log_probabilities_DINC": log_p_DINC, "labels_N": dataset.test.labels}
    if dataset.test.posterior is not None:
        arrays["posterior_NC"] = dataset.test.posterior
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def _kept(trained: Trained, values: np.ndarray) -> np.ndarray:
    """Return values of the final predictions as (D, I, N, C), NaN for replicas that diverged.

    With K draws of the label noise the second axis has I·K places, i·K + k; `lab.history` takes them apart again.
    """
    gone = trained.snapshots[-1].diverged_R.reshape(*values.shape[:-2], 1, 1)
    kept = np.where(gone, values.dtype.type(np.nan), values)
    return kept.reshape(values.shape[0], -1, *values.shape[-2:])


def per_class(dataset: "Dataset", trained: Trained) -> dict[str, Any]:
    """Return precision, recall and F1 of each class, with intervals, as columns and rows."""
    from lab.analysis import classification

    kept_DINC = _kept(trained, trained.probabilities_DINC)
    return classification.plain(
        classification.per_class(kept_DINC, dataset.test.labels, class_names=dataset.class_names, level=LEVEL)
    )


def examples(task: "Task", dataset: "Dataset", trained: Trained) -> bytes | None:
    """Return the test images with the highest bias² and with the highest variance, as 8-bit ones; None without any.

    Of convolutional networks also where in them the replicas see the class that most of them call (lab.training.cam).
    """
    from lab.analysis.examples import per_example

    table = per_example(_kept(trained, trained.probabilities_DINC), dataset.test.labels, dataset.test.posterior)
    if table.empty:
        return None
    chosen = np.unique([table[part].nlargest(N_EXAMPLES).index for part in ("bias_sq", "variance")])
    images = dataset.test.images[chosen]
    arrays = {"index_K": chosen}
    seen_KHW = _seen(task, dataset, trained, images, table["vote"].to_numpy()[chosen])
    if seen_KHW is not None:
        arrays["seen_KHW"] = np.round(255 * seen_KHW).astype(np.uint8)
    if images.dtype != np.uint8:
        low, high = float(dataset.test.images.min()), float(dataset.test.images.max())
        images = np.round(255 * (images - low) / max(high - low, 1e-12)).astype(np.uint8)
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, images_KCHW=images, **arrays)
    return sink.getvalue()


def _seen(
    task: "Task", dataset: "Dataset", trained: Trained, images_KCHW: np.ndarray, classes_K: np.ndarray
) -> np.ndarray | None:
    """Return where the replicas that did not diverge see a class in each image, (K, H, W); None where that is none."""
    from lab.knobs import TrialConfig
    from lab.training import cam

    config = TrialConfig.from_dict(task.config)
    if not trained.weights:
        return None
    rows = np.flatnonzero(~trained.snapshots[-1].diverged_R).tolist()
    return cam.maps(config, trained.weights, images_KCHW, classes_K, rows=rows, n_classes=dataset.n_classes)


def metrics(task: "Task", dataset: "Dataset", trained: Trained) -> dict[str, Any]:
    """Return the numbers that are tracked: at the end ("final") and at each evaluation ("epochs")."""
    from lab.analysis import trial_scores
    from lab.analysis.signals import summary

    epochs = []
    for step, parts in zip(trained.snapshots, trained.decompositions, strict=True):
        row = _means(step) | {"n_diverged": int(step.diverged_R.sum())}
        epochs.append({"epoch": step.epoch} | _numbers(row | _parts(parts)))
    last = trained.snapshots[-1]
    final: dict[str, Any] = _means(last) | _parts(trained.decompositions[-1], every_interval=True)
    if trained.validation is not None:
        for score in ("risk", "error"):
            for end in ("", "_lo", "_hi"):
                final[f"val_{score}{end}"] = trained.validation[score + end]
    for condition, parts in {**trained.shifted, **trained.losses}.items():
        final |= {f"{condition}_{name}": value for name, value in _parts(parts, every_interval=True).items()}
    kept_DINC = _kept(trained, trained.probabilities_DINC)
    final |= trial_scores.scores(kept_DINC, dataset.test.labels, last.diverged_R, level=LEVEL)
    if trained.decompositions[-1] is not None:
        final |= ensemble_risks(task, dataset, trained)
    watched = [step.signals for step in trained.snapshots if step.signals]
    if watched:
        final |= summary(watched[0], watched[-1])
    final |= {
        "n_replicas": trained.replication.n_replicas,
        "n_diverged": int(last.diverged_R.sum()),
        "n_parameters": trained.n_parameters,
        "seconds": trained.seconds,
        "replicas_per_second": trained.replication.n_replicas / trained.seconds,
        **trained.timed,
    }
    if trained.growth is not None:
        final |= trained.growth.metrics()
    for limit in TRAIN_ERRORS:
        reached = [row["epoch"] for row in epochs if row.get("train_error", math.inf) <= limit]
        if reached:
            final[f"epochs_to_train_error_{limit:g}"] = reached[0]
    judged = objectives.values(task.spec["objective"], last.metrics, last.diverged_R, trained.validation)
    for k, value in enumerate(judged):
        final[f"objective_{k}"] = value
    written: dict[str, Any] = {"final": _numbers(final), "epochs": epochs}
    if task.spec.get("prune"):  # what later trials are compared with
        D, objective = trained.replication.n_resamples, task.spec["objective"]
        written["by_resample"] = objectives.by_resample(objective, last.metrics, last.diverged_R, D)
    return written


def ensemble_risks(task: "Task", dataset: "Dataset", trained: Trained) -> dict[str, float]:
    """Return the risk of each kind of ensemble of up to four members: from all replicas, predicted, and measured.

    Names are such as ensemble_same_data_4_risk, see lab.analysis.ensemble.
    """
    from lab.analysis.ensemble import ensembles

    p = trained.probabilities_DINC
    p = np.where(trained.snapshots[-1].diverged_R.reshape(*p.shape[:-2], 1, 1), np.nan, p)
    table = ensembles(p, dataset.test.labels, dataset.test.posterior, seed=task.spec["seed"], level=LEVEL,
                      members=N_MEMBERS)  # fmt: skip
    return {
        f"ensemble_{row['ensemble']}_{row['n_members']}_{column}": row[column]
        for row in table.groupby("ensemble").tail(1).to_dict("records")
        for column in ENSEMBLE_COLUMNS
    }  # fmt: skip


def _means(step: Snapshot) -> dict[str, float]:
    """Return mean and standard deviation over the replicas that did not diverge, of each score on each split."""
    values: dict[str, float] = {}
    for split in SPLITS:
        for score in SCORES:
            alive = _alive(step, f"{split}_{score}")
            alive = alive[np.isfinite(alive)]
            if len(alive):
                values[f"{split}_{score}"] = float(alive.mean())
            if len(alive) > 1:
                values[f"{split}_{score}_sd"] = float(alive.std(ddof=1))
    return values


def _parts(parts: Mapping[str, Any] | None, *, every_interval: bool = False) -> dict[str, Any]:
    """Return the terms of a decomposition on the test set; through training, intervals of the main ones only."""
    if parts is None:
        return {}
    counts = {"n_resamples", "n_inits", "n_noise_draws", "n_replicas", "n_test", "level", "design", "loss"}
    main = ("risk", "bias_sq", "variance", "error")
    return {
        name: value
        for name, value in parts.items()
        if name not in counts and (every_interval or not name.endswith(("_lo", "_hi")) or name[:-3] in main)
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Leave out what was not measured."""
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
