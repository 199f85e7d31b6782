"""Run histories made of formulas: the report is tested on them without training anything.

The shapes are those of a real sweep: bias² falls with capacity, variance peaks where training error reaches 0,
training error falls through the epochs, and every metric carries an interval.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.signals import COLUMNS
from lab.errors import StorageError
from lab.history import Artifacts, Examples, History, Predictions
from lab.knobs import TrialConfig
from lab.spec import Choice, Float, Int, Replication, Study
from lab.storage import Home

KINDS = ("healthy", "posterior", "one_trial", "all_diverged", "partial", "large")
EPOCHS = (0, 1, 2, 3, 5, 8, 12, 18, 26, 36, 48, 60)
START = 1_780_000_000.0  # a fixed moment: reports must not depend on the clock

STUDY = Study(
    question="Does variance rise, then fall, as a network grows?",
    data="digits",
    space={
        "depth": Int(1, 4, role="scientific"),
        "width": Int(4, 256, log=True, role="scientific"),
        "learning_rate": Float(3e-4, 3e-2, log=True),
        "batch_size": Choice(16, 32, 64),
        "dropout": Float(0.0, 0.5),
        "weight_decay": Float(1e-6, 1e-2, log=True),
        "init_scheme": Choice("he_normal", "xavier_uniform", "orthogonal"),
        "init_gain": Float(0.5, 2.0, log=True),
    },
    fixed={"family": "mlp", "activation": "relu", "epochs": 60, "n_train": 150},
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=4),
)


@dataclass(frozen=True)
class SyntheticHistory(History):
    """A run history without files: predictions are drawn when asked for."""

    has_predictions: bool = True

    def predictions(self, key: str) -> Predictions:
        if not self.has_predictions:
            raise StorageError(f"predictions.npz of {key} is missing")
        rng = np.random.default_rng(11)
        labels = np.arange(400) % 10
        strength = 1.5 + 2.0 * (np.arange(10) / 10)  # class 0 is hardest
        logits = rng.normal(0, 1.0, (1, 1, 400, 10)) + rng.normal(0, 0.7, (8, 4, 400, 10))
        logits[:, :, np.arange(400), labels] += strength[labels]
        logits[:, :, np.arange(400), (labels + 1) % 10] += 0.8
        p = np.exp(logits)
        p = (p / p.sum(-1, keepdims=True)).astype(np.float32)
        p[:, :, 7] = 0.01 + 0.9 * np.eye(10)[3]  # all replicas are sure of another class: a label to check
        return Predictions(p, labels, None)

    def signals(self, key: str) -> pd.DataFrame:
        return pd.DataFrame(columns=list(COLUMNS))

    def examples(self, key: str) -> Examples | None:
        if not key.startswith("confirm"):
            return None
        index = [*range(0, 400, 2), 7]
        return Examples(np.array(index), np.random.default_rng(5).integers(0, 255, (len(index), 1, 8, 8), np.uint8))


def synthetic_history(kind: str = "healthy", *, seed: int = 0) -> SyntheticHistory:
    """Return the run history of a synthetic study of one of `KINDS`."""
    assert kind in KINDS, kind
    n_trials = {"one_trial": 1, "large": 200, "partial": 7}.get(kind, 40)
    rng = np.random.default_rng(seed)
    rows, epochs, replicas = [], [], []
    plan = [("explore", number, _config(rng, number)) for number in range(n_trials)]
    if kind in ("healthy", "posterior", "large"):
        best = TrialConfig(family="mlp", depth=2, width=96, learning_rate=4e-3, dropout=0.1, n_train=150)
        plan.append(("confirm", 0, best))
        sizes = [150, 106, 75, 53, 38, 27]
        plan += [("learning_curve", k, dataclasses.replace(best, n_train=size)) for k, size in enumerate(sizes)]
    for position, (phase, number, config) in enumerate(plan):
        diverged = 32 if kind == "all_diverged" else (32 if position == 5 else 3 if position == 9 else 0)
        row, per_epoch, per_replica = _run(rng, phase, number, config, diverged, position, kind == "posterior")
        rows.append(row)
        epochs.append(per_epoch)
        replicas.append(per_replica)
    study = dataclasses.replace(STUDY, n_trials=40 if kind != "large" else 200)
    return SyntheticHistory(
        study="capacity_sweep",
        spec=study.to_dict(),
        data={
            "name": "digits", "digest": "5f8e" * 16, "source": "UCI optical digits, shipped with scikit-learn",
            "n_pool": 1297, "n_validation": 200, "n_test": 400, "class_names": [str(c) for c in range(10)],
            "has_posterior": kind == "posterior", "image_shape": [1, 8, 8],
        },
        environment={
            "python": "3.12.4", "platform": "Linux-6.1-x86_64", "torch": "2.10.0", "numpy": "2.3.1", "device": "cpu",
            "n_threads": 2, "lab": "0.1.0", "git_commit": "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334",
        },
        trials=pd.DataFrame(rows),
        epochs=pd.concat(epochs, ignore_index=True),
        replicas=pd.concat(replicas, ignore_index=True),
        artifacts=Artifacts({}, "capacity_sweep", Home(Path("nowhere"))),
    )  # fmt: skip


def _config(rng: np.random.Generator, number: int) -> TrialConfig:
    u = rng.random(8).tolist()
    return TrialConfig(
        family="mlp",
        depth=1 + int(u[0] * 4),
        width=round(4 * 64 ** u[1]),
        learning_rate=3e-4 * 100 ** u[2],
        batch_size=(16, 32, 64)[int(u[3] * 3)],
        dropout=0.5 * u[4],
        weight_decay=1e-6 * 1e4 ** u[5],
        init_scheme=("he_normal", "xavier_uniform", "orthogonal")[number % 3],
        init_gain=0.5 * 4 ** u[7],
        epochs=60,
        n_train=150,
    )


def _n_parameters(config: TrialConfig) -> int:
    return 64 * config.width + (config.depth - 1) * config.width**2 + config.width * 10 + 10


def _parts(config: TrialConfig, progress: np.ndarray, noise: float) -> dict[str, np.ndarray]:
    """Return bias², the three variances and the training risk, at each fraction of the training done."""
    capacity = np.log10(_n_parameters(config)) - 2.4
    rate = np.clip(np.log10(config.learning_rate / 3e-4) / 2, 0, 1)
    speed = 1 - np.exp(-(2.5 + 6 * rate) * progress)
    size = (150 / config.n_train) ** 0.6
    bias = 0.9 * (1 - speed) + speed * (0.03 + 0.35 * np.exp(-1.3 * capacity)) * (1 + 0.3 * config.dropout)
    bias = bias * (150 / config.n_train) ** 0.2 + (0.0 if noise else 0.01)
    peak = np.exp(-((capacity - 1.0) ** 2) / 0.5)
    variance = speed * (0.05 + 0.13 * peak) * size * (1 - 0.5 * config.dropout) * (1 + 0.3 * progress)
    train = 0.9 * (1 - speed) + 0.3 * np.exp(-2.2 * capacity) * speed
    return {"bias_sq": bias, "variance": variance, "train": train}


def _run(
    rng: np.random.Generator, phase: str, number: int, config: TrialConfig, diverged: int, position: int, known: bool
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    noise = 0.04 if known else 0.0
    progress = np.asarray(EPOCHS) / EPOCHS[-1]
    parts = _parts(config, progress, noise)
    jitter = 1 + 0.04 * rng.normal(size=2)
    table: dict[str, Any] = {"epoch": np.asarray(EPOCHS)}
    bias, variance = parts["bias_sq"] * jitter[0], parts["variance"] * jitter[1]
    resample, interaction = 0.55 * variance, 0.3 * variance
    init = variance - resample - interaction
    if number == 3:  # a negative component, as happens near the interpolation peak
        init, interaction = init - 0.25 * variance, interaction + 0.25 * variance
    risk = bias + variance + noise
    terms = {
        "risk": risk, "bias_sq": bias, "variance": variance, "variance_resample": resample, "variance_init": init,
        "variance_interaction": interaction, "error": 0.62 * risk,
    }  # fmt: skip
    if known:
        terms["noise"] = np.full_like(risk, noise)
    for name, value in terms.items():
        half = np.zeros_like(value) if name == "noise" else 0.12 * np.abs(value) + 0.002
        table |= {name: value, f"{name}_lo": value - half, f"{name}_hi": value + half}
    train = parts["train"]
    for split, level in (("train", train), ("val", risk * 1.02), ("test", risk)):
        table |= {f"{split}_risk": level, f"{split}_risk_sd": 0.1 * level + 0.002, f"{split}_error": 0.6 * level}
        table |= {f"{split}_error_sd": 0.06 * level + 0.002, f"{split}_loss": 1.8 * level + 0.05 * level * progress}
        table |= {f"{split}_loss_sd": 0.2 * level + 0.003}
    key = f"{phase}-{number:04d}"
    per_epoch = pd.DataFrame(table)
    names = [c for c in per_epoch.columns if c != "epoch"]
    if diverged == 32:
        per_epoch.loc[per_epoch["epoch"] > 1, names] = np.nan
    per_epoch.insert(0, "number", number)
    per_epoch.insert(0, "phase", phase)
    per_epoch.insert(0, "key", key)
    replica = np.arange(32)
    grid = pd.MultiIndex.from_product([EPOCHS, replica], names=["epoch", "replica"]).to_frame(index=False)
    grid["resample"], grid["init"] = grid["replica"] // 4, grid["replica"] % 4
    grid["diverged"] = (grid["replica"] < diverged) & (grid["epoch"] > 1)
    wobble = 1 + 0.1 * rng.normal(size=32)
    for split in ("train", "val", "test"):
        for metric in ("loss", "risk", "error"):
            mean = per_epoch[f"{split}_{metric}"].to_numpy()
            grid[f"{split}_{metric}"] = (mean[:, None] * wobble[None, :]).ravel()
    measured = [c for c in grid.columns if c.split("_")[0] in ("train", "val", "test")]
    grid.loc[grid["diverged"], measured] = np.nan
    grid.insert(0, "number", number)
    grid.insert(0, "phase", phase)
    grid.insert(0, "key", key)
    last = per_epoch.iloc[-1]
    row: dict[str, Any] = {
        "key": key, "phase": phase, "number": number, "run_id": f"{position:032x}",
        "outcome": "diverged" if diverged else "finished",
        "started": START + 4.0 * position, "finished": START + 4.0 * position + 3.5,
        **dataclasses.asdict(config), "level": 0.95,
        **{name: float(last[name]) for name in names},
        "n_replicas": 32.0 - diverged, "n_diverged": float(diverged), "n_parameters": float(_n_parameters(config)),
        "n_resamples": 8.0, "n_inits": 4.0, "n_test": 400.0,
        "seconds": 3.5, "replicas_per_second": 32 / 3.5,
    }  # fmt: skip
    for split in ("train", "val", "test"):
        for metric in ("risk", "error"):
            mean, sd = row[f"{split}_{metric}"], row[f"{split}_{metric}_sd"]
            row |= {f"{split}_{metric}_lo": mean - 0.4 * sd, f"{split}_{metric}_hi": mean + 0.4 * sd}
    row["objective_0"] = 2.0 if diverged == 32 else row["val_risk"]
    return row, per_epoch, grid
