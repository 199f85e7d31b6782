"""A job: one trial to train."""

from dataclasses import dataclass

from lab.knobs import TrialConfig
from lab.spec import Replication


@dataclass(frozen=True)
class Job:
    """The replicas of one configuration: r = d·I + i has resample `first_resample + d`, init `first_init + i`."""

    config: TrialConfig
    replication: Replication
    first_resample: int = 0
    first_init: int = 0
