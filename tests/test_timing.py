"""The time of an epoch of a variant is taken against the baseline, is recorded with it, and never costs a trial."""

import dataclasses
import json

import pytest

from lab import timing, training
from lab.knobs import TrialConfig
from lab.spec import Replication, Study
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate

STUDY = Study(
    question="?", data="digits", fixed=dict(width=8, depth=1, epochs=16, n_train=30),
    variants={"plain": {"dropout": 0.1}, "wider": {"width": 32, "resize": 10}},
    replication=Replication("disjoint", 2, 2), n_validation=20, n_test=30, learning_curve=(),
)  # fmt: skip


def task(variant, phase="explore"):
    spec = json.loads(json.dumps(STUDY.to_dict()))
    config = dataclasses.asdict(STUDY.config({"variant": variant}))
    return Task(study="s", spec=spec, phase=phase, number=0, config=config, variant=variant)


def outcome(tmp_path, of):
    folder = evaluate(of, Home(tmp_path))
    read = (json.loads((folder / f"{name}.json").read_text()) for name in ("manifest", "metrics", "environment"))
    manifest, metrics, environment = read
    assert manifest["status"] == "finished"
    return metrics["final"], environment["events"]


def test_the_baseline_is_the_first_variant_with_all_that_it_changes():
    found = timing.baseline_of(task("wider"))
    assert (found.config["width"], found.config["dropout"]) == (8, 0.1)
    assert timing.baseline_of(task("plain")) is None
    assert timing.baseline_of(task("wider", phase="confirm")) is None
    plain = dataclasses.replace(STUDY, variants={}, space={})
    spec = json.loads(json.dumps(plain.to_dict()))
    assert timing.baseline_of(dataclasses.replace(task("wider"), spec=spec, variant=None)) is None


def test_a_variant_records_the_time_of_its_epochs_beside_those_of_the_baseline(tmp_path, monkeypatch):
    asked = []

    def fake(pair, replication, *, n_pairs, **others):
        asked.append([(config.width, dataset.image_shape[1]) for config, dataset in pair])
        assert (replication.n_replicas, n_pairs) == (4, 2)
        return [[2.0, 3.0], [2.0, 3.0], [2.0, 4.0], [2.0, 3.0], [2.0, 2.0]]

    monkeypatch.setattr(training, "epoch_seconds", fake)
    final, events = outcome(tmp_path, task("wider"))
    assert asked == [[(8, 8), (32, 10)]]  # each on images of its own size
    assert (final["epoch_seconds"], final["epoch_seconds_baseline"], final["n_timings"]) == (3.0, 2.0, 5)
    assert final["epoch_seconds_difference_lo"] < 1.0 < final["epoch_seconds_difference_hi"]
    assert events == []


@pytest.mark.parametrize(("epochs", "n_pairs"), [(1, 0), (15, 0), (16, 2), (24, 3), (40, 5), (1000, 5)])
def test_timing_takes_a_third_of_the_epochs_of_a_training_at_the_most_or_a_little_more(epochs, n_pairs):
    assert timing.pairs_of(TrialConfig(epochs=epochs)) == n_pairs
    assert not n_pairs or 2 * (n_pairs + 1) <= 0.4 * epochs  # with the epoch of each that is not counted


def test_a_short_training_is_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "epoch_seconds", lambda *args, **options: pytest.fail("timed"))
    short = dataclasses.replace(task("wider"), config=task("wider").config | {"epochs": 3})
    final, events = outcome(tmp_path, short)
    assert "epoch_seconds" not in final
    assert events == []


def test_a_baseline_is_not_timed_against_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "epoch_seconds", lambda *args, **options: pytest.fail("timed"))
    assert "epoch_seconds" not in outcome(tmp_path, task("plain"))[0]


def test_a_time_that_cannot_be_taken_is_said_and_the_trial_stands(tmp_path, monkeypatch):
    def full(*args, **options):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(training, "epoch_seconds", full)
    final, events = outcome(tmp_path, task("wider"))
    assert "epoch_seconds" not in final
    assert "risk" in final
    assert events == ["the time of an epoch was not taken: RuntimeError: out of memory"]
