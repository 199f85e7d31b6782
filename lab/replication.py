"""How a trial is repeated: the scheme that draws training sets, and how many of what.

What each scheme can show, and what it cannot, stands in `lab.data.resampling`.
"""

from dataclasses import dataclass, replace

from lab.errors import SpecError

SCHEMES = ("fresh", "disjoint", "subsample", "bootstrap", "seeds")
_MOST = 4096  # of anything that is counted here: it catches slips of the keyboard


@dataclass(frozen=True)
class Replication:
    """How a trial is repeated: D training sets ("resamples") × I seeds × K draws of the label noise.

    Schemes: `fresh` (drawn anew from a generator), `disjoint` (blocks of a partition of the pool; unbiased),
    `subsample` (without replacement), `bootstrap` (with replacement), `seeds` (one training set, only seeds differ:
    n_resamples = 1). `n_partitions` independent partitions of the pool share out the resamples of `disjoint`: each
    gives n_resamples / n_partitions blocks, only blocks of one partition are compared, and the estimates are averaged.
    `stratified` gives every training set the pool's shares of the classes. With `n_noise_draws` above 1 each training
    set is used again with that many independent draws of its label noise (see `lab.data.label_noise`).
    """

    scheme: str = "disjoint"
    n_resamples: int = 8
    n_inits: int = 4
    n_partitions: int = 1
    stratified: bool = False
    n_noise_draws: int = 1

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise SpecError(f"replication: scheme {self.scheme!r} is unknown: choose one of {', '.join(SCHEMES)}")
        for name, low in (("n_resamples", 1), ("n_inits", 2), ("n_partitions", 1), ("n_noise_draws", 1)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= _MOST:
                raise SpecError(f"replication: {name} = {value!r} has to be an integer from {low} to {_MOST}")
        if type(self.stratified) is not bool:
            raise SpecError(f"replication: stratified = {self.stratified!r} has to be True or False")
        if self.scheme == "seeds" and self.n_resamples != 1:
            raise SpecError(
                f"replication: scheme 'seeds' has one training set, and n_resamples = {self.n_resamples}: "
                "set it to 1, or choose another scheme"
            )
        if self.scheme != "seeds" and self.n_resamples < 2:
            raise SpecError(
                "replication: n_resamples = 1 cannot show what the training set does to a prediction: "
                "give 2 or more, or choose the scheme 'seeds'"
            )
        self._check_partitions()
        if self.scheme == "fresh" and self.stratified:
            raise SpecError("replication: scheme 'fresh' draws the labels too: set stratified to False")

    def _check_partitions(self) -> None:
        if self.n_partitions == 1:
            return
        if self.scheme != "disjoint":
            raise SpecError(
                f"replication: n_partitions = {self.n_partitions} is for the scheme 'disjoint', not for "
                f"{self.scheme!r}: set it to 1"
            )
        if self.n_resamples % self.n_partitions or self.n_blocks < 2:
            raise SpecError(
                f"replication: {self.n_resamples} resamples cannot be shared out evenly over {self.n_partitions} "
                f"partitions with two or more each: set n_resamples to a multiple, {2 * self.n_partitions} or more"
            )

    @property
    def n_replicas(self) -> int:
        """The number of replicas R = D·I·K of a trial."""
        return self.n_resamples * self.n_inits * self.n_noise_draws

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, I, K)."""
        return self.n_resamples, self.n_inits, self.n_noise_draws

    @property
    def partition_D(self) -> list[int] | None:
        """Which partition each resample is of; None if there is one only."""
        return None if self.n_partitions == 1 else [d // self.n_blocks for d in range(self.n_resamples)]

    @property
    def n_blocks(self) -> int:
        """The number of resamples that one partition gives (`disjoint`): pool / n_blocks is their largest size."""
        return self.n_resamples // self.n_partitions

    def smoke(self) -> "Replication":
        """Return the same plan with few replicas."""
        n_partitions = min(self.n_partitions, 2)
        n_resamples = 1 if self.scheme == "seeds" else min(self.n_resamples, 4)
        n_resamples -= n_resamples % n_partitions
        return replace(
            self,
            n_resamples=n_resamples,
            n_inits=min(self.n_inits, 3),
            n_partitions=n_partitions,
            n_noise_draws=min(self.n_noise_draws, 2),
        )
