"""The files of an outcome: what a trial measured, as bytes by file name.

request (config.json), environment, curves (parquet), decomposition, predictions (npz), metrics: one function each.

Legend: D resamples, I initialisations, R = D·I replicas (replica r = d·I + i), N points, C classes.
"""

import contextlib
import functools
import io
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lab
from lab import weights
from lab.metrics import metrics
from lab.trained import LEVEL, SCORES, SPLITS, Trained, alive, kept

if TYPE_CHECKING:
    from lab.data.pool import Dataset
    from lab.replication import Replication
    from lab.task import Task

OTHER_LOSSES = ("cross_entropy", "zero_one")  # decomposed at the end, beside the Brier score
N_EXAMPLES = 24  # of the hardest test images, by bias² and by variance each


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
    content, left_out = weights.of_trial(task, trained)
    if left_out is not None:
        note(left_out)
    return files if content is None else files | {weights.FILE: content}


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


def environment(task: "Task") -> dict[str, Any]:
    """Return what it ran on, and how it was asked for."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(task.device) if task.device.startswith("cuda") else task.device,
        "n_threads": torch.get_num_threads(),
        "lab": lab.__version__,
        "git_commit": _git_commit(),
        "asked": dict(task.asked),
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
            columns[name] = np.concatenate([alive(step, name) for step in trained.snapshots])
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
    """Return the final predictions on the test set, those of diverged replicas NaN, see `lab.trained.kept`.

    Log probabilities in float32: what is nearly impossible still has its cross-entropy. They are not compressed: that
    took off 23 % alone, in 14.9 ms instead of 0.7 (32 replicas, 400 points, 10 classes; means of n = 12 trials, AMD
    EPYC of family 25).
    """
    log_p_DINC = kept(trained, trained.log_probabilities_DINC.astype(np.float32))
    arrays = {"log_probabilities_DINC": log_p_DINC, "labels_N": dataset.test.labels}
    if dataset.test.posterior is not None:
        arrays["posterior_NC"] = dataset.test.posterior
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def per_class(dataset: "Dataset", trained: Trained) -> dict[str, Any]:
    """Return precision, recall and F1 of each class, with intervals, as columns and rows."""
    from lab.analysis import classification

    kept_DINC = kept(trained, trained.probabilities_DINC)
    return classification.plain(
        classification.per_class(kept_DINC, dataset.test.labels, class_names=dataset.class_names, level=LEVEL)
    )


def examples(task: "Task", dataset: "Dataset", trained: Trained) -> bytes | None:
    """Return the test images with the highest bias² and with the highest variance, as 8-bit ones; None without any.

    Of convolutional networks also where in them the replicas see the class that most of them call (lab.training.cam).
    """
    from lab.analysis.examples import per_example

    table = per_example(kept(trained, trained.probabilities_DINC), dataset.test.labels, dataset.test.posterior)
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
