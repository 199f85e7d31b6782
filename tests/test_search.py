import collections
import dataclasses
import io
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import optuna
import pytest

from lab import search, spool, storage, workers
from lab.errors import SpecChanged, SpecError, StorageError, StudyInUse
from lab.progress import Progress
from lab.search import database as databases
from lab.search import samplers, session
from lab.search.points import grid_point, grid_size, qmc_point
from lab.spec import SAMPLERS, Choice, Float, Int, Replication, Study
from lab.storage import Home
from tests import fake_training

SPACE = {
    "learning_rate": Float(1e-4, 1.0, log=True),
    "width": Int(4, 64, log=True),
    "dropout": Float(0.0, 0.5),
    "activation": Choice("relu", "tanh", "gelu"),
}


def toy(**changes):
    fields = dict(
        question="Is it a toy?", data="fake", space=SPACE, fixed=dict(epochs=3, n_train=40),
        replication=Replication("disjoint", 3, 3), n_trials=4, learning_curve=(1.0, 0.5),
    )  # fmt: skip
    return Study(**(fields | changes))


class FakeTracker:
    """Keeps runs as files, as lab.tracking keeps them in MLflow."""

    def __init__(self, folder):
        self.folder = folder

    @classmethod
    def open(cls, study_name, *, home, question):
        folder = home.mlruns / "fake_runs" / study_name
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def publish(self, outcome_dir):
        outcome = spool.read_outcome(outcome_dir)
        names = [name for name in ("config.json", "metrics.json") if name in outcome.contents]
        run = {"run_id": f"run-{outcome.key}", "status": outcome.status, "reason": outcome.reason}
        run |= {name.removesuffix(".json"): outcome.json(name) for name in names}
        for clock in ("seconds", "replicas_per_second"):
            run.get("metrics", {}).get("final", {}).pop(clock, None)
        storage.atomic_write_text(self.folder / f"{outcome.key}.json", json.dumps(run))
        return run["run_id"]

    def run_ids(self):
        return {path.stem: f"run-{path.stem}" for path in self.folder.glob("*.json")}

    def close(self):
        pass


@pytest.fixture(autouse=True)
def faked(monkeypatch):
    from lab import tracking, training
    from lab.data import datasets

    monkeypatch.setattr(tracking, "Tracker", FakeTracker)
    monkeypatch.setattr(training, "fit", fake_training.fit)
    monkeypatch.setattr(training, "count_parameters", fake_training.count_parameters)
    monkeypatch.setitem(datasets.DATASETS, "fake", fake_training.dataset)


