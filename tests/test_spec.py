"""A study is checked as soon as it is written down, and every error names the field."""

import dataclasses
import json
from collections import Counter

import pytest

from lab.errors import SpecError
from lab.knobs import KNOBS, TrialConfig, parse_knob
from lab.spec import Choice, Float, Int, Replication, Study, check_name

GOOD = dict(question="Why?", data="digits", space={"width": Int(4, 64, log=True)}, fixed={"epochs": 5})


def test_a_config_survives_json():
    config = TrialConfig(width=7, learning_rate=0.5)
    assert TrialConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_every_knob_can_be_searched_or_fixed():
    limits = {field.name: field.metadata for field in dataclasses.fields(TrialConfig)}
    for name, kind in KNOBS.items():
        default = getattr(TrialConfig(), name)
        Study(question="?", data="digits", fixed={name: default})
        if kind is bool:
            Study(question="?", data="digits", space={name: Choice(True, False)})
        elif kind in (int, float):
            low, high = limits[name]["bounds"]
            others = (default + 1,) if kind is int else (default / 2, 0.05, 2 * default)
            other = next(value for value in others if low <= value <= high and value != default)
            Study(question="?", data="digits", space={name: Choice(default, other)}, fixed={"family": "cnn"})


def test_a_trial_is_made_of_defaults_then_fixed_then_searched_values():
    study = Study(**GOOD)
    config = study.config({"width": 9})
    assert (config.width, config.epochs, config.depth) == (9, 5, TrialConfig().depth)
    assert (study.role("width"), study.role("epochs")) == ("nuisance", "fixed")


@pytest.mark.parametrize("domain", [Int(1, 4), Int(4, 256, log=True), Int(2, 20, step=3), Choice("a", "b", "c")])
def test_every_value_gets_its_share_of_the_unit_interval(domain):
    values = [domain.at(u / 20_000) for u in range(20_000)]
    if not (isinstance(domain, Int) and domain.log):
        counts = Counter(values).values()
        assert max(counts) - min(counts) < 20  # of 20,000
    assert set(domain.grid()) <= set(values) | {domain.grid()[-1]}
    if isinstance(domain, Int):
        assert (min(values), max(values)) == (domain.low, domain.high - (domain.high - domain.low) % domain.step)


def test_a_log_range_is_even_in_the_logarithm():
    domain = Float(1e-4, 1e-2, log=True)
    assert [domain.at(u) for u in (0, 0.5, 1)] == pytest.approx([1e-4, 1e-3, 1e-2])
    assert domain.grid() == pytest.approx((1e-4, 1e-3, 1e-2))


def test_the_largest_value_of_a_knob_is_found_wherever_it_stands():
    study = Study(question="?", data="digits", space={"n_train": Choice(10, 90, 30)}, fixed={"width": 5})
    assert (study.largest("n_train"), study.largest("width"), study.largest("depth")) == (90, 5, TrialConfig().depth)


def test_a_smoke_study_is_small_and_still_valid():
    smoke = Study(**GOOD, n_trials=40).smoke()
    assert smoke.n_trials <= 4
    assert smoke.replication.n_replicas <= 12
    assert smoke.largest("epochs") <= 8
    assert json.dumps(smoke.to_dict())
    assert (smoke.n_validation, smoke.n_test) == (200, 300)


@pytest.mark.parametrize("data", ["imagefolder:pictures", "mine", "mine[0-3]"])
def test_a_smoke_study_of_own_data_asks_for_no_more_of_them_than_the_study_itself(data):
    smoke = Study(**GOOD | {"data": data}).smoke()
    assert (smoke.n_validation, smoke.n_test) == (None, None)
    assert Study(**GOOD | {"data": data}, n_test=1000).smoke().n_test == 300


@pytest.mark.parametrize(
    "plan",
    [
        dict(n_resamples=16, n_inits=5),
        dict(n_resamples=15, n_partitions=3),
        dict(scheme="seeds", n_resamples=1, n_inits=9),
        dict(n_noise_draws=6),
    ],
)
def test_a_smoke_plan_is_of_the_same_kind_and_small(plan):
    smoke = Replication(**plan).smoke()
    assert smoke.n_replicas <= 24
    assert (smoke.scheme, smoke.n_partitions > 1) == (Replication(**plan).scheme, "n_partitions" in plan)


