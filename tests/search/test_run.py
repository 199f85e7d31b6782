import collections
import dataclasses
import json
import re
import signal

import optuna
import pytest

from lab import growth, interrupts, search, spool, storage
from lab.errors import SpecChanged, SpecError, StorageError, StudyInUse
from lab.progress import Progress
from lab.search import database as databases
from lab.search import session
from lab.search.points import qmc_point
from lab.spec import Choice, Int, Replication
from lab.study import _is_partial, _status_text
from tests.test_interrupts import Swallowing
from tests.toys import SPACE, Boom, run, runs, state, stored, toy


def test_a_study_explores_confirms_and_measures_the_learning_curve(home):
    study = toy(n_trials=5, learning_curve=(1.0, 0.5, 0.25, 0.26, 0.01))
    summary = run(study, home)
    records = runs(home)
    best = min(stored(home), key=lambda t: t.values[0])
    assert summary.best["number"] == best.number
    assert summary.best["val_risk"] == best.values[0]
    by_phase = collections.Counter(storage_key.split("-")[0] for storage_key in records)
    # 0.25 and 0.26 and 0.01 of 40 examples are all 10, the smallest size that is measured
    assert by_phase == {"explore": 5, "confirm": 1, "learning_curve": 2}
    confirm = records[f"confirm-{best.number:04d}"]["config"]
    assert (confirm["first_resample"], confirm["first_init"]) == (3, 3)
    assert confirm["config"] == records[f"explore-{best.number:04d}"]["config"]["config"]
    curve = [records[f"learning_curve-{best.number * 100 + k:04d}"]["config"] for k in (1, 2)]
    assert [c["config"]["n_train"] for c in curve] == [20, 10]
    assert all((c["first_resample"], c["first_init"]) == (3, 3) for c in curve)
    assert all(c["config"] | {"n_train": 40} == confirm["config"] for c in curve)


def test_a_finished_study_trains_nothing_and_a_grown_one_only_what_is_new(home):
    assert run(toy(n_trials=3), home).n_trained == 5
    before = runs(home)
    assert run(toy(n_trials=3), home).n_trained == 0
    summary = run(toy(n_trials=9), home)
    best = min(stored(home), key=lambda t: t.values[0]).number
    assert best >= 3, "this test needs a better trial among the new ones"
    assert summary.counts["finished"] == 9
    assert summary.n_trained == 6 + 2  # the better configuration is confirmed anew
    assert summary.confirmed == f"confirm-{best:04d}"
    after = runs(home)
    assert {key: after[key] for key in before} == before
    assert run(toy(n_trials=5), home).n_trained == 0
    assert len(stored(home)) == 9


@pytest.mark.parametrize(("n_trials", "n_total"), [(2, 3), (3, 3), (5, 5)])
def test_the_total_of_what_is_shown_counts_the_trials_that_are_stored_beyond_a_plan_cut_since(home, n_trials, n_total):
    begun = []

    class Kept(Progress):
        def begin(self, **counts):
            begun.append(counts)
            super().begin(**counts)

    run(toy(n_trials=3), home)
    run(toy(n_trials=n_trials), home, progress=Kept())
    assert begun == [dict(n_done=3, n_total=n_total + 2)]  # the confirmation, and half of its examples


