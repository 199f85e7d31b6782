"""A trial asked and told in few calls is what Optuna's own ask, suggest and tell leave, row for row."""

import sqlite3
from contextlib import closing

import optuna
import pytest

from lab import search
from lab.errors import StorageError
from lab.search import database as databases
from lab.search import ledger, samplers, trials
from lab.spec import Choice, Float, Int
from tests.toys import run, runs, toy

CONDITIONAL = {
    "family": Choice("mlp", "cnn"),
    "dropout": Float(0.0, 0.5, when={"family": "mlp"}),
    "width": Int(4, 100, step=7),
    "depth": Int(1, 8, log=True),
    "batch_size": Choice(8, 16),
    "learning_rate": Float(1e-4, 1.0, log=True),
}
STUDIES = {
    "qmc": toy(sampler="qmc"),
    "conditions": toy(sampler="qmc", space=CONDITIONAL),
    "grid": toy(sampler="grid", space={"depth": Int(1, 4), "activation": Choice("relu", "tanh")}),
    "random": toy(sampler="random", space=CONDITIONAL),
    "variants": toy(space={}, variants={"plain": {}, "wide": {"width": 64}}, n_trials=2),
    "one choice": toy(sampler="random", space={"width": Int(4, 6, step=5), "dropout": Float(0.0, 0.5)}),
}
ROWS = {
    "trials": "SELECT trial_id, number, study_id, state FROM trials",
    "params": "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params",
    "attributes": "SELECT trial_id, key, value_json FROM trial_user_attributes",
    "values": "SELECT trial_id, objective, value, value_type FROM trial_values",
    "system": "SELECT trial_id, key, value_json FROM trial_system_attributes",
}


@pytest.fixture
def opened(home):
    """Return a function that opens a study in a database of its own."""
    found = []

    def opened(study, name):
        (home.root / name).mkdir()
        found.append(databases.open_database(type(home)(home.root / name)))
        return ledger.open_study(found[-1], study, "toy", "digest", "sets"), home.root / name / "mlruns" / "optuna.db"

    (home.root / "x").mkdir()
    yield opened
    for database in found:
        databases.close(database)


def rows(path):
    with closing(sqlite3.connect(path)) as database:
        return {table: sorted(database.execute(query).fetchall()) for table, query in ROWS.items()}


@pytest.mark.parametrize("kind", STUDIES)
def test_trials_are_stored_as_optuna_stores_what_is_suggested_and_told_one_by_one(opened, kind):
    study = STUDIES[kind]
    (ours, here), (theirs, there) = opened(study, "ours"), opened(study, "theirs")
    for number in range(samplers.planned(study)):
        trial_id, values = trials.ask(ours, study, number)
        trial = theirs.ask()
        suggested = samplers.suggest(trial, study)
        assert list(values.items()) == list(suggested.items())
        assert [type(value) for value in values.values()] == [type(value) for value in suggested.values()]
        result = [0.25 + number] if number % 3 else None
        trials.tell(ours, study, number, trial_id, result)
        theirs.tell(number, result, None if result else optuna.trial.TrialState.FAIL)
    assert rows(here) == rows(there)
    for mine, other in zip(ours.get_trials(), theirs.get_trials(), strict=True):
        assert (mine.params, mine.values, mine.state, mine.user_attrs) == (
            other.params, other.values, other.state, other.user_attrs,
        )  # fmt: skip


def test_a_trial_that_was_asked_and_has_no_values_yet_gets_what_it_would_have_had(opened):
    study = STUDIES["conditions"]
    (whole, _), (cut, _) = opened(study, "ours"), opened(study, "theirs")
    _, values = trials.ask(whole, study, 0)
    trial_id = cut._storage.create_new_trial(cut._study_id)  # and then a kill came
    assert samplers.suggest(optuna.Trial(cut, trial_id), study) == values


def test_the_best_trial_is_described_by_the_same_names_however_its_numbers_are_kept(home):
    run(toy(n_trials=2), home)
    found, objective = search.status(home, "toy")[0]["best"], "val_risk"
    measured = runs(home)[f"explore-{found['number']:04d}"]["metrics"]["final"]
    names = ["bias_sq", "variance", objective]
    for name in (*(n + end for n in names for end in ("", "_lo", "_hi")), "variance_resample", "variance_init"):
        assert found[name] == pytest.approx(measured[name], rel=1e-6), name
    assert not [name for name in found if name.endswith("_interval") or name == "variance_by_cause"]


def test_a_trial_of_another_program_is_noticed_before_numbers_are_mixed(opened):
    stored, _ = opened(STUDIES["qmc"], "ours")
    stored.ask()
    with pytest.raises(StorageError, match="another program"):
        trials.ask(stored, STUDIES["qmc"], 0)
