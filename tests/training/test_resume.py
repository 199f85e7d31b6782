"""A training that was interrupted and taken up again ends with the bits of one that was not."""

import contextlib
import dataclasses
import itertools

import pytest
import torch

from lab import training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.spec import Replication

CONFIG = TrialConfig(width=12, depth=2, epochs=12, n_train=30, batch_size=8, learning_rate=0.03)
REPLICATION = Replication(scheme="bootstrap", n_resamples=3, n_inits=2)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=20)


def interrupted(fit, kill_at):
    """Return what was yielded before a kill after the k-th epoch of a crew, and the state then, None if it ended."""
    calls, yielded, state = 0, [], None

    def kill(current):
        nonlocal calls, state
        calls += 1
        if calls == kill_at:
            state = {name: value.clone() for name, value in current().items()}
            raise Killed

    with contextlib.suppress(Killed):
        for evaluation in fit(on_epoch=kill):
            yielded.append(evaluation)
    return yielded, state


def same(first, second):
    assert first.epoch == second.epoch
    assert first.probabilities_test_DINC.tobytes() == second.probabilities_test_DINC.tobytes()
    assert first.probabilities_val_DINC.tobytes() == second.probabilities_val_DINC.tobytes()
    assert first.diverged_R.tolist() == second.diverged_R.tolist()
    for field in ("metrics", "signals", "probabilities_shifted"):
        assert getattr(first, field).keys() == getattr(second, field).keys()
        for name, values in getattr(first, field).items():
            assert values.tobytes() == getattr(second, field)[name].tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw", "weight_decay": 0.1, "dropout": 0.3, "norm": "batch", "schedule": "cosine"},
        {"optimizer": "sgd", "family": "cnn", "clip_norm": 0.5},
        {"patience": 1},
        {"averaging": "ema", "norm": "batch", "adversarial": "fgsm", "l1": 1e-3, "patience": 2, "attack_epsilon": 0.1},
        {"averaging": "swa", "loss": "focal", "class_weights": "balanced", "label_smoothing": 0.1},
        {"optimizer": "sgd", "learning_rate": 0.2, "activation": "leaky_relu", "init_gain": 3.0},  # some diverge
    ],
    ids=lambda change: ",".join(change),
)
@pytest.mark.parametrize("pack_size", [None, 4])
def test_training_taken_up_again_after_any_epoch_has_the_same_bits(digits, change, pack_size):
    config = dataclasses.replace(CONFIG, **change)

    def fit(**options):
        return training.fit(config, digits, REPLICATION, seed=1, n_evaluations=6, pack_size=pack_size, **options)

    whole = list(fit())
    for kill_at in itertools.count(1, 2):
        yielded, state = interrupted(fit, kill_at)
        if state is None:
            break
        rest = list(fit(resume=state))
        assert len(yielded) + len(rest) == len(whole)
        for evaluation, expected in zip([*yielded, *rest], whole, strict=True):
            same(evaluation, expected)
    assert kill_at > 4


def test_a_state_is_tensors_by_name_that_safetensors_can_hold(digits, tmp_path):
    from safetensors.torch import load_file, save_file

    states = []
    config = dataclasses.replace(CONFIG, patience=1, norm="batch")

    def write(state):
        save_file(state(), tmp_path / "state.safetensors")
        states.append(load_file(tmp_path / "state.safetensors"))

    whole = list(training.fit(config, digits, REPLICATION, seed=1, n_evaluations=6, on_epoch=write))
    assert all(isinstance(value, torch.Tensor) for value in states[-1].values())
    *_, last = training.fit(config, digits, REPLICATION, seed=1, n_evaluations=6, resume=states[len(states) // 2])
    same(last, whole[-1])