@pytest.mark.parametrize("n_confirm", [1, 3, 9])
def test_what_is_shown_counts_to_the_number_of_trials_that_the_heading_names_also_after_an_interruption(
    home, n_confirm
):
    shown, headings, stops = [], [], []

    class Kept(Progress):
        def note(self, text):
            headings.extend(re.findall(r"(\d+) trials × .*, then (\d+) more of the best", text))

        def done(self, **facts):
            super().done(**facts)
            shown.append((self.n_done, self.n_total))
            if self.n_done in stops:
                raise Boom

    study = toy(n_trials=5, n_confirm=n_confirm, learning_curve=(1.0, 0.5, 0.25))
    n_in_all = 5 + min(n_confirm, 5) + 2
    for n_done in (3, 6, n_in_all - 1):
        stops[:] = [n_done]
        with pytest.raises(Boom):
            run(study, home, progress=Kept())
    run(study, home, progress=Kept())
    assert shown == [(k, n_in_all) for k in range(1, n_in_all + 1)]
    assert {int(n) + int(more) for n, more in headings} == {n_in_all}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(space=SPACE | {"width": Int(4, 65, log=True)}), "space.width.high: 64 → 65"),
        (dict(seed=1), "seed: 0 → 1"),
        (dict(objective="val_error"), 'objective: "val_risk" → "val_error"'),
        (dict(objective=("bias_sq", "variance")), "objective: "),
        (dict(fixed=dict(epochs=4, n_train=40)), "fixed.epochs: 3 → 4"),
        (dict(fixed=dict(epochs=3, n_train=40, depth=3)), "fixed.depth: null → 3"),
        (dict(replication=Replication("disjoint", 4, 3)), "replication.n_resamples: 3 → 4"),
        (dict(question="Is it another?"), "question: "),
    ],
)
def test_a_changed_study_file_is_refused_by_field_before_anything_changes(home, change, message):
    run(toy(n_trials=2), home)
    before = state(home)
    with pytest.raises(SpecChanged) as error:
        run(toy(**({"n_trials": 2} | change)), home)
    assert error.value.exit_code == 7
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert state(home) == before


def test_a_study_stored_before_its_plan_had_a_field_goes_on(home):
    run(toy(), home)
    database = databases.open_database(home)
    before = optuna.load_study(storage=database, study_name="toy")
    spec = json.loads(before.user_attrs["spec"])
    assert spec["replication"].pop("stratified") is False
    before.set_user_attr("spec", json.dumps(spec))
    databases.close(database)
    with pytest.raises(SpecChanged, match=r"replication.stratified: false → true"):
        run(toy(replication=Replication("disjoint", 3, 3, stratified=True)), home)
    assert run(toy(n_trials=5), home).n_trained == 1


def test_the_order_of_the_knobs_in_the_file_does_not_matter(home):
    run(toy(n_trials=2), home)
    summary = run(toy(n_trials=3, space=dict(reversed(SPACE.items()))), home)
    assert summary.counts["finished"] == 3
    assert stored(home)[2].params == qmc_point(SPACE, seed=0, number=2)


def test_changed_data_are_refused(home, monkeypatch):
    from lab.data import datasets

    run(toy(n_trials=2), home)
    other = dataclasses.replace(datasets.load("fake", seed=0), digest="f" * 64)
    monkeypatch.setattr(session, "load_dataset", lambda *args, **kwargs: other)
    with pytest.raises(SpecChanged, match=r"content of the data set: .* → ffffffffffff"):
        run(toy(n_trials=2), home)


def test_infeasible_failed_and_diverged_trials_are_counted_and_told_apart(home):
    space = {"batch_size": Choice(13, 16, 17), "momentum": Choice(0.9, 0.5, 0.25)}
    summary = run(toy(sampler="grid", space=space, n_trials=9, learning_curve=()), home)
    assert summary.counts == {"finished": 1, "diverged": 2, "infeasible": 3, "failed": 3}
    assert summary.share_failed == pytest.approx(6 / 9)
    trials = {(t.params["batch_size"], t.params["momentum"]): t for t in stored(home)}
    assert trials[13, 0.9].state.name == trials[17, 0.9].state.name == "FAIL"
    assert trials[13, 0.9].user_attrs["reason"] == "batch_size 13 cannot be built"
    assert trials[17, 0.9].user_attrs["reason"] == "RuntimeError: broke in training"
    assert trials[16, 0.5].user_attrs["n_diverged"] == 4
    assert trials[16, 0.25].values == [2.0]
    survived, half = (runs(home)[f"explore-{trials[16, m].number:04d}"]["metrics"]["final"] for m in (0.9, 0.5))
    assert survived["objective_0"] == pytest.approx(survived["val_risk"], abs=1e-6)
    # of nine replicas, four count with the worst Brier score; the measurement itself leaves them out
    assert half["objective_0"] == pytest.approx((5 * half["val_risk"] + 4 * 2.0) / 9, abs=1e-6)
    assert trials[16, 0.5].values == [half["objective_0"]]


def test_replicas_that_diverged_count_against_both_of_a_pair(home):
    space = {"momentum": Choice(0.9, 0.5, 0.25)}
    study = toy(sampler="grid", space=space, objective=("bias_sq", "variance"), n_trials=3, learning_curve=())
    assert run(study, home).confirmed == "confirm-0000"
    values = {t.params["momentum"]: t.values for t in stored(home)}
    assert values[0.25] == [2.0, 2.0]
    assert all(values[0.5][k] > 4 / 9 * 2.0 for k in (0, 1))


