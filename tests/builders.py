"""Small synthetic outcomes of trials, written as a worker writes them: for tests of what comes after training.

`write_outcome` makes one outcome directory, `write_study` a whole study (explore, confirm, learning curve). Predictions
are random but shaped like real ones: bias² falls with capacity and training-set size, variance has a peak in between.
All that is derived from them (curves, decomposition, metrics) is computed from them, by a short second implementation
of the crossed estimator that shares nothing with `lab.analysis`. Needs numpy and pandas only.

Shapes: D resamples, I initialisations, R = D·I replicas, N test points, C classes, E evaluated epochs.
"""

import dataclasses
import hashlib
import io
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.knobs import TrialConfig
from lab.spec import Choice, Float, Int, Replication, Study

STARTED = 1_700_000_000.0  # 14 November 2023: fixed, so that what is built is the same on every day
COMPONENTS = ("bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction")


def study_spec(**changes: Any) -> Study:
    """Return a study like studies/capacity_sweep.py, with fields changed."""
    fields: dict[str, Any] = dict(
        question="Does variance rise, then fall, as a network grows?",
        data="digits",
        space=dict(
            depth=Int(1, 4, role="scientific"),
            width=Int(4, 256, log=True, role="scientific"),
            learning_rate=Float(3e-4, 3e-2, log=True),
            batch_size=Choice(16, 32, 64),
            dropout=Float(0.0, 0.5),
            weight_decay=Float(1e-6, 1e-2, log=True),
            init_scheme=Choice("he_normal", "xavier_uniform", "orthogonal"),
            init_gain=Float(0.5, 2.0, log=True),
        ),
        fixed=dict(family="mlp", activation="relu", epochs=60, n_train=150),
        replication=Replication(scheme="disjoint", n_resamples=4, n_inits=3),
        n_trials=6,
    )
    return Study(**(fields | changes))


def random_config(spec: Study, number: int) -> TrialConfig:
    """Return the configuration that trial `number` stands for: drawn from the space, the same at every call."""
    rng = np.random.default_rng([7, number])
    return spec.config({name: domain.at(float(rng.random())) for name, domain in spec.space.items()})


def random_probabilities(
    config: TrialConfig, replication: Replication, labels_N: np.ndarray, n_classes: int, seed: int
) -> np.ndarray:
    """Return predictions (D, I, N, C) float32 of replicas whose errors have a common, a data and a seed part."""
    rng = np.random.default_rng([11, seed])
    n_resamples, n_inits, n_test = replication.n_resamples, replication.n_inits, len(labels_N)
    capacity = math.log2(max(config.width, 2)) + config.depth
    fit = 0.3 + 0.25 * capacity + 0.7 * math.log2(config.n_train / 150 + 0.1)
    spread = 0.3 + 1.4 * math.exp(-0.5 * ((capacity - 6) / 1.8) ** 2)
    hardness = np.random.default_rng(5).standard_normal((n_test, n_classes))  # of the points: shared by all trials
    logits = fit * np.eye(n_classes)[labels_N] + 1.2 * hardness
    logits = logits + spread * (
        0.8 * rng.standard_normal((n_resamples, 1, n_test, n_classes))
        + 0.5 * rng.standard_normal((1, n_inits, n_test, n_classes))
        + 0.4 * rng.standard_normal((n_resamples, n_inits, n_test, n_classes))
    )
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)


def _components(gram_RR: np.ndarray, hit_R: np.ndarray, resample_R: np.ndarray, init_R: np.ndarray) -> dict[str, float]:
    """Return risk and its parts by the pair form of the crossed estimator (any set of cells)."""
    same_d, same_i = resample_R[:, None] == resample_R, init_R[:, None] == init_R

    def mean(pairs: np.ndarray) -> float:
        return float(gram_RR[pairs].mean()) if pairs.any() else math.nan

    own, apart = mean(same_d & same_i), mean(~same_d & ~same_i)
    shared_d, shared_i = mean(same_d & ~same_i), mean(~same_d & same_i)
    risk = 1 - 2 * float(hit_R.mean()) + own
    return {
        "risk": risk,
        "bias_sq": risk - (own - apart),
        "variance": own - apart,
        "variance_resample": shared_d - apart,
        "variance_init": shared_i - apart,
        "variance_interaction": own - shared_d - shared_i + apart,
    }


