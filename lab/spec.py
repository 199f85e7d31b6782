"""What a study is: frozen dataclasses that a study file fills in, checked before anything is written.

`Study` holds a question, a data set, a search space (`Int`, `Float`, `Choice`), fixed knobs and a `Replication` plan
(lab.replication).
A trial is one `TrialConfig` (lab.knobs); every field of it is a knob that any study can search, sweep or fix.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lab.errors import SpecError
from lab.knobs import KNOBS, TrialConfig, Value, check_knob, known_knob
from lab.pretraining import NAME, Pretraining
from lab.pruning import n_first
from lab.replication import Replication
from lab.space import Choice, Domain, Float, Int, resolved

__all__ = ["Choice", "Domain", "Float", "Int", "Pretraining", "Replication", "Study", "check_name"]

SAMPLERS = ("qmc", "random", "grid", "tpe", "nsga2", "gp", "cmaes")
LEARNING = ("tpe", "nsga2", "gp", "cmaes")  # those that learn from results, in rounds
OBJECTIVES = ("val_risk", "val_error")
FRONTIER = ("bias_sq", "variance")
CAPACITY_KNOBS = ("width", "depth")

MOST_LETTERS = 200  # of a name with the flags of its study; with what is put around it for files, below 255 bytes
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.=,+-]{{0,{MOST_LETTERS - 1}}}")


def check_name(name: str, what: str) -> str:
    """Return the name if it is safe as one component of a path, as an MLflow experiment and as an Optuna study.

    Raises:
        SpecError: It is not. `what` says in the message whose name it is.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise SpecError(
            f"{what} {name!r} is not a usable name: use 1 to {MOST_LETTERS} letters, digits and _ . = , + -"
        )
    return name


