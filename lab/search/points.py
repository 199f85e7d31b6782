"""Points of a search space that depend on the trial's number alone: quasi-random (`qmc`) and on a grid (`grid`).

Nothing is remembered between two points, so interruptions, the number of workers and the order of results cannot
change them. (Optuna's own QMC sampler draws categorical knobs at random, and counts its points apart from the trials,
so that a kill skips one.) Knobs are taken in alphabetical order: their order in the study file does not matter.
"""

import math
from collections.abc import Mapping

from lab.knobs import Value
from lab.seeds import stream
from lab.spec import Domain


def qmc_point(space: Mapping[str, Domain], *, seed: int, number: int) -> dict[str, Value]:
    """Return point `number` of a scrambled Sobol sequence over all knobs, categorical ones included.

    Of the first 2^m points, one lies in each 2^-m-th of every knob's range; so k options get equally many, up to two.
    Scrambling: Owen 1998, "Scrambling Sobol' and Niederreiter–Xing points".
    """
    if not space:
        return {}
    from scipy.stats.qmc import Sobol

    engine = Sobol(d=len(space), scramble=True, rng=stream(seed, "sampler"))
    if number:
        engine.fast_forward(number)
    fractions = engine.random(1)[0]
    return {name: space[name].at(float(u)) for name, u in zip(sorted(space), fractions, strict=True)}


def grid_size(space: Mapping[str, Domain]) -> int:
    """Return the number of points of the grid."""
    return math.prod(len(domain.grid()) for domain in space.values())


def grid_point(space: Mapping[str, Domain], *, number: int) -> dict[str, Value]:
    """Return point `number` of the grid; the knob that is last in the alphabet varies fastest.

    Raises:
        IndexError: The grid has fewer points.
    """
    if not 0 <= number < grid_size(space):
        raise IndexError(f"the grid has {grid_size(space)} points: there is no point {number}")
    point: dict[str, Value] = {}
    for name in sorted(space, reverse=True):
        values = space[name].grid()
        number, k = divmod(number, len(values))
        point[name] = values[k]
    return {name: point[name] for name in sorted(space)}