def test_nothing_is_confirmed_when_no_trial_succeeds(home):
    summary = run(toy(fixed=dict(epochs=3, n_train=40, batch_size=13)), home)
    assert summary.counts["infeasible"] == 4
    assert (summary.best, summary.confirmed, summary.share_failed) == (None, None, 1.0)
    assert sorted(runs(home)) == [f"explore-{k:04d}" for k in range(4)]


def test_an_impossible_study_is_refused_before_anything_is_written(home):
    with pytest.raises(SpecError):
        run(toy(fixed=dict(epochs=3, n_train=399)), home)
    with pytest.raises(SpecError):
        run(toy(data="nowhere"), home)
    with pytest.raises(SpecError):
        run(toy(), home, device="abacus")
    assert list(home.root.iterdir()) == []


def test_search_state_without_its_run_history_is_refused_and_the_other_way_round(home):
    run(toy(n_trials=2), home)
    (home.mlruns / "fake_runs" / "toy" / "explore-0001.json").unlink()
    with pytest.raises(StorageError, match="lacks 1 of 2 trials"):
        run(toy(n_trials=2), home)
    home.optuna_db.unlink()
    with pytest.raises(StorageError, match=r"has 1 trials of study toy that mlruns/optuna\.db lacks"):
        run(toy(n_trials=2), home)


def test_a_damaged_search_state_is_a_storage_error_of_one_line(home):
    home.mlruns.mkdir()
    home.optuna_db.write_bytes(b"not a database, " * 400)
    with pytest.raises(StorageError, match=r"optuna\.db cannot be used: .*not a database") as error:
        run(toy(), home)
    assert "\n" not in str(error.value)


def test_two_coordinators_of_one_study_are_not_possible_of_two_studies_they_are(home):
    with storage.coordinator_lock(home, "other"):
        run(toy(n_trials=2), home)
        with pytest.raises(StudyInUse):
            run(toy(n_trials=2), home, name="other")


def test_status_tells_how_a_study_stands(home, monkeypatch):
    assert search.status(home) == []
    with pytest.raises(SpecError, match="nothing was run"):
        search.status(home, "toy")
    with monkeypatch.context() as patch:
        patch.setattr(spool, "remove_outcome", lambda directory: (_ for _ in ()).throw(Boom()))
        with pytest.raises(Boom):
            run(toy(), home)
    [row] = search.status(home)
    assert row["study"] == "toy"
    assert (row["counts"]["finished"], row["n_planned"], row["n_spooled"]) == (1, 4, 1)
    assert row["n_unfinished"] in (0, 1)  # the next one may have been asked for
    run(toy(), home)
    [row] = search.status(home, "toy")
    assert (row["counts"]["finished"], row["n_unfinished"], row["in_use"]) == (4, 0, False)
    assert row["best"]["val_risk"] == min(t.values[0] for t in stored(home))
    with pytest.raises(SpecError, match="choose one of toy"):
        search.status(home, "tay")


def test_status_tells_of_a_study_of_another_program_in_the_database_too(home):
    run(toy(n_trials=2), home)
    database = databases.open_database(home)
    of_another = optuna.create_study(storage=database, study_name="foreign", directions=["minimize"] * 2)
    of_another.tell(of_another.ask(), [0.5, 0.25])
    databases.close(database)
    foreign, toys = search.status(home)
    assert not _is_partial(foreign)  # no command of the lab goes on with it
    assert (foreign["n_planned"], foreign["objective"]) == (None, ["objective_0", "objective_1"])
    assert (foreign["best"]["objective_0"], foreign["best"]["objective_1"]) == (0.5, 0.25)
    assert toys["best"]["val_risk"] == min(t.values[0] for t in stored(home))