@dataclass(frozen=True)
class Study:
    """One question: a search space, a replication plan and a data set. See studies/capacity_sweep.py.

    Instead of a space, `variants` names alternatives: name → the knobs in which it differs from `fixed`. They are taken
    in their order, the first is the baseline, and all are measured on the same resamples, seeds and test points, so
    that each compares with the baseline in pairs (studies/interventions.py).

    `objective` is what the search minimises, on the validation set: `"val_risk"` (Brier), `"val_error"`, or the pair
    `("bias_sq", "variance")`. `learning_curve` lists the training-set sizes, as fractions of the confirmed
    configuration's `n_train`, at which that configuration is measured again. `n_validation` and `n_test` default to the
    data set's own. The best `n_confirm` configurations are measured again; if they are several, the one that is best in
    that gets the learning curve and is the one that the report speaks of. `round_size` trials are proposed together by
    a sampler that learns from results; it is fixed so that what a search finds does not depend on the number of
    workers. With `prune`, the level of a test, a trial that is significantly worse than the best before its round is
    stopped after its first training sets (lab.pruning).

    Raises:
        SpecError: Anything in it is impossible. The data are not looked at here, see `lab.search.prepare`.
    """

    question: str
    data: str
    space: Mapping[str, Domain] = field(default_factory=dict)
    fixed: Mapping[str, Value] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    replication: Replication = field(default_factory=Replication)
    sampler: str = "qmc"
    n_trials: int = 40
    objective: str | tuple[str, str] = "val_risk"
    seed: int = 0
    learning_curve: tuple[float, ...] = tuple(2 ** (-k / 2) for k in range(6))
    pretraining: Pretraining | None = None
    n_validation: int | None = None
    n_test: int | None = None
    n_evaluations: int = 20
    round_size: int = 4
    n_confirm: int = 1
    prune: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.question, str) or not self.question.strip():
            raise SpecError("question: say in one sentence what the study asks")
        if not isinstance(self.data, str):
            check_name(self.data, "data set")
        elif not self.data.startswith("imagefolder:"):  # the rest of it is a path
            check_name(re.sub(r"\[[0-9,-]+\]$", "", self.data), "data set")  # which classes of it is checked with it
        if not isinstance(self.replication, Replication):
            raise SpecError("replication: give a Replication(scheme=…, n_resamples=…, n_inits=…)")
        self._check_space()
        self._check_variants()
        if self.sampler not in SAMPLERS:
            raise SpecError(f"sampler {self.sampler!r} is unknown: choose one of {', '.join(SAMPLERS)}")
        if self.objective != FRONTIER and self.objective not in OBJECTIVES:
            raise SpecError(
                f"objective {self.objective!r} is unknown: choose 'val_risk', 'val_error' or ('bias_sq', 'variance')"
            )
        if self.objective == FRONTIER and self.sampler == "cmaes":
            raise SpecError("sampler 'cmaes' has one objective: choose qmc, random, grid, tpe, gp or nsga2 for a pair")
        self._check_channels()
        self._check_prune()
        self._check_counts()
        if self.pretraining is not None and not isinstance(self.pretraining, Pretraining):
            raise SpecError("pretraining: give a Pretraining(data=…)")
        if (NAME in self.values("weights")) != (self.pretraining is not None):
            raise SpecError(
                f"pretraining: give Pretraining(data=…) and take weights={NAME!r} in some trial, or neither"
            )

    def _check_space(self) -> None:
        for what, example in (("space", "{'width': Int(4, 64)}"), ("fixed", "{'epochs': 60}")):
            given = getattr(self, what)
            if not isinstance(given, Mapping):
                raise SpecError(f"{what} = {given!r}: give a dictionary of knobs, e.g. {example}")
            object.__setattr__(self, what, MappingProxyType(dict(given)))
        for name, domain in self.space.items():
            known_knob(name, where="space")
            if not isinstance(domain, Int | Float | Choice):
                raise SpecError(f"space: {name} = {domain!r}: give Int(…), Float(…) or Choice(…), or put it in fixed")
            if isinstance(domain, Int | Float) and KNOBS[name] not in (int, float):
                raise SpecError(f"space: {name} is not a number: give Choice(…)")
            if isinstance(domain, Float) and KNOBS[name] is int:
                raise SpecError(f"space: {name} counts something: give Int({domain.low:g}, {domain.high:g})")
            ends = domain.options if isinstance(domain, Choice) else (domain.low, domain.high)
            for value in ends:
                check_knob(name, value, where="space")
        for name, value in self.fixed.items():
            if name in self.space:
                raise SpecError(f"{name} stands in space and in fixed: keep one")
            check_knob(name, value, where="fixed")
        given = {**dataclasses.asdict(TrialConfig()), **self.fixed}
        object.__setattr__(self, "space", MappingProxyType(resolved(self.space, given)))
        if self.sampler == "cmaes" and sum(not isinstance(d, Choice) for d in self.space.values()) < 2:
            raise SpecError("sampler 'cmaes' needs at least two numeric knobs: choose tpe or random")

    def _check_variants(self) -> None:
        variants = {name: MappingProxyType(dict(knobs)) for name, knobs in self.variants.items()}
        object.__setattr__(self, "variants", MappingProxyType(variants))
        if not variants:
            return
        if self.space:
            raise SpecError("variants: a study has a space or variants, not both: put what the variants share in fixed")
        if len(variants) < 2:
            raise SpecError("variants: give at least two: the first is the baseline of the others")
        if self.sampler in ("qmc", "grid"):  # the default, or what it becomes
            object.__setattr__(self, "sampler", "grid")
        else:
            raise SpecError(f"sampler {self.sampler!r}: variants are taken one after another: leave the sampler out")
        for name, knobs in variants.items():
            check_name(name, "variant")
            for knob, value in knobs.items():
                check_knob(knob, value, where=f"variant {name}")

    def _check_channels(self) -> None:
        """Refuse what no trial could do; where the family is searched too, a trial is infeasible by itself."""
        shared = {**dataclasses.asdict(TrialConfig()), **self.fixed}
        for name, knobs in (self.variants or {"": {}}).items():
            given: dict[str, Any] = {**shared, **knobs}
            if "family" not in self.space and given["family"] == "mlp":
                if given["spatial_dropout"] or "spatial_dropout" in self.space:
                    where = f"variant {name}: " if name else ""
                    raise SpecError(
                        f"{where}spatial_dropout: an mlp has no channels to drop: set dropout, or a family of cnn or "
                        "resnet"
                    )

    def _check_prune(self) -> None:
        level, plan = self.prune, self.replication
        if level is None:
            return
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0.001 <= level <= 0.5:
            raise SpecError(f"prune = {level!r} has to be the level of a test, from 0.001 to 0.5, or None")
        if self.sampler not in LEARNING:
            raise SpecError(
                f"prune: the points of a {self.sampler!r} sweep make a curve and all have to be measured: leave prune "
                f"out, or choose {', '.join(LEARNING)}"
            )
        if not isinstance(self.objective, str):
            raise SpecError("prune: bias_sq and variance cannot be judged on a few training sets: choose 'val_risk'")
        if plan.grows or plan.n_partitions > 1:
            raise SpecError("prune: a plan with a target_half_width or several partitions is not cut short: leave one")
        least = n_first(level) + 1
        if plan.n_resamples < least:
            raise SpecError(
                f"prune = {level:g}: nothing can be saved with n_resamples = {plan.n_resamples}, as fewer than "
                f"{least - 1} training sets show no difference at this level: set n_resamples to {least} or more"
            )

    def _check_counts(self) -> None:
        for name, low, high in (
            ("n_trials", 1, 1_000_000), ("n_evaluations", 2, 1000), ("round_size", 1, 1024),
            ("n_confirm", 1, 1000), ("seed", 0, 2**62),
        ):  # fmt: skip
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise SpecError(f"{name} = {value!r} has to be an integer from {low} to {high}")
        for name in ("n_validation", "n_test"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 10):
                raise SpecError(
                    f"{name} = {value!r} has to be an integer of 10 or more, or None for the data set's own"
                )
        sizes = self.learning_curve
        if not isinstance(sizes, tuple | list):
            raise SpecError(f"learning_curve = {sizes!r}: give a tuple of fractions of n_train, e.g. (1.0, 0.5)")
        if any(isinstance(s, bool) or not isinstance(s, int | float) or not 0 < s <= 1 for s in sizes):
            raise SpecError(f"learning_curve = {sizes!r}: give fractions of n_train above 0 and up to 1")
        object.__setattr__(self, "learning_curve", tuple(float(s) for s in sizes))

    def config(self, params: Mapping[str, Value]) -> TrialConfig:
        """Return the trial that `params` stand for: defaults, then `fixed`, then the searched values or the variant."""
        searched = {knob: value for knob, value in params.items() if knob != "variant"}
        variant = self.variants[str(params["variant"])] if "variant" in params else {}
        values: dict[str, Any] = {**self.fixed, **variant, **searched}
        return TrialConfig(**values)

    def role(self, knob: str) -> str:
        """Return what a knob is to this study: "scientific", "nuisance" or "fixed"."""
        return self.space[knob].role if knob in self.space else "fixed"

    def largest(self, knob: str) -> Value:
        """Return the largest value that a numeric knob takes in this study."""
        domain = self.space.get(knob)
        if domain is None:
            shared = self.fixed.get(knob, getattr(TrialConfig(), knob))
            return max([variant.get(knob, shared) for variant in self.variants.values()], default=shared)
        return max(domain.options) if isinstance(domain, Choice) else domain.high

    def values(self, knob: str) -> set[Value]:
        """Return the values that a knob takes in this study, of those that are named in it."""
        domain = self.space.get(knob)
        if isinstance(domain, Choice):
            return set(domain.options)
        shared = self.fixed.get(knob, getattr(TrialConfig(), knob))
        return {variant.get(knob, shared) for variant in self.variants.values()} or {shared}

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as plain JSON values, for storage and comparison."""
        spec = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        spec["space"] = {
            name: {"kind": type(domain).__name__.lower()}
            | {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in dataclasses.asdict(domain).items()
                if key != "when" or value  # as it was stored before there were conditions
            }
            for name, domain in self.space.items()
        }
        spec["variants"] = {name: dict(knobs) for name, knobs in self.variants.items()}
        for name in ("variants", "prune"):  # as it was stored before there were any
            if not getattr(self, name):
                del spec[name]
        if self.pretraining is None:
            del spec["pretraining"]
        else:
            spec["pretraining"] = self.pretraining.to_dict()
        spec["fixed"] = dict(self.fixed)
        if self.n_confirm == 1:  # as it was stored before there were several
            del spec["n_confirm"]
        spec["replication"] = self.replication.to_dict()
        for name in ("objective", "learning_curve"):
            if isinstance(spec[name], tuple):
                spec[name] = list(spec[name])
        return spec

    def smoke(self) -> "Study":
        """Return the same study made small enough to run in seconds: for a first look, and for tests.

        Data of the user's own keep their own sizes of validation and test set: they may be few.
        """
        from lab.data.datasets import NAMES

        is_own = self.data.partition("[")[0] not in NAMES
        epochs = min(int(self.largest("epochs")), 8)
        space = {name: domain for name, domain in self.space.items() if name != "epochs"}
        return dataclasses.replace(
            self,
            space=space,
            fixed={**self.fixed, "epochs": epochs},
            variants={
                name: {k: min(int(v), epochs) if k == "epochs" else v for k, v in knobs.items()}
                for name, knobs in self.variants.items()
            },
            replication=self.replication.smoke(),
            pretraining=None if self.pretraining is None else self.pretraining.smoke(),
            prune=None,  # with so few training sets there is nothing to save
            n_trials=min(self.n_trials, 8 if self.variants else 4),
            n_evaluations=min(self.n_evaluations, 4),
            n_confirm=min(self.n_confirm, 2),
            n_validation=None if is_own and self.n_validation is None else min(self.n_validation or 200, 200),
            n_test=None if is_own and self.n_test is None else min(self.n_test or 300, 300),
        )
