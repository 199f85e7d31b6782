"""Training that takes no time: predictions drawn from the configuration, for tests of what is around training.

Tests in this process put `fit` and `count_parameters` in the place of those of lab.training and register `dataset`.
Study files of tests that start processes define their data set by `from tests.fake_training import fake`: a process
that loads it trains with this module from then on.
"""

import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lab.data.pool import Dataset, Pool, digest_of
from lab.knobs import TrialConfig
from lab.seeds import generator
from lab.spec import Replication
from tests.waiting import until

N_CLASSES = 3
_n_trained = 0  # by this process


@dataclass(frozen=True)
class Evaluation:
    epoch: int
    metrics: dict[str, np.ndarray]
    log_probabilities_test_DINC: np.ndarray
    probabilities_val_DINC: np.ndarray
    diverged_R: np.ndarray
    probabilities_shifted: dict[str, np.ndarray] = field(default_factory=dict)
    signals: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def probabilities_test_DINC(self) -> np.ndarray:
        return np.exp(self.log_probabilities_test_DINC)


def fake(**sizes: Any) -> Dataset:
    """Return a tiny data set, and have this module train in this process."""
    from lab import training

    training.fit, training.count_parameters = fit, count_parameters
    return dataset(**sizes)


def dataset(*, seed: int, n_validation: int | None, n_test: int | None, data_dir: Path | None) -> Dataset:
    """Return a tiny data set without meaning."""
    rng = np.random.default_rng(0)

    def part(n: int) -> Pool:
        return Pool(rng.random((n, 1, 2, 2), dtype=np.float32), np.arange(n, dtype=np.int64) % N_CLASSES)

    pool, validation, test = part(400), part(n_validation or 12), part(n_test or 15)
    return Dataset("fake", ("a", "b", "c"), pool, validation, test, digest_of(pool, validation, test), "made for tests")


def count_parameters(config: TrialConfig, image_shape: tuple[int, ...], n_classes: int) -> int:
    return config.width * config.depth


def fit(
    config: TrialConfig,
    dataset: Dataset,
    replication: Replication,
    *,
    seed: int,
    first_resample: int = 0,
    first_init: int = 0,
    first_noise: int = 0,
    n_evaluations: int = 20,
    device: str = "cpu",
    keep_weights: bool = False,
    resume: Mapping[str, Any] | None = None,
    on_epoch: Callable[[Callable[[], dict[str, Any]]], None] | None = None,
    on_event: Callable[[str], None] | None = None,
    features_in: Path | None = None,
) -> Iterator[Evaluation]:
    """Yield evaluations; the lower |log(learning_rate / 0.01)|, the better. Knobs that make trouble:

    batch_size 13 cannot be built, 17 breaks in training, 19 kills the process every time; momentum 0.5 lets half of the
    replicas diverge, momentum 0.25 all of them. LAB_FAKE_SECONDS is how long a training takes, LAB_FAKE_GATE a file
    for which trainings wait, all but the first LAB_FAKE_FREE of each process. LAB_FAKE_PIDS is a folder where each
    process that trains leaves its pid; if there is a file LAB_FAKE_KILL, the process that trains removes it and kills
    itself.
    """
    n_before = 0 if resume is None else int(resume["n_yielded"])
    if config.batch_size == 13:
        raise ValueError("batch_size 13 cannot be built")
    words = json.dumps(asdict(config), sort_keys=True).encode()
    key = int.from_bytes(hashlib.blake2b(words, digest_size=4).digest(), "little")
    rng = generator(seed, "analysis", key, first_resample, first_init)
    n_replicas = replication.n_replicas
    diverged_R = np.zeros(n_replicas, dtype=bool)
    share = {0.5: 0.5, 0.25: 1.0}.get(config.momentum, 0.0)
    diverged_R[n_replicas - round(share * n_replicas) :] = True
    skill = 2.0 / (1.0 + abs(math.log(config.learning_rate / 0.01)))
    for k, epoch in enumerate((0, config.epochs)):
        if k >= n_before:
            _trouble(config, epoch)
        gone_R = diverged_R & (epoch > 0)
        metrics: dict[str, np.ndarray] = {}
        probabilities: dict[str, np.ndarray] = {}
        for split, labels_N in (("train", dataset.pool.labels[:9]), ("val", dataset.validation.labels),
                                ("test", dataset.test.labels)):  # fmt: skip
            logits = skill * (epoch > 0) * np.eye(N_CLASSES)[labels_N] + rng.normal(
                size=(n_replicas, len(labels_N), N_CLASSES)
            )
            p_RNC = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
            p_RNC[gone_R] = np.nan
            right_RN = p_RNC[:, np.arange(len(labels_N)), labels_N]
            metrics[f"{split}_risk"] = (1 - 2 * right_RN + (p_RNC**2).sum(axis=2)).mean(axis=1)
            metrics[f"{split}_error"] = np.where(gone_R, np.nan, (p_RNC.argmax(axis=2) != labels_N).mean(axis=1))
            metrics[f"{split}_loss"] = -np.log(right_RN).mean(axis=1)
            shape = (replication.n_resamples, replication.n_inits, len(labels_N), N_CLASSES)
            probabilities[split] = p_RNC.reshape(shape).astype(np.float32)
        if k < n_before:  # its random numbers are drawn, the rest was done before
            continue
        if on_epoch is not None:
            on_epoch(lambda k=k: _state(k))  # type: ignore[misc]
        yield Evaluation(epoch, metrics, np.log(probabilities["test"]), probabilities["val"], gone_R)


def _state(n_yielded: int) -> dict[str, Any]:
    import torch

    return {"n_yielded": torch.tensor(n_yielded)}


def _trouble(config: TrialConfig, epoch: int) -> None:
    if "LAB_FAKE_PIDS" in os.environ:
        (Path(os.environ["LAB_FAKE_PIDS"]) / str(os.getpid())).touch()
    if config.batch_size == 17 and epoch:
        raise RuntimeError("broke in training")
    if config.batch_size == 19 and epoch:
        os.kill(os.getpid(), signal.SIGKILL)
    if epoch:
        time.sleep(float(os.environ.get("LAB_FAKE_SECONDS", "0")))
        _wait_at_gate()
    marker = Path(os.environ.get("LAB_FAKE_KILL", "/nowhere/at/all"))
    if marker.exists():
        marker.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_at_gate() -> None:
    global _n_trained
    if "LAB_FAKE_GATE" in os.environ and _n_trained >= int(os.environ.get("LAB_FAKE_FREE", "0")):
        until(Path(os.environ["LAB_FAKE_GATE"]).exists)
    _n_trained += 1