def test_status_counts_the_trials_of_another_program_by_their_states_and_takes_the_best_by_its_direction(home):
    database = databases.open_database(home)
    names = ("a study, not ours", "higher", "under way")
    some, higher, under_way = (
        optuna.create_study(storage=database, study_name=name, direction="maximize") for name in names
    )
    for study in (some, higher):
        for value in (1.0, 3.0, 2.0):
            study.tell(study.ask(), value)
    some.tell(some.ask(), state=optuna.trial.TrialState.FAIL)
    under_way.ask()
    databases.close(database)
    found = [_status_text(row) for row in search.status(home)]
    assert found == [
        "a study, not ours: 3 complete, 1 fail; best objective_0 3 (trial 1); of another program",
        "higher: 3 complete; best objective_0 3 (trial 1); of another program",
        "under way: no trial done, 1 under way; of another program",
    ]
    with pytest.raises(StorageError, match=r"higher in the search state was not made by this lab$"):
        search.publish("higher", home=home)
    assert not home.mlflow_db.exists()


def test_a_signal_that_was_dropped_while_the_databases_are_opened_ends_a_run_before_its_first_trial(home, monkeypatch):
    opened = databases.open_database

    def interrupted(home):
        Swallowing(signal.SIGINT)
        return opened(home)

    with monkeypatch.context() as patch, interrupts.heeded(), pytest.raises(KeyboardInterrupt):
        patch.setattr("sys.unraisablehook", lambda dropped: None)
        patch.setattr(databases, "open_database", interrupted)
        run(toy(), home)
    assert stored(home) == []


def test_the_best_few_are_confirmed_and_the_best_of_these_gets_the_learning_curve(home):
    study = toy(n_trials=6, n_confirm=3)
    summary = run(study, home)
    records = runs(home)
    explored = sorted(stored(home), key=lambda t: t.value)
    confirmed = {key: record for key, record in records.items() if key.startswith("confirm")}
    assert set(confirmed) == {f"confirm-{t.number:04d}" for t in explored[:3]}
    objective = {key: record["metrics"]["final"]["objective_0"] for key, record in confirmed.items()}
    assert summary.confirmed == min(objective, key=objective.get)
    curve = [record["config"] for key, record in records.items() if key.startswith("learning_curve")]
    winner = confirmed[summary.confirmed]["config"]["config"]
    assert [c["config"] | {"n_train": 40} for c in curve] == [winner] * len(curve)
    assert run(study, home).n_trained == 0


def test_more_may_be_confirmed_later(home):
    assert run(toy(), home).n_trained == 4 + 2
    again = run(toy(n_confirm=2), home)
    assert again.n_trained in (1, 2)  # another confirmation, and a learning curve if it came out better
    assert len([key for key in runs(home) if key.startswith("confirm")]) == 2


def test_a_study_that_grows_is_confirmed_beyond_all_that_its_trials_may_come_to_have(home, monkeypatch):
    monkeypatch.setattr(growth, "following", lambda plan, shape, found: "cap" if shape == (4, 4) else (4, 4))
    plan = Replication("bootstrap", 3, 3, target_half_width=1e-6, max_resamples=5, max_inits=4, max_replicas=16)
    study = toy(replication=plan, learning_curve=())
    summary = run(study, home)
    records = runs(home)
    for record in records.values():
        used, final = record["config"]["replication"], record["metrics"]["final"]
        assert (final["n_resamples"], final["n_inits"], final["n_replicas"]) == (4, 4, 16)
        assert (used["n_resamples"], used["n_inits"]) == (4, 4)
    confirm = records[summary.confirmed]["config"]
    assert (confirm["first_resample"], confirm["first_init"]) == (5, 4)
    trial = stored(home)[0].user_attrs
    assert (trial["n_resamples"], trial["n_inits"], trial["target_reached"]) == (4, 4, 0)
    (row,) = search.status(home)
    assert row["targets"] == {"reached": 0, "trials": 4}


def test_variants_that_are_not_measured_are_counted_with_the_way_to_them(home, capsys):
    variants = {"baseline": {}, "wide": {"width": 32}, "narrow": {"width": 8}}
    run(toy(space={}, variants=variants, n_trials=2, learning_curve=()), home)
    assert "2 trials × 9 replicas" in (said := capsys.readouterr().err)
    assert "of 3 variants: --trials 3 takes them all" in said
    run(toy(space={}, variants=variants, n_trials=40, learning_curve=()), home, name="all")
    assert "3 trials × 9 replicas" in (said := capsys.readouterr().err)
    assert "; all 3 variants" in said and "takes them all" not in said
