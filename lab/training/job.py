"""A job: one trial to train."""

from dataclasses import dataclass

from lab.knobs import TrialConfig
from lab.spec import Replication


@dataclass(frozen=True)
class Job:
    """The replicas of one configuration: r = d·I + i has resample `first_resample + d`, init `first_init + i`.

    With K draws of the label noise r = (d·I + i)·K + k, and k has the draw `first_noise + k`. `keep_weights` asks for
    the weights that the last evaluation is of.
    """

    config: TrialConfig
    replication: Replication
    first_resample: int = 0
    first_init: int = 0
    first_noise: int = 0
    keep_weights: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, I), or (D, I, K) with several draws of the label noise."""
        D, I, K = self.replication.shape  # noqa: E741 - the letters of the shape legend
        return (D, I) if K == 1 else (D, I, K)
