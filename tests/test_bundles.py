"""Trials of equal form are trained in one pack, and nobody can tell from what they give."""

import dataclasses
import io
import json
from collections import deque
from functools import partial

import numpy as np
import pandas as pd
import pytest

from lab import outcome, search, spool, training, trial, weights, workers
from lab.course import Course
from lab.knobs import TrialConfig
from lab.spec import Choice, Float, Replication, Study
from lab.storage import Home
from lab.task import Task
from lab.training import strategy
from lab.trial import evaluate, evaluate_together
from lab.workers import InlineEngine
from lab.workers.bundles import take_bundle
from tests.toys import FakeTracker

FIXED = dict(width=8, depth=1, epochs=6, n_train=30, batch_size=8)
STUDY = Study(
    question="?", data="digits", fixed=FIXED, replication=Replication("bootstrap", 2, 2), n_validation=20, n_test=30
)
SAME = ("curves.parquet", "decomposition.json", "config.json", "predictions.npz")


def task(number, *, attempt=1, device="cpu", study="s", spec=STUDY, **knobs):
    config = dataclasses.asdict(TrialConfig(**(FIXED | knobs)))
    spec = json.loads(json.dumps(spec.to_dict()))
    return Task(study, spec, "explore", number, config, attempt=attempt, device=device)


MIXED = [
    dict(learning_rate=0.01),
    dict(learning_rate=0.1, optimizer="adam", dropout=0.3, schedule="cosine"),
    dict(learning_rate=0.05, patience=1, label_noise=0.2, noisy_targets=True),
]


def taken(tasks, most=100):
    waiting = deque(tasks)
    return [t.number for t in take_bundle(waiting, lambda task: most)], [t.number for t in waiting]


# --- which go together


def test_a_bundle_is_the_first_task_and_those_of_its_shape_and_the_rest_keeps_its_order():
    tasks = [task(0), task(1, width=16), task(2, learning_rate=0.1), task(3, width=16), task(4, dropout=0.5)]
    assert taken(tasks) == ([0, 2, 4], [1, 3])


@pytest.mark.parametrize(("most", "bundle"), [(0, [0]), (4, [0]), (11, [0, 1]), (12, [0, 1, 2])])
def test_a_bundle_has_no_more_replicas_than_a_pack_may_have(most, bundle):
    assert taken([task(k) for k in range(5)], most)[0] == bundle


def test_who_lost_a_worker_before_goes_alone_so_that_its_company_is_not_blamed():
    assert taken([task(0), task(1, attempt=2), task(2)]) == ([0, 2], [1])
    assert taken([task(0, attempt=3), task(1)]) == ([0], [1])
    assert taken([task(0, attempt=4), task(1, attempt=4)]) == ([0, 1], [])  # the first attempt of a later session


def test_tasks_of_different_studies_or_devices_do_not_go_together():
    assert taken([task(0), task(1, study="t"), task(2, device="cuda")]) == ([0], [1, 2])


def test_trials_that_grow_go_alone_as_each_grows_by_what_its_own_results_say():
    growing = dataclasses.replace(STUDY, replication=Replication("bootstrap", 3, 3, target_half_width=0.1))
    assert taken([task(0, spec=growing), task(1, spec=growing)]) == ([0], [1])


def test_on_a_cpu_trials_go_alone_and_on_a_gpu_they_share_a_pack():
    assert [t.number for t in take_bundle(deque([task(0), task(1)]))] == [0]
    assert [t.number for t in take_bundle(deque([task(0, device="cuda"), task(1, device="cuda")]))] == [0, 1]


def test_on_a_gpu_trials_of_several_widths_go_together_where_filling_up_changes_nothing():
    tasks = [task(k, device="cuda", width=width) for k, width in enumerate((8, 16, 5))]
    assert taken(tasks) == ([0, 1, 2], [])
    assert taken([task(0, device="cuda", norm="layer"), task(1, device="cuda", norm="layer", width=9)]) == ([0], [1])


# --- what comes of it


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("alone"))
    return [spool.read_outcome(evaluate(task(k, **knobs), home)) for k, knobs in enumerate(MIXED)]


def check(folders, alone):
    for folder, expected in zip(folders, alone, strict=True):
        found = spool.read_outcome(folder)
        assert found.status == expected.status == "finished"
        for name in SAME:
            assert found.contents[name] == expected.contents[name], name


