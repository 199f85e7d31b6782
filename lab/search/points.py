"""Points of a search space that depend on the trial's number alone: quasi-random (`qmc`) and on a grid (`grid`).

Nothing is remembered between two points, so interruptions, the number of workers and the order of results cannot
change them. (Optuna's own QMC sampler draws categorical knobs at random, and counts its points apart from the trials,
so that a kill skips one.) Knobs are taken in alphabetical order: their order in the study file does not matter.
"""

import itertools
import math
from collections.abc import Iterator, Mapping

from lab.knobs import Value
from lab.seeds import stream
from lab.space import Domain, is_active


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


def _blocks(space: Mapping[str, Domain]) -> Iterator[tuple[dict[str, Value], dict[str, tuple[Value, ...]]]]:
    """Yield the parts of a grid: values of the knobs that conditions name, and the values of all others in force."""
    named = sorted({knob for domain in space.values() for knob in domain.when or {}})
    for values in itertools.product(*(space[knob].grid() for knob in named)):
        given = dict(zip(named, values, strict=True))
        yield (
            given,
            {
                name: tuple(space[name].grid())
                for name in sorted(space)
                if name not in given and is_active(space[name], given)
            },
        )


def grid_size(space: Mapping[str, Domain]) -> int:
    """Return the number of points of the grid; a knob that a point does not search has no values there."""
    return sum(math.prod(map(len, free.values())) for _, free in _blocks(space))


def grid_point(space: Mapping[str, Domain], *, number: int) -> dict[str, Value]:
    """Return point `number` of the grid; the knob that is last in the alphabet varies fastest.

    Raises:
        IndexError: The grid has fewer points.
    """
    left = number
    for given, free in _blocks(space):
        size = math.prod(map(len, free.values()))
        if 0 <= left < size:
            point = dict(given)
            for name in reversed(free):
                left, k = divmod(left, len(free[name]))
                point[name] = free[name][k]
            return {name: point[name] for name in sorted(point)}
        left -= size
    raise IndexError(f"the grid has {grid_size(space)} points: there is no point {number}")
