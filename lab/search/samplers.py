"""Samplers by name: Optuna's own, and points that depend on the trial's number alone.

What is proposed is a function of the study's seed, the trial's number and the results that were told before. So a
resumed search proposes what an uninterrupted one would.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from lab import failpoints
from lab.knobs import Value
from lab.search.points import grid_point, grid_size, qmc_point
from lab.seeds import stream
from lab.space import Choice, Domain, Int, is_active
from lab.spec import Study


class PointSampler(BaseSampler):
    """Proposes a point that depends on the trial's number alone."""

    def __init__(self, point: Callable[[int], Mapping[str, Value]]) -> None:
        self._point = functools.lru_cache(maxsize=1)(point)  # the knobs of a trial are asked for one by one

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return none: each knob is looked up on its own."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return none, as there is no joint space."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the point's coordinate."""
        return self._point(trial.number)[param_name]


class SeededSampler(BaseSampler):
    """Makes one of Optuna's samplers anew for each proposal, seeded by the trial's number.

    Optuna's own keep a random state: made again after an interruption, they would repeat their first draws.
    """

    def __init__(self, make: Callable[[int], BaseSampler], knobs: Sequence[str], seed: int) -> None:
        self._make = make
        self._knobs = sorted(knobs)
        self._seed = seed

    def _anew(self, trial: FrozenTrial, *index: int) -> BaseSampler:
        return self._make(stream(self._seed, "sampler", trial.number, *index) % 2**32)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Ask a new sampler."""
        return self._anew(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask a new sampler, for all knobs that it proposes together."""
        # A trial that a kill caught between two knobs carries the proposal of then; the GP sampler would take it for
        # another trial under way and stay away from it.
        for name in trial.system_attrs:
            if "relative_params" in name:
                study._storage.set_trial_system_attr(trial._trial_id, name, "")
        return self._anew(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Ask a new sampler, for one knob: what came before it in this process does not matter."""
        sampler = self._anew(trial, 1 + self._knobs.index(param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Let a new sampler note the result."""
        self._anew(trial).after_trial(study, trial, state, values)


SEQUENTIAL: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed, warn_independent_sampling=False),
    "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
}


def make_sampler(study: Study) -> BaseSampler:
    """Return the sampler that a study names."""
    space = study.space
    if study.variants:
        names = list(study.variants)
        return PointSampler(lambda number: {"variant": names[number]})
    if study.sampler == "qmc":
        return PointSampler(lambda number: qmc_point(space, seed=study.seed, number=number))
    if study.sampler == "grid":
        return PointSampler(lambda number: grid_point(space, number=number))
    make = SEQUENTIAL.get(study.sampler, lambda seed: RandomSampler(seed=seed))
    return SeededSampler(make, list(space), study.seed)


def planned(study: Study) -> int:
    """Return the number of explore trials: there are no more than a grid has points, or a study variants."""
    if study.variants:
        return min(study.n_trials, len(study.variants))
    return min(study.n_trials, grid_size(study.space)) if study.sampler == "grid" else study.n_trials


def suggest(trial: optuna.Trial, study: Study) -> dict[str, Value]:
    """Return the trial's searched values, or its variant; what it has already keeps its value."""

    def pick(name: str) -> Value:
        failpoints.hit("suggest")
        return _suggest(trial, name, distribution(domain_of(study, name)))

    return _searched(study, pick)


def proposed(stored: optuna.Study, study: Study, number: int) -> dict[str, Value]:
    """Return what `suggest` would for trial `number` of a study whose sampler does not learn; nothing is stored."""
    trial = create_trial(state=TrialState.RUNNING)
    trial.number = number

    def pick(name: str) -> Value:
        failpoints.hit("suggest")
        kind = distribution(domain_of(study, name))
        drawn = stored.sampler.sample_independent(stored, trial, name, kind)
        return kind.to_external_repr(kind.to_internal_repr(drawn))  # as it will be read back

    return _searched(study, pick)


def _searched(study: Study, pick: Callable[[str], Value]) -> dict[str, Value]:
    """Pick the values of a trial. Knobs with a condition come last, and only if the trial meets it."""
    if study.variants:
        return {"variant": pick("variant")}
    values: dict[str, Value] = {}
    for name, domain in sorted(study.space.items(), key=lambda item: bool(item[1].when)):
        if is_active(domain, values):
            values[name] = pick(name)
    return values


def domain_of(study: Study, name: str) -> Domain:
    """Return the domain of a searched knob, or of `variant`."""
    return Choice(*study.variants) if study.variants else study.space[name]


def distribution(domain: Domain) -> BaseDistribution:
    """Return a domain in Optuna's words."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    if isinstance(domain, Int):
        high = domain.low + (domain.high - domain.low) // domain.step * domain.step
        return IntDistribution(domain.low, high, log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _suggest(trial: optuna.Trial, name: str, kind: BaseDistribution) -> Value:
    if isinstance(kind, CategoricalDistribution):
        option = trial.suggest_categorical(name, kind.choices)
        assert option is not None
        return option
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
    assert isinstance(kind, FloatDistribution)
    return trial.suggest_float(name, kind.low, kind.high, log=kind.log)