def decomposition(
    probabilities_DINC: np.ndarray, labels_N: np.ndarray, posterior_NC: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the flat dictionary of a decomposition, with delete-one-resample intervals; NaN replicas are left out."""
    n_resamples, n_inits, n_test, n_classes = probabilities_DINC.shape
    flat_RNC = probabilities_DINC.reshape(-1, n_test, n_classes).astype(np.float64)
    keep_R = np.isfinite(flat_RNC).all(axis=(1, 2))
    flat_RNC = flat_RNC[keep_R]
    resample_R = np.repeat(np.arange(n_resamples), n_inits)[keep_R]
    init_R = np.tile(np.arange(n_inits), n_resamples)[keep_R]
    rows = flat_RNC.reshape(len(flat_RNC), -1)
    gram_RR = rows @ rows.T / n_test
    hit_R = flat_RNC[:, np.arange(n_test), labels_N].mean(axis=1)
    error_R = (flat_RNC.argmax(axis=2) != labels_N).mean(axis=1)
    noise = None if posterior_NC is None else float(np.mean(1 - (posterior_NC**2).sum(axis=1)))

    def estimate(keep: np.ndarray) -> dict[str, float]:
        parts = _components(gram_RR[np.ix_(keep, keep)], hit_R[keep], resample_R[keep], init_R[keep])
        parts["bias_sq"] -= noise or 0.0
        return parts | {"error": float(error_R[keep].mean())}

    point = estimate(np.ones(len(rows), bool))
    without = [estimate(resample_R != d) for d in range(n_resamples)]
    result: dict[str, Any] = {}
    for name, value in point.items():
        left_out = np.array([part[name] for part in without])
        half = 2.0 * math.sqrt((n_resamples - 1) * float(np.var(left_out)))
        result |= {name: value, f"{name}_lo": value - half, f"{name}_hi": value + half}
    result |= {"noise": noise, "noise_lo": noise, "noise_hi": noise}
    counts = {"n_resamples": n_resamples, "n_inits": n_inits, "n_replicas": int(keep_R.sum()), "n_test": n_test}
    return result | counts | {"level": 0.95}


def _scores(probabilities_RNC: np.ndarray, labels_N: np.ndarray) -> dict[str, np.ndarray]:
    right_RN = probabilities_RNC[:, np.arange(len(labels_N)), labels_N]
    squares_RN = (probabilities_RNC**2).sum(axis=2)
    return {
        "loss": -np.log(np.clip(right_RN, 1e-12, None)).mean(axis=1),
        "risk": (1 - 2 * right_RN + squares_RN).mean(axis=1),
        "error": (probabilities_RNC.argmax(axis=2) != labels_N).mean(axis=1).astype(float),
    }


def write_outcome(
    directory: Path,
    *,
    study: str = "capacity_sweep",
    phase: str = "explore",
    number: int = 0,
    config: TrialConfig | None = None,
    spec: Study | None = None,
    replication: Replication | None = None,
    status: str = "finished",
    reason: str | None = None,
    probabilities_DINC: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    posterior_NC: np.ndarray | None = None,
    n_test: int = 40,
    n_classes: int = 3,
    n_diverged: int = 0,
    n_evaluations: int = 6,
    seed: int = 0,
    attempt: int = 1,
    started: float | None = None,
) -> Path:
    """Write the outcome of one trial to `directory/<phase>-<number>` and return that path.

    The last `n_diverged` replicas are NaN from the second evaluated epoch on (status "diverged"). An outcome with
    status "infeasible" or "failed" has config.json, environment.json and a reason. `probabilities_DINC` and
    `labels_N` replace the random predictions; earlier epochs are blends of them with the uniform distribution.
    """
    spec = spec or study_spec()
    config = config or random_config(spec, number)
    replication = replication or spec.replication
    status = "diverged" if n_diverged and status == "finished" else status
    trained = status in ("finished", "diverged")
    if not trained:
        reason = reason or "batch_size 64 needs 64 examples, n_train is 40"
    key = f"{phase}-{number:04d}"
    target = directory / key
    target.mkdir(parents=True)
    if labels_N is None:
        labels_N = np.random.default_rng(3).integers(n_classes, size=n_test)
    if probabilities_DINC is None:
        probabilities_DINC = random_probabilities(config, replication, labels_N, n_classes, seed * 100_003 + number)
    n_resamples, n_inits, n_test, n_classes = probabilities_DINC.shape
    first = n_resamples if phase != "explore" else 0
    started = STARTED + 10.0 * number if started is None else started
    files: dict[str, bytes] = {}

    def put(name: str, value: Any) -> None:
        files[name] = (json.dumps(value, indent=1) + "\n").encode()

    put("environment.json", {
        "python": "3.12.1", "platform": "Linux", "torch": "2.11.0", "numpy": "2.4.0", "device": "cpu",
        "n_threads": 1, "lab": "0.1.0", "git_commit": None,
    })  # fmt: skip
    put("config.json", {
        "study": study, "spec": spec.to_dict(), "phase": phase, "number": number,
        "config": dataclasses.asdict(config), "replication": dataclasses.asdict(replication),
        "first_resample": first, "first_init": n_inits if first else 0, "seed": spec.seed,
        "n_parameters": n_parameters(config, n_classes) if trained else None,
        "image_shape": [1, 8, 8], "device": "cpu",
        "data": {
            "name": spec.data, "digest": hashlib.sha256(spec.data.encode()).hexdigest(), "source": "made for tests",
            "n_pool": 1200, "n_validation": 237, "n_test": n_test,
            "class_names": [str(c) for c in range(n_classes)], "has_posterior": posterior_NC is not None,
        },
    })  # fmt: skip
    if trained:
        _put_results(files, config, probabilities_DINC, labels_N, posterior_NC, n_diverged, n_evaluations, first)
        if phase == "confirm":
            kept = io.BytesIO()
            images_KCHW = np.random.default_rng(9).integers(0, 256, (n_test, 1, 8, 8), np.uint8)
            np.savez_compressed(kept, index_K=np.arange(n_test), images_KCHW=images_KCHW)
            files["examples.npz"] = kept.getvalue()
    for name, content in files.items():
        (target / name).write_bytes(content)
    manifest = {
        "format": 1, "study": study, "key": key, "phase": phase, "number": number, "attempt": attempt,
        "status": status, "reason": reason, "started": started, "finished": started + 4.0,
        "files": {n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in files.items()},
    }  # fmt: skip
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return target


def _put_results(
    files: dict[str, bytes],
    config: TrialConfig,
    probabilities_DINC: np.ndarray,
    labels_N: np.ndarray,
    posterior_NC: np.ndarray | None,
    n_diverged: int,
    n_evaluations: int,
    first: int,
) -> None:
    """Add curves.parquet, predictions.npz, decomposition.json and metrics.json of a trained trial to `files`."""
    n_resamples, n_inits, n_test, n_classes = probabilities_DINC.shape
    n_replicas = n_resamples * n_inits
    epochs = sorted({0, *np.geomspace(1, config.epochs, n_evaluations - 1).round().astype(int).tolist()})
    diverged_R = np.arange(n_replicas) >= n_replicas - n_diverged
    final_RNC = probabilities_DINC.reshape(n_replicas, n_test, n_classes).astype(np.float64)
    frames, per_epoch, decompositions = [], [], []
    for step, epoch in enumerate(epochs):
        learnt = 1 - math.exp(-4 * epoch / config.epochs)
        now_RNC = learnt * final_RNC + (1 - learnt) / n_classes
        test = _scores(now_RNC, labels_N)
        val = _scores(np.roll(now_RNC, 1, axis=0), labels_N)
        train = _scores(now_RNC, np.where(np.arange(n_test) % 5 < 4 * learnt, now_RNC[0].argmax(axis=1), labels_N))
        gone_R = diverged_R & (step > 0)
        replicas = {"epoch": epoch, "replica": np.arange(n_replicas)}
        replicas |= {"resample": np.arange(n_replicas) // n_inits + first, "init": np.arange(n_replicas) % n_inits}
        replicas |= {"diverged": gone_R}
        row: dict[str, Any] = {"epoch": epoch}
        for split, scores in (("train", train), ("val", val), ("test", test)):
            for name, score_R in scores.items():
                score_R = np.where(gone_R, np.nan, score_R)
                replicas[f"{split}_{name}"] = score_R
                row[f"{split}_{name}"] = float(np.nanmean(score_R))
                row[f"{split}_{name}_sd"] = float(np.nanstd(score_R, ddof=1))
        frames.append(pd.DataFrame(replicas))
        now_RNC = np.where(gone_R[:, None, None], np.nan, now_RNC)
        parts = decomposition(now_RNC.reshape(probabilities_DINC.shape), labels_N, posterior_NC)
        decompositions.append({"epoch": epoch} | parts)
        per_epoch.append(row | _numbers({k: v for k, v in parts.items() if not k.startswith("n_") and k != "level"}))
    last = {k: v for k, v in decompositions[-1].items() if k != "epoch"}
    final = {k: v for k, v in per_epoch[-1].items() if k != "epoch"}
    final |= {f"val_{end}": final[f"val_{end[:-3]}"] + sign * 0.02
              for end, sign in (("risk_lo", -1), ("risk_hi", 1), ("error_lo", -1), ("error_hi", 1))}  # fmt: skip
    final |= {
        "n_replicas": n_replicas, "n_diverged": n_diverged, "n_parameters": n_parameters(config, n_classes),
        "seconds": 3.5, "replicas_per_second": n_replicas / 3.5, "objective_0": final["val_risk"],
    }  # fmt: skip
    for limit in (0.1, 0.01):
        reached = [row["epoch"] for row in per_epoch if row["train_error"] <= limit]
        final |= {f"epochs_to_train_error_{limit:g}": reached[0]} if reached else {}
    if n_diverged:  # a diverged replica counts in the objective with the worst Brier score
        final["objective_0"] = (final["val_risk"] * (n_replicas - n_diverged) + 2.0 * n_diverged) / n_replicas
    parquet, npz = io.BytesIO(), io.BytesIO()
    pd.concat(frames, ignore_index=True).to_parquet(parquet, index=False)
    stored = np.where(diverged_R[:, None, None], np.nan, final_RNC).reshape(probabilities_DINC.shape)
    arrays = {"probabilities_DINC": stored.astype(np.float32), "labels_N": labels_N.astype(np.int64)}
    np.savez_compressed(npz, **arrays, **({} if posterior_NC is None else {"posterior_NC": posterior_NC}))
    files["curves.parquet"], files["predictions.npz"] = parquet.getvalue(), npz.getvalue()
    tables = {
        "decomposition.json": {"level": 0.95, "final": last, "validation": last, "epochs": decompositions},
        "metrics.json": {"final": _numbers(final), "epochs": per_epoch},
    }
    files |= {name: (json.dumps(table, indent=1) + "\n").encode() for name, table in tables.items()}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def write_study(
    directory: Path,
    *,
    study: str = "capacity_sweep",
    n_explore: int = 6,
    n_infeasible: int = 0,
    **options: Any,
) -> list[Path]:
    """Write a whole study under `directory`: explore trials, one confirmation, one outcome a learning-curve size.

    The last `n_infeasible` explore trials are infeasible. `options` go to `write_outcome`.
    """
    spec = options.pop("spec", None) or study_spec(n_trials=n_explore)
    options |= {"study": study, "spec": spec}
    paths = []
    for number in range(n_explore):
        status = "infeasible" if number >= n_explore - n_infeasible else "finished"
        paths.append(write_outcome(directory, number=number, status=status, **options))
    best = random_config(spec, 0)
    paths.append(write_outcome(directory, phase="confirm", number=0, config=best, **options))
    for number, size in enumerate(spec.learning_curve):
        config = dataclasses.replace(best, n_train=max(2, round(size * best.n_train)))
        paths.append(write_outcome(directory, phase="learning_curve", number=number, config=config, **options))
    return paths


def n_parameters(config: TrialConfig, n_classes: int) -> int:
    """Return the number of parameters of the dense network on 8 × 8 images."""
    sizes = [64, *[config.width] * config.depth, n_classes]
    return sum((a + 1) * b for a, b in pairwise(sizes))