BAD = [
    (dict(question=" "), "question"),
    (dict(data="../etc"), "data set"),
    (dict(space={"widht": Int(1, 2)}), "unknown knob 'widht'"),
    (dict(space={"width": 64}), "width = 64"),
    (dict(space={"width": Float(1.0, 2.0)}), "width counts"),
    (dict(space={"activation": Int(1, 2)}), "activation is not a number"),
    (dict(space={"dropout": Float(0.0, 1.5)}), "dropout"),
    (dict(space={"width": Int(0, 8)}), "width"),
    (dict(space={"activation": Choice("relu", "swish")}), "swish"),
    (dict(fixed={"width": 4}), "stands in space and in fixed"),
    (dict(fixed={"learning_rate": float("nan")}), "learning_rate"),
    (dict(fixed={"epochs": 2.5}), "epochs"),
    (dict(fixed={"epochs": True}), "epochs"),
    (dict(fixed={"nesterov": 1}), "nesterov"),
    (dict(replication="disjoint"), "replication"),
    (dict(sampler="bayes"), "sampler 'bayes'"),
    (dict(objective="accuracy"), "objective 'accuracy'"),
    (dict(objective=("variance", "bias_sq")), "objective"),
    (dict(sampler="cmaes", objective=("bias_sq", "variance")), "cmaes"),
    (dict(sampler="cmaes"), "cmaes"),
    (dict(n_trials=0), "n_trials"),
    (dict(n_trials=2.0), "n_trials"),
    (dict(seed=-1), "seed"),
    (dict(n_test=3), "n_test"),
    (dict(learning_curve=(0.5, 2.0)), "learning_curve"),
]


@pytest.mark.parametrize(("change", "says"), BAD)
def test_an_impossible_study_is_refused_in_one_line_that_names_the_field(change, says):
    with pytest.raises(SpecError) as caught:
        Study(**(GOOD | change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "build",
    [
        lambda: Int(3, 3),
        lambda: Int(5, 1),
        lambda: Int(0, 5, log=True),
        lambda: Int(1.5, 5),
        lambda: Int(1, 5, step=0),
        lambda: Int(1, 8, log=True, step=2),
        lambda: Int(1, 5, role="main"),
        lambda: Float(1.0, float("inf")),
        lambda: Float(float("nan"), 1.0),
        lambda: Float("a", 1.0),
        lambda: Float(0.0, 1.0, log=True),
        lambda: Float(0.0, 1.0, n_grid=1),
        lambda: Choice("relu"),
        lambda: Choice(["relu", "tanh"]),
        lambda: Choice("relu", "relu"),
        lambda: Replication(scheme="jackknife"),
        lambda: Replication(n_resamples=1),
        lambda: Replication(n_inits=2.0),
        lambda: Replication(n_inits=1),
        lambda: Replication(scheme="seeds", n_resamples=2),
        lambda: Replication(scheme="fresh", stratified=True),
        lambda: Replication(stratified=1),
        lambda: Replication(n_noise_draws=0),
        lambda: Replication(scheme="subsample", n_partitions=2),
        lambda: Replication(n_resamples=8, n_partitions=3),
        lambda: Replication(n_resamples=4, n_partitions=4),
        lambda: TrialConfig(width="wide"),
        lambda: TrialConfig.from_dict({"with": 3}),
    ],
)
def test_an_impossible_domain_is_refused(build):
    with pytest.raises(SpecError):
        build()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [("64", "width", 64), ("1e-3", "learning_rate", 1e-3), ("true", "nesterov", True), ("tanh", "activation", "tanh")],
)
def test_a_knob_is_read_from_the_command_line_in_its_own_type(text, name, value):
    assert parse_knob(name, text) == value
    assert type(parse_knob(name, text)) is type(value)


@pytest.mark.parametrize(("name", "text"), [("width", "wide"), ("width", "1.5"), ("nesterov", "1"), ("wdith", "3")])
def test_a_wrong_knob_on_the_command_line_is_refused(name, text):
    with pytest.raises(SpecError, match="--set"):
        parse_knob(name, text)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "-x", " a", "a\n", "é", "a" * 201, "a..b", "~x", None])
def test_a_name_that_could_leave_its_folder_is_refused(name):
    with pytest.raises(SpecError):
        check_name(name, "study")
