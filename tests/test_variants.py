"""Studies of named variants, and spaces in which a knob exists only for some values of another."""

import dataclasses
import itertools
import json

import optuna
import pytest

from lab.errors import SpecError
from lab.knobs import TrialConfig
from lab.search import samplers
from lab.search.points import grid_point, grid_size
from lab.spec import SAMPLERS, Choice, Float, Int, Study
from lab.study_file import change

CONDITIONAL = {
    "family": Choice("mlp", "cnn"),
    "depth": Choice(1, 2, 3, when={"family": "mlp"}),
    "norm": Choice("batch", "group", when={"family": ("cnn",)}),
    "width": Choice(8, 16),
}
VARIANTS = {"baseline": {}, "dropout": {"dropout": 0.5}, "longer": {"epochs": 90, "learning_rate": 1e-4}}


def asked(**fields):
    return Study(**({"question": "Which?", "data": "digits"} | fields))


def proposals(study, n):
    """The searched values of the first n trials, each told a value, as a search does."""
    stored = optuna.create_study(sampler=samplers.make_sampler(study))
    found = []
    for _ in range(n):
        trial = stored.ask()
        found.append(samplers.suggest(trial, study))
        stored.tell(trial, float(len(str(found[-1]))))
    return found


def test_variants_are_taken_in_their_order_and_change_what_they_name():
    study = asked(variants=VARIANTS, fixed={"epochs": 30, "width": 8})
    assert samplers.planned(study) == 3
    found = proposals(study, 3)
    assert [params["variant"] for params in found] == list(VARIANTS)
    expected = [{}, {"dropout": 0.5}, {"epochs": 90, "learning_rate": 1e-4}]
    for params, differs in zip(found, expected, strict=True):
        assert study.config(params) == TrialConfig(**({"epochs": 30, "width": 8} | differs))


def test_the_largest_value_of_a_knob_is_that_of_any_variant():
    assert asked(variants=VARIANTS, fixed={"epochs": 30}).largest("epochs") == 90
    assert asked(variants=VARIANTS, fixed={"epochs": 100}).largest("epochs") == 100


def test_a_smoke_run_takes_the_first_few_variants_and_shortens_each():
    small = asked(variants=VARIANTS, fixed={"epochs": 30}).smoke()
    assert samplers.planned(small) == 3
    many = {f"width_{k}": {"width": k} for k in range(1, 31)}
    assert samplers.planned(asked(variants=many).smoke()) == 8
    assert max(small.config({"variant": name}).epochs for name in VARIANTS) <= 8


def test_a_study_without_variants_or_conditions_is_stored_as_it_always_was():
    spec = asked(space={"width": Int(4, 8)}).to_dict()
    assert "variants" not in spec
    assert set(spec["space"]["width"]) == {"kind", "low", "high", "log", "step", "role"}


def test_variants_and_conditions_are_stored_as_json():
    spec = asked(variants=VARIANTS).to_dict()
    assert json.loads(json.dumps(spec))["variants"] == VARIANTS
    spec = asked(space=CONDITIONAL).to_dict()
    assert json.loads(json.dumps(spec))["space"]["norm"]["when"] == {"family": ["cnn"]}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"variants": {"baseline": {}}}, "at least two"),
        ({"variants": VARIANTS, "space": {"width": Int(4, 8)}}, "not both"),
        ({"variants": VARIANTS, "sampler": "tpe"}, "sampler 'tpe'"),
        ({"variants": {"a": {}, "b": {"widht": 3}}}, "variant b: unknown knob 'widht'"),
        ({"variants": {"a": {}, "b": {"width": "wide"}}}, "variant b: width"),
        ({"variants": {"a": {}, "b/c": {}}}, "variant 'b/c'"),
    ],
)
def test_impossible_variants_are_refused(fields, says):
    with pytest.raises(SpecError, match=says):
        asked(**fields)


@pytest.mark.parametrize("sampler", [pytest.param(s, marks=pytest.mark.slow) if s == "gp" else s for s in SAMPLERS])
def test_every_sampler_proposes_a_knob_only_where_its_condition_holds(sampler):
    numbers = {"learning_rate": Float(1e-3, 1e-1, n_grid=2), "dropout": Float(0.0, 0.5, n_grid=2)}  # cmaes needs two
    study = asked(space=CONDITIONAL | numbers, sampler=sampler)
    found = proposals(study, min(40 if sampler == "grid" else 14, samplers.planned(study)))
    assert {params["family"] for params in found} == {"mlp", "cnn"}
    for params in found:
        own = {"mlp": {"depth"}, "cnn": {"norm"}}[params["family"]]
        assert set(params) == {"family", "width", *numbers} | own
        assert study.config(params).family == params["family"]


def test_a_knob_out_of_force_has_its_default():
    config = asked(space=CONDITIONAL).config({"family": "cnn", "norm": "batch", "width": 8})
    assert config.depth == TrialConfig().depth


def test_a_conditional_grid_has_every_point_once():
    mlps = [{"family": "mlp", "depth": d, "width": w} for d, w in itertools.product((1, 2, 3), (8, 16))]
    cnns = [{"family": "cnn", "norm": n, "width": w} for n, w in itertools.product(("batch", "group"), (8, 16))]
    assert grid_size(CONDITIONAL) == 10
    points = [grid_point(CONDITIONAL, number=k) for k in range(10)]
    assert sorted(points, key=str) == sorted((dict(sorted(point.items())) for point in mlps + cnns), key=str)
    with pytest.raises(IndexError):
        grid_point(CONDITIONAL, number=10)


def test_a_condition_on_a_fixed_knob_is_settled_beforehand():
    space = {name: domain for name, domain in CONDITIONAL.items() if name != "family"}
    study = asked(space=space, fixed={"family": "cnn"})
    assert set(study.space) == {"norm", "width"}
    assert study.space["norm"] == Choice("batch", "group")
    assert set(asked(space=space).space) == {"depth", "width"}  # the default family is mlp


def test_setting_the_knob_of_a_condition_on_the_command_line_settles_it():
    study, _ = change(asked(space=CONDITIONAL), "which", settings={"family": "mlp"})
    assert set(study.space) == {"depth", "width"}


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"depth": Int(1, 3, when={"depth": 2})}, "has a condition itself"),
        ({"width": Choice(8, 16), "depth": Int(1, 3, when={"width": 32})}, "never searched"),
        (CONDITIONAL | {"dropout": Float(0.0, 0.5, when={"norm": "batch"})}, "has a condition itself"),
    ],
)
def test_impossible_conditions_are_refused(space, says):
    with pytest.raises(SpecError, match=says):
        asked(space=space)


@pytest.mark.parametrize("when", [{}, "family", {"famly": "cnn"}, {"family": "cn"}, {"family": ()}])
def test_a_condition_that_cannot_be_is_refused(when):
    with pytest.raises(SpecError):
        asked(space={"family": Choice("mlp", "cnn"), "depth": Int(1, 3, when=when)})


def test_a_condition_may_name_a_number():
    space = {"depth": Int(1, 3), "dropout": Float(0.0, 0.5, when={"depth": (2, 3)})}
    for params in proposals(asked(space=space, sampler="random"), 12):
        assert ("dropout" in params) is (params["depth"] > 1)


def test_a_domain_with_a_condition_stays_itself_in_a_copy_of_its_study():
    study = asked(space=CONDITIONAL)
    assert dataclasses.replace(study, n_trials=3).space == study.space
