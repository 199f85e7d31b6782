"""How a trial is repeated: the scheme that draws training sets, and how many of what.

What each scheme can show, and what it cannot, stands in `lab.data.resampling`.
"""

from dataclasses import dataclass, replace

from lab.errors import SpecError

SCHEMES = ("fresh", "disjoint", "subsample", "bootstrap", "seeds")
_MOST = 4096  # of anything that is counted here: it catches slips of the keyboard


@dataclass(frozen=True)
class Replication:
    """How a trial is repeated: D training sets ("resamples") × I seeds = D·I replicas.

    Schemes: `fresh` (drawn anew from a generator), `disjoint` (blocks of a partition of the pool; unbiased),
    `subsample` (without replacement), `bootstrap` (with replacement), `seeds` (one training set, only seeds differ:
    n_resamples = 1). `stratified` gives every training set the pool's shares of the classes.
    """

    scheme: str = "disjoint"
    n_resamples: int = 8
    n_inits: int = 4
    stratified: bool = False

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise SpecError(f"replication: scheme {self.scheme!r} is unknown: choose one of {', '.join(SCHEMES)}")
        for name, low in (("n_resamples", 1), ("n_inits", 2)):
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
        if self.scheme == "fresh" and self.stratified:
            raise SpecError("replication: scheme 'fresh' draws the labels too: set stratified to False")

    @property
    def n_replicas(self) -> int:
        """The number of replicas R = D·I of a trial."""
        return self.n_resamples * self.n_inits

    def smoke(self) -> "Replication":
        """Return the same plan with few replicas."""
        return replace(self, n_resamples=min(self.n_resamples, 4), n_inits=min(self.n_inits, 3))