def test_trials_trained_together_write_what_each_writes_alone(tmp_path, alone):
    tasks = [task(k, **knobs) for k, knobs in enumerate(MIXED)]
    check(evaluate_together(tasks, Home(tmp_path)), alone)


WIDTHS = [dict(width=8), dict(width=13, learning_rate=0.01), dict(width=3, dropout=0.3), dict(width=8, patience=1)]


def packs_of(tasks, home, monkeypatch):
    """Train tasks as a worker does that got them together; return their folders, and the widths of each pack."""
    sizes, fit_many = [], training.fit_many

    def noted(jobs, *args, **options):
        sizes.append([job.config.width for job in jobs])
        return fit_many(jobs, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit_many", noted)
        return evaluate_together(tasks, home), sizes


def numbers(value):
    """Return the numbers in a JSON value, those of time left out."""
    if isinstance(value, dict):
        return [n for key, inner in value.items() if "second" not in key for n in numbers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def test_trials_of_several_widths_trained_in_one_pack_write_what_each_writes_alone(tmp_path, monkeypatch):
    tasks = [dataclasses.replace(task(k, **knobs), phase="confirm") for k, knobs in enumerate(WIDTHS)]
    folders, packs = packs_of(tasks, Home(tmp_path / "together"), monkeypatch)
    assert packs == [[13, 8, 8, 3]]
    for one, folder in zip(tasks, folders, strict=True):
        found, expected = (spool.read_outcome(f) for f in (folder, evaluate(one, Home(tmp_path / "alone"))))
        assert found.status == expected.status == "finished"
        assert found.contents.keys() == expected.contents.keys()
        assert found.contents["config.json"] == expected.contents["config.json"]
        for name in ("curves.parquet", "signals.parquet"):
            ours, theirs = (pd.read_parquet(io.BytesIO(side.contents[name])) for side in (found, expected))
            pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-5)
        for name in ("decomposition.json", "metrics.json", "per_class.json"):
            ours, theirs = (numbers(side.json(name)) for side in (found, expected))
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=name)
        (ours, _), (theirs, _) = (weights.unpacked(side.contents[weights.FILE]) for side in (found, expected))
        for replica, alone in zip(ours, theirs, strict=True):
            assert replica.keys() == alone.keys()
            for name, values in alone.items():
                np.testing.assert_allclose(replica[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_where_filling_up_does_not_pay_a_bundle_is_trained_in_several_packs(tmp_path, monkeypatch):
    tasks = [task(k, **knobs) for k, knobs in enumerate(WIDTHS)]
    monkeypatch.setattr(strategy, "STEP_SECONDS", 0.0)
    folders, packs = packs_of(tasks, Home(tmp_path), monkeypatch)
    assert packs == [[8, 8]]  # the others are trained alone
    written = [spool.read_outcome(folder).json("config.json") for folder in folders]
    assert [outcome["number"] for outcome in written] == [0, 1, 2, 3]
    assert [outcome["n_parameters"] for outcome in written] == [64 * w + w + 10 * w + 10 for w in (8, 13, 3, 8)]


def test_a_trial_of_a_bundle_that_cannot_be_built_is_infeasible_and_its_mates_finish(tmp_path):
    tasks = [task(0, width=8), task(1, width=5, spatial_dropout=0.2), task(2, width=3)]
    statuses = [spool.read_outcome(folder).status for folder in evaluate_together(tasks, Home(tmp_path))]
    assert statuses == ["finished", "infeasible", "finished"]


def test_the_seconds_of_a_trial_are_its_share_of_the_packs(tmp_path, monkeypatch):
    tasks = [task(k) for k in range(3)]
    monkeypatch.setattr(Course, "seconds", lambda course: 12.0)
    outcomes = [spool.read_outcome(folder) for folder in evaluate_together(tasks, Home(tmp_path))]
    seconds = [outcome.json("metrics.json")["final"]["seconds"] for outcome in outcomes]
    assert seconds == [pytest.approx(4.0)] * 3


def test_what_breaks_a_pack_is_trained_alone_and_so_are_its_mates(tmp_path, alone, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(training, "fit_many", broken)
    monkeypatch.setattr(training, "fit", partial(fit_with, training.loop.fit_many))
    check(evaluate_together([task(k, **knobs) for k, knobs in enumerate(MIXED)], Home(tmp_path)), alone)


def fit_with(
    fit_many, config, dataset, replication, *, first_resample, first_init, first_noise, keep_weights, **options
):
    jobs = [training.Job(config, replication, first_resample, first_init, first_noise, keep_weights)]
    for (evaluation,) in fit_many(jobs, dataset, **options):
        yield evaluation


def test_a_pack_that_was_killed_goes_on_from_the_checkpoint_of_each_trial(tmp_path, alone, monkeypatch):
    monkeypatch.setenv("LAB_CHECKPOINT_SECONDS", "0")
    home, tasks, ticks = Home(tmp_path), [task(k, **knobs) for k, knobs in enumerate(MIXED)], []

    class Killed(BaseException):
        pass

    def tick():
        ticks.append(None)
        if len(ticks) == 4:
            raise Killed

    with pytest.raises(Killed):
        evaluate_together(tasks, home, tick=tick)
    assert all(any(home.checkpoints_of(t.study, t.key).iterdir()) for t in tasks)
    n_begun = len(ticks)
    check(evaluate_together(tasks, home, tick=lambda: ticks.append(None)), alone)
    assert len(ticks) - n_begun < 3 * len(training.evaluation_epochs(6, STUDY.n_evaluations))
    assert not any(home.checkpoints_of(t.study, t.key).exists() for t in tasks)


def test_what_happened_on_the_way_is_in_the_outcome(tmp_path, monkeypatch):
    def fit_many(jobs, dataset, *, on_event, **options):
        on_event("8 replicas did not fit in the memory of cuda together: their pack was halved")
        return training.loop.fit_many(jobs, dataset, on_event=on_event, **options)

    monkeypatch.setattr(training, "fit_many", fit_many)
    for folder in evaluate_together([task(0), task(1)], Home(tmp_path)):
        [event] = spool.read_outcome(folder).json("environment.json")["events"]
        assert "halved" in event
    with monkeypatch.context() as patch:  # and what happens to one of them is not in those of the others
        patch.setattr(outcome, "results", lambda t, *_, note, results=outcome.results, **__: (
            note(f"trial {t.number} alone"), results(t, *_, note=note, **__))[1])  # fmt: skip
        for number, folder in zip((3, 4), evaluate_together([task(3), task(4)], Home(tmp_path)), strict=True):
            _, event = spool.read_outcome(folder).json("environment.json")["events"]
            assert event == f"trial {number} alone"
    [folder] = evaluate_together([task(2)], Home(tmp_path))
    assert spool.read_outcome(folder).json("environment.json")["events"] == []


# --- in a study


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_a_search_proposes_and_finds_the_same_however_its_packs_are_cut(tmp_path, monkeypatch, sampler):
    study = dataclasses.replace(
        STUDY, fixed={k: v for k, v in FIXED.items() if k != "width"}, n_trials=6, sampler=sampler, round_size=3,
        space=dict(learning_rate=Float(1e-3, 1e-1, log=True), width=Choice(8, 12)), learning_curve=(),
    )  # fmt: skip
    from lab import tracking

    monkeypatch.setattr(tracking, "Tracker", FakeTracker)
    found, sizes = {}, []
    together = trial.evaluate_together

    def counted(tasks, home, **options):
        sizes.append(len(tasks))
        return together(tasks, home, **options)

    class Wide(InlineEngine):
        """Asks ahead, as on a GPU."""

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.capacity = 4

    monkeypatch.setattr(workers, "InlineEngine", Wide)
    monkeypatch.setattr(workers.inline, "evaluate_together", counted)
    for most in (0, 8, 100):
        monkeypatch.setattr(workers.inline, "take_bundle", partial(take_bundle, most=lambda task, most=most: most))
        home = Home(tmp_path / str(most))
        search.run(study, "s", home=home, engine="inline", device="cpu")
        runs = [json.loads(path.read_text()) for path in sorted((home.mlruns / "fake_runs" / "s").glob("*.json"))]
        found[most] = [(run["config"]["config"], run["metrics"]["final"]) for run in runs]
    assert found[0] == found[8] == found[100]
    assert max(sizes) > 1
