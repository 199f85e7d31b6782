"""A job: one trial to train. Jobs whose networks have the same shape share a pack."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from lab.knobs import TrialConfig
from lab.spec import Replication

# knobs in which the replicas of a pack may differ: numbers and choices that change no tensor's shape and no operation
OWN_KNOBS = frozenset(
    {
        "dropout", "init_scheme", "init_gain", "learning_rate", "momentum", "nesterov", "weight_decay", "schedule",
        "clip_norm", "patience", "label_noise", "noisy_targets", "label_smoothing", "focal_gamma", "l1", "ema_decay",
        "swa_start", "epsilon", "attack_epsilon",
    }
)  # fmt: skip
SWITCHES = ("label_smoothing", "attack_epsilon")  # of these, without which an operation is left out


@dataclass(frozen=True)
class Job:
    """The replicas of one configuration: r = d·I + i has resample `first_resample + d`, init `first_init + i`."""

    config: TrialConfig
    replication: Replication
    first_resample: int = 0
    first_init: int = 0


def shape_of(config: TrialConfig) -> tuple[Any, ...]:
    """Return what has to be equal for two configurations to be trained in one pack."""
    values = dataclasses.asdict(config)
    switches = [values[name] > 0 for name in SWITCHES]
    return (*switches, *(value for name, value in sorted(values.items()) if name not in OWN_KNOBS))
