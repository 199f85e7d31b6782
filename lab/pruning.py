"""Pruning by replicas: a trial goes on after its first training sets only if it may still be the best.

A trial has a rival, the best before its round. Both were trained on the same first training sets from the same seeds,
so their objectives compare in pairs, one a training set: if the trial is worse by Wilcoxon's signed-rank test (1945,
one-sided), it stops there. It is looked at once, so the level of the test is what the study asks for. Validation data
decide.

The rule is that of Optuna's WilcoxonPruner at one look. A worker cannot ask that one: it has no access to the search
state, so that trainings do not wait for it.

Shape suffixes: D resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Rival:
    """A trial that another has to keep up with, and its objective on each training set."""

    number: int
    by_resample_D: tuple[float, ...]


def n_first(level: float) -> int:
    """Return after how many training sets a trial is looked at: fewer could never be significant at this level.

    The least p-value of n pairs is 2^−n: all of n signs alike.
    """
    return math.floor(-math.log2(level)) + 1


def p_value(values_D: Sequence[float], rival_D: Sequence[float]) -> float:
    """Return how surprising it would be to see a trial lag so far behind its rival if it were as good."""
    from scipy.stats import wilcoxon

    difference_D = [value - rival for value, rival in zip(values_D, rival_D, strict=False)]
    return float(wilcoxon(difference_D, alternative="greater", zero_method="zsplit").pvalue)


def is_lost(values_D: Sequence[float], rival: Rival, level: float) -> bool:
    """Return whether a trial with these objectives is to be stopped.

    One whose mean is as low as the rival's over all of its training sets goes on, whatever the pairs say.
    """
    return p_value(values_D, rival.by_resample_D) < level and fmean(values_D) > fmean(rival.by_resample_D)
