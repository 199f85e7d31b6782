"""A study of two stages: networks learn other data first, once, and replicas start from them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab import pretraining, search, study_file, training, weights
from lab.data.datasets import load
from lab.errors import SpecError
from lab.replication import Grid
from lab.spec import Choice, Pretraining, Replication, Study
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate

FIRST = Pretraining(data="[0-4]", fixed=dict(n_train=200, epochs=3, learning_rate=0.01), n_seeds=2)
SMALL = dict(width=8, depth=2, epochs=2, n_train=40, learning_rate=0.01)


def two_stages(**changes: Any) -> Study:
    fields: dict[str, Any] = dict(
        question="?", data="digits[5-9]", pretraining=FIRST,
        fixed=SMALL | dict(weights="pretraining", new_head=True),
        replication=Replication("bootstrap", 2, 3), n_trials=1, n_validation=20, n_test=30,
    )  # fmt: skip
    return Study(**(fields | changes))


def trained(study: Study, home: Home, **knobs: Any) -> Path:
    config = dataclasses.asdict(study.config({})) | knobs
    task = Task(study="s", spec=json.loads(json.dumps(study.to_dict())), phase="confirm", number=0, config=config)
    return evaluate(task, home)


def test_a_replica_starts_from_the_network_of_its_seed_trained_on_the_other_classes(tmp_path):
    """Nothing is trained afterwards, so what is kept is what it started from."""
    study = two_stages(fixed=SMALL | dict(weights="pretraining", new_head=True, frozen=1.0))
    folder = trained(study, Home(tmp_path))
    (kept,) = (tmp_path / "mlruns" / "pretrained").iterdir()
    request = json.loads((folder / "config.json").read_text())
    assert request["weights_digest"] == weights.read(kept).digest
    assert request["config"]["weights"] == "pretraining"
    first = load("digits[0-4]", seed=0)
    config = dataclasses.replace(study.config({}), weights="", new_head=False, frozen=0.0, n_train=200, epochs=3)
    *_, alone = training.fit(config, first, Grid("seeds", 1, 2), seed=0, n_evaluations=2, keep_weights=True)
    replicas, record = weights.unpacked((folder / weights.FILE).read_bytes())
    for tensors, row in zip(replicas, record["replicas"], strict=True):
        expected = alone.weights["hidden0.weight"][row["init"] % 2].T
        np.testing.assert_array_equal(tensors["hidden0.weight"], expected)


def test_networks_of_a_trial_that_resizes_its_images_learn_from_images_of_that_size(tmp_path):
    study = two_stages(fixed=SMALL | dict(weights="pretraining", new_head=True, resize=4, normalize="none"))
    folder = trained(study, Home(tmp_path))
    assert json.loads((folder / "manifest.json").read_text())["status"] == "finished"
    (kept,) = (tmp_path / "mlruns" / "pretrained").iterdir()
    assert weights.read(kept).replicas[0]["hidden0.weight"].shape == (8, 16)


def test_networks_are_trained_once_an_architecture(tmp_path, monkeypatch):
    calls = []

    def counted(*args: Any, fit: Any = training.fit, **options: Any) -> Any:
        calls.append(args[1].name)
        return fit(*args, **options)

    monkeypatch.setattr(training, "fit", counted)
    study, home = two_stages(), Home(tmp_path)
    trained(study, home)
    trained(study, home, learning_rate=0.003)
    trained(study, home, width=4)
    assert calls.count("digits[0-4]") == 2
    assert calls.count("digits[5-9]") == 3


def test_a_study_of_two_stages_runs_like_any_other(tmp_path):
    study = two_stages(
        space=dict(weights=Choice("", "pretraining", role="scientific")), fixed=SMALL | dict(new_head=True),
        sampler="grid", n_trials=2, learning_curve=(),
    )  # fmt: skip
    summary = search.run(study, "s", home=Home(tmp_path), engine="inline", device="cpu")
    assert summary.counts["finished"] == 2


def test_the_study_of_transfer_and_its_small_version_are_possible():
    study = study_file.load(Path(__file__).parent.parent / "studies" / "transfer.py")
    for version in (study, study.smoke()):
        search.prepare(version)
        assert {version.config(dict(n_train=20, weights=w, frozen=1.0)).weights for w in version.values("weights")} == {
            "", "pretraining",
        }  # fmt: skip


def test_a_pretraining_that_diverges_makes_the_trial_infeasible_and_says_why(tmp_path):
    wild = dict(learning_rate=100.0, optimizer="sgd", init_gain=5.0, epochs=5, n_train=100)
    study = two_stages(pretraining=Pretraining(data="[0-4]", fixed=wild))
    folder = trained(study, Home(tmp_path), activation="leaky_relu")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "infeasible"
    assert manifest["reason"] == "pretraining on digits[0-4] diverged: lower its learning_rate"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: two_stages(pretraining=None), "give Pretraining"),
        (lambda: two_stages(fixed=SMALL), "give Pretraining"),
        (lambda: Pretraining("digits", dict(width=3)), "pretraining: width is that of the trial"),
        (lambda: Pretraining("digits", dict(widht=3)), "pretraining: unknown knob 'widht'"),
        (lambda: Pretraining("digits", n_seeds=0), "pretraining: n_seeds = 0 has to be an integer from 1 to 64"),
        (lambda: two_stages(data="digits[5-9]/../x"), "not a usable name"),
        (lambda: search.prepare(two_stages(pretraining=Pretraining("[0-40]"))), "digits has the classes 0 to 9"),
        (
            lambda: search.prepare(two_stages(pretraining=None, fixed=SMALL | dict(weights="/nowhere"))),
            "cannot be read",
        ),
    ],
)
def test_an_impossible_pretraining_is_refused_before_anything_is_written(make, said):
    with pytest.raises(SpecError, match=said):
        make()


def test_a_specification_without_pretraining_is_stored_as_it_was():
    assert "pretraining" not in two_stages(pretraining=None, fixed=SMALL).to_dict()


def test_pretraining_uses_the_data_set_of_the_study_or_another_by_name():
    spec = two_stages().to_dict()
    assert pretraining.dataset_of(spec, data_dir=None, study_file=None).name == "digits[0-4]"
    spec["pretraining"] = Pretraining("digits[2-6]").to_dict()
    assert pretraining.dataset_of(spec, data_dir=None, study_file=None).name == "digits[2-6]"
