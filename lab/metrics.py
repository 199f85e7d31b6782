"""The numbers of a trial that are tracked: metrics.json of its outcome."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lab import objectives
from lab.trained import LEVEL, SCORES, SPLITS, Snapshot, Trained, alive, kept

if TYPE_CHECKING:
    from lab.data.pool import Dataset
    from lab.task import Task

TRAIN_ERRORS = (0.1, 0.01)
N_MEMBERS = (2, 4)  # of the ensembles whose risk is tracked: the larger that there are replicas for
ENSEMBLE_COLUMNS = (
    "risk", "risk_lo", "risk_hi", "risk_predicted", "risk_measured", "risk_measured_lo", "risk_measured_hi"
)  # fmt: skip


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
    kept_DINC = kept(trained, trained.probabilities_DINC)
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
                      members=N_MEMBERS, errors=False)  # fmt: skip
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
            value_R = alive(step, f"{split}_{score}")
            value_R = value_R[np.isfinite(value_R)]
            if len(value_R):
                values[f"{split}_{score}"] = float(value_R.mean())
            if len(value_R) > 1:
                values[f"{split}_{score}_sd"] = float(value_R.std(ddof=1))
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