@pytest.fixture(scope="module")
def memory():
    """A folder in memory, where there is one: a sync of SQLite costs more here than all else together."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(memory):
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def run(study, home, name="toy", **options):
    return search.run(study, name, home=home, **({"engine": "inline", "device": "cpu"} | options))


def stored(home, name="toy"):
    database = databases.open_database(home)
    try:
        return optuna.load_study(storage=database, study_name=name).get_trials()
    finally:
        databases.close(database)


def runs(home, name="toy"):
    return {p.stem: json.loads(p.read_text()) for p in sorted((home.mlruns / "fake_runs" / name).glob("*.json"))}


def state(home, name="toy"):
    """Return all that an interruption must not change."""
    return [(t.number, t.state.name, t.values, t.params) for t in stored(home, name)], runs(home, name)


# --- samplers ---------------------------------------------------------------------------------------------------------


def test_qmc_covers_every_knob_evenly_categorical_ones_too():
    points = [qmc_point(SPACE, seed=3, number=k) for k in range(64)]
    counts = collections.Counter(point["activation"] for point in points)
    # each 64th of [0, 1) holds one point, so a third of it holds 20 to 22 of them; 64 random draws: 21 ± 4
    assert all(20 <= counts[option] <= 22 for option in ("relu", "tanh", "gelu"))
    eighths = collections.Counter(int(point["dropout"] / 0.5 * 8) for point in points)
    assert eighths == {k: 8 for k in range(8)}
    decades = collections.Counter(int(math.log10(point["learning_rate"] / 1e-4)) for point in points)
    assert decades == {k: 16 for k in range(4)}
    assert len({tuple(point.values()) for point in points}) == 64


def test_a_qmc_point_depends_on_seed_and_number_alone():
    forward = [qmc_point(SPACE, seed=1, number=k) for k in range(10)]
    backward = [qmc_point(SPACE, seed=1, number=k) for k in reversed(range(10))]
    assert forward == backward[::-1]
    assert forward == [qmc_point(dict(reversed(SPACE.items())), seed=1, number=k) for k in range(10)]
    assert forward != [qmc_point(SPACE, seed=2, number=k) for k in range(10)]
    assert qmc_point({}, seed=0, number=5) == {}


def test_a_grid_is_the_product_of_its_knobs_each_point_once():
    space = {"width": Int(4, 16, log=True), "nesterov": Choice(True, False), "dropout": Float(0.0, 0.5, n_grid=2)}
    points = [grid_point(space, number=k) for k in range(grid_size(space))]
    expected = {(d, n, w) for d in (0.0, 0.5) for n in (True, False) for w in (4, 8, 16)}
    assert {(p["dropout"], p["nesterov"], p["width"]) for p in points} == expected
    assert len(points) == len(expected) == 12
    with pytest.raises(IndexError):
        grid_point(space, number=12)


def test_a_grid_study_has_as_many_trials_as_its_grid_has_points(home):
    space = {"width": Int(4, 8, log=True), "activation": Choice("relu", "tanh")}
    summary = run(toy(sampler="grid", space=space, n_trials=40, learning_curve=()), home)
    assert summary.n_planned == summary.counts["finished"] == 4
    assert len({tuple(sorted(t.params.items())) for t in stored(home)}) == 4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_by_name_completes_a_study(home, sampler):
    summary = run(toy(sampler=sampler, n_trials=14, round_size=4, learning_curve=()), home)
    trials = stored(home)
    assert summary.counts == {"finished": 14, "diverged": 0, "infeasible": 0, "failed": 0}
    assert [t.state.name for t in trials] == ["COMPLETE"] * 14
    assert all(set(t.params) == set(SPACE) for t in trials)
    assert len({tuple(t.params.values()) for t in trials}) > 10
    # what is stored is what was trained
    for key, record in runs(home).items():
        if key.startswith("explore"):
            expected = trials[record["config"]["number"]].params
            assert {name: record["config"]["config"][name] for name in SPACE} == expected


@pytest.mark.parametrize("sampler", ["qmc", "tpe", "nsga2", "gp", "random"])
def test_a_pair_of_objectives_is_minimised_and_the_lowest_sum_confirmed(home, sampler):
    study = toy(sampler=sampler, objective=("bias_sq", "variance"), n_trials=12, learning_curve=())
    summary = run(study, home)
    trials = stored(home)
    assert all(len(t.values) == 2 for t in trials)
    lowest = min(trials, key=lambda t: sum(t.values))
    assert summary.confirmed == f"confirm-{lowest.number:04d}"
    dominated = [t for t in trials if t.values[0] < lowest.values[0] and t.values[1] < lowest.values[1]]
    assert dominated == []


def test_a_sampler_that_learns_proposes_better_than_it_began(home):
    run(toy(sampler="tpe", n_trials=40, learning_curve=()), home)
    far = [abs(math.log(t.params["learning_rate"] / 0.01)) for t in stored(home)]
    assert np.mean(far[20:]) < np.mean(far[:10])


# --- interruptions ----------------------------------------------------------------------------------------------------


class Boom(BaseException):
    """A kill: nothing catches it."""


def booby_trap(patch, k):
    """Raise at the k-th crossing of any step that changes something; return the counter."""
    crossings = [0]

    def cross():
        crossings[0] += 1
        if crossings[0] == k:
            raise Boom

    def trap(owner, name, *, after):
        real = getattr(owner, name)

        def wrapped(*args, **kwargs):
            cross()
            result = real(*args, **kwargs)
            if after:
                cross()
            return result

        patch.setattr(owner, name, wrapped)

    trap(optuna.Study, "ask", after=True)
    trap(optuna.storages._cached_storage._CachedStorage, "set_trial_param", after=False)
    trap(optuna.storages._cached_storage._CachedStorage, "set_trial_system_attr", after=True)
    trap(workers.InlineEngine, "submit", after=False)
    trap(workers.inline, "evaluate_together", after=True)
    trap(FakeTracker, "publish", after=True)
    trap(optuna.Study, "tell", after=True)
    trap(spool, "remove_outcome", after=True)
    return crossings


@pytest.mark.parametrize(
    ("sampler", "objective", "first", "skip"),
    [("qmc", "val_risk", 1, 3), ("random", "val_error", 2, 11), ("grid", "val_risk", 3, 13), ("tpe", "val_risk", 4, 9),
     ("tpe", ("bias_sq", "variance"), 3, 13), ("gp", "val_risk", 4, 19), ("nsga2", ("bias_sq", "variance"), 4, 13),
     ("cmaes", "val_risk", 4, 13)],
)  # fmt: skip
def test_a_kill_at_any_step_costs_nothing_and_changes_nothing(tmp_path, monkeypatch, sampler, objective, first, skip):
    # two rounds of the study are done in peace, so that samplers that learn have begun to; the third is killed
    study = toy(sampler=sampler, objective=objective, n_trials=12, round_size=6)
    base, undisturbed = Home(tmp_path / "base"), Home(tmp_path / "undisturbed")
    run(study, base)
    study = dataclasses.replace(study, n_trials=14)
    shutil.copytree(base.root, undisturbed.root)
    run(study, undisturbed)
    expected = state(undisturbed)
    assert [row[1] for row in expected[0]] == ["COMPLETE"] * 14
    k = first
    while True:
        home = Home(tmp_path / f"killed-{k}")
        shutil.copytree(base.root, home.root)
        with monkeypatch.context() as patch:
            crossings = booby_trap(patch, k)
            try:
                run(study, home)
            except Boom:
                pass
            else:
                break
        run(study, home)
        assert state(home) == expected, f"killed at crossing {k}"
        assert list(home.spool_of("toy").iterdir()) == []
        assert not storage.in_use(home, "toy")
        k += skip
    assert k > crossings[0] > 25


def test_killed_again_and_again_a_study_still_ends_as_if_undisturbed(tmp_path, monkeypatch):
    study = toy(n_trials=5)
    undisturbed, home = Home(tmp_path / "undisturbed"), Home(tmp_path / "killed")
    run(study, undisturbed)
    n_kills = 0
    while n_kills < 200:
        with monkeypatch.context() as patch:
            booby_trap(patch, 9)
            try:
                run(study, home)
            except Boom:
                n_kills += 1
            else:
                break
    assert 5 < n_kills < 200
    assert state(home) == state(undisturbed)


def test_a_damaged_outcome_in_the_spool_is_named_and_trained_again(tmp_path, monkeypatch, capsys):
    study = toy(n_trials=2)
    undisturbed, home = Home(tmp_path / "undisturbed"), Home(tmp_path / "killed")
    run(study, undisturbed)
    with monkeypatch.context() as patch:
        patch.setattr(FakeTracker, "publish", lambda *args: (_ for _ in ()).throw(Boom()))
        with pytest.raises(Boom):
            run(study, home)
    [directory] = spool.pending(home, "toy")
    content = bytearray((directory / "metrics.json").read_bytes())
    content[40] ^= 1
    (directory / "metrics.json").write_bytes(content)
    run(study, home)
    assert "explore-0000/metrics.json is not what was written" in capsys.readouterr().err
    assert state(home) == state(undisturbed)


def test_an_outcome_of_another_configuration_is_not_published(home, monkeypatch):
    study = toy(n_trials=2)
    with monkeypatch.context() as patch:
        patch.setattr(FakeTracker, "publish", lambda *args: (_ for _ in ()).throw(Boom()))
        with pytest.raises(Boom):
            run(study, home)
    [directory] = spool.pending(home, "toy")
    outcome = spool.read_outcome(directory)
    config = outcome.json("config.json")
    config["config"]["width"] += 1
    spool.remove_outcome(directory)
    files = dict(outcome.contents) | {"config.json": json.dumps(config).encode()}
    spool.write_outcome(home, "toy", "explore", 0, files, status="finished", started=0.0, finished=1.0)
    with pytest.raises(StorageError, match="another study or configuration"):
        run(study, home)
    assert runs(home) == {}


# --- the study as a whole ---------------------------------------------------------------------------------------------


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


def test_samplers_that_ignore_results_keep_workers_fed_and_those_that_learn_wait_for_their_round(home, monkeypatch):
    class Slow(workers.InlineEngine):
        """Has room for six, and records how many tasks are open when one comes out."""

        capacity = 6
        seen: ClassVar[list[int]] = []

        def next_done(self, timeout):
            self.seen.append(self.n_open)
            return super().next_done(timeout)

    monkeypatch.setattr(workers, "InlineEngine", Slow)
    run(toy(n_trials=10, learning_curve=()), home)
    assert Slow.seen == [6, 6, 6, 6, 6, 5, 4, 3, 2, 1, 1]  # the last is the confirmation
    Slow.seen.clear()
    run(toy(sampler="tpe", n_trials=10, round_size=4, learning_curve=()), home, name="learns")
    assert Slow.seen == [4, 3, 2, 1, 4, 3, 2, 1, 2, 1, 1]


def test_progress_is_a_plain_line_now_and_then_where_there_is_no_terminal():
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(stream=stream, clock=lambda: now[0])
    progress.begin(n_done=2, n_total=12)
    for _ in range(10):
        now[0] += 1.0
        progress.done(n_replicas=32, best="best val_risk 0.112 [0.101, 0.124] (trial 7)")
    progress.end()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "7/12 trials · 32.0 replicas/s · 5 s left · best val_risk 0.112 [0.101, 0.124] (trial 7)",
        "12/12 trials · 32.0 replicas/s · 0 s left · best val_risk 0.112 [0.101, 0.124] (trial 7)",
    ]


@pytest.mark.parametrize(("no_color", "escapes"), [("", True), ("1", False)])
def test_progress_renews_one_line_on_a_terminal_and_respects_no_color(monkeypatch, no_color, escapes):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    now = [0.0]
    progress = Progress(stream=Terminal(), clock=lambda: now[0])
    progress.begin(n_done=0, n_total=3)
    for _ in range(3):
        now[0] += 1.0
        progress.done(n_replicas=8, best="")
    text = progress.stream.getvalue()
    assert text.count("\r") == 3
    assert "\n" not in text
    assert ("\x1b" in text) is escapes
    progress.end()
    assert progress.stream.getvalue().endswith("\n")


def test_a_tpe_study_asks_its_sampler_anew_with_a_seed_of_the_trial():
    seeds = []

    def make(seed):
        seeds.append(seed)
        return optuna.samplers.RandomSampler(seed=seed)

    study = optuna.create_study(sampler=samplers.SeededSampler(make, list(SPACE), 0))
    first = [samplers.suggest(study.ask(), toy()) for _ in range(3)]
    again = optuna.create_study(sampler=samplers.SeededSampler(make, list(SPACE), 0))
    assert first == [samplers.suggest(again.ask(), toy()) for _ in range(3)]
    assert seeds[: len(seeds) // 2] == seeds[len(seeds) // 2 :]
    assert len(set(seeds)) == 3 * (1 + len(SPACE))  # one for what is proposed together, one a knob
