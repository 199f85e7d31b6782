"""Which trials are trained together, in one pack: those whose networks have one shape, or differ in width alone.

Only numbers and choices that change no tensor's shape and no operation may differ, and on a GPU the width; what a trial
gives does not depend on its company (tests/training/test_packs.py, test_widths.py). Knows no torch: the coordinator
asks it.
"""

import dataclasses
from typing import Any

from lab.knobs import FAMILIES, TrialConfig
from lab.task import Task

OWN_KNOBS = frozenset(
    {
        "dropout", "spatial_dropout", "init_scheme", "init_gain", "learning_rate", "momentum", "nesterov",
        "weight_decay", "schedule", "clip_norm", "patience", "label_noise", "noisy_targets", "label_smoothing",
        "focal_gamma", "l1", "ema_decay", "swa_start", "epsilon", "attack_epsilon",
    }
)  # fmt: skip
SWITCHES = ("label_smoothing", "attack_epsilon")  # of these, without which an operation is left out

# of one pack on a GPU: a step of a small network is all launches, so company is free until arithmetic fills the device
GPU_REPLICAS = {"mlp": 1024}
GPU_REPLICAS_OTHERS = 128


def shape_of(config: TrialConfig) -> tuple[Any, ...]:
    """Return what has to be equal for two configurations to be trained in one pack.

    A module of the study file may depend on any knob, so there it is all of them.
    """
    values = dataclasses.asdict(config)
    if config.family not in FAMILIES:
        return tuple(values.values())
    switches = [values[name] > 0 for name in SWITCHES]
    return (*switches, *(value for name, value in sorted(values.items()) if name not in OWN_KNOBS))


def fills_up(config: TrialConfig) -> bool:
    """Return whether a network, filled up with zeros to a larger width, trains as alone.

    So do perceptrons of which a unit of zeros gives 0: not `sigmoid`; nor layer and group norm, which take means over
    units; nor where a layer adds its input if that has as many units. After batch norm they would but for the biases
    before it: their gradients are 0 but for rounding, which Adam makes grow. A file to start from is of one width, and
    what is frozen is drawn elsewhere. It is true of cnn and resnet as well (tests/training/test_padding.py), which are
    left alone as they are bound by arithmetic sooner.
    """
    return (
        config.family == "mlp"
        and config.activation != "sigmoid"
        and config.norm == "none"
        and config.residual != "on"
        and not config.weights
        and not config.frozen
    )


def form_of(config: TrialConfig) -> tuple[Any, ...]:
    """Return what has to be equal for two configurations to be trained in one pack, the narrower filled up."""
    return shape_of(dataclasses.replace(config, width=1) if fills_up(config) else config)


def most_replicas(task: Task) -> int:
    """Return how many replicas are trained together at the most: one trial's own, except on a GPU."""
    if not task.device.startswith("cuda"):
        return task.replication.n_replicas
    return GPU_REPLICAS.get(task.config["family"], GPU_REPLICAS_OTHERS)
