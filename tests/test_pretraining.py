"""A study of two stages: networks learn other data first, once, and replicas start from them."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lab import first_stage, history, models, own_families, search, study_file, training, weights
from lab.data.datasets import load
from lab.errors import SpecError, StorageError
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


NUMBERS = itertools.count()  # of two outcomes of one trial the first would stay


def trained(study: Study, home: Home, *, where: dict[str, Any] | None = None, **knobs: Any) -> Path:
    """Train a trial; `where` are further fields of its task."""
    config = dataclasses.asdict(study.config({})) | knobs
    spec = json.loads(json.dumps(study.to_dict()))
    task = dict(study="s", spec=spec, phase="confirm", number=next(NUMBERS), config=config)
    return evaluate(Task(**(task | (where or {}))), home)


def kept(home: Home) -> dict[str, dict[str, Any]]:
    """Digest → index of the networks that were trained before."""
    folders = [path for path in (home.mlruns / "pretrained").iterdir() if path.is_dir()]
    return {weights.read(path).digest: json.loads((path / weights.INDEX).read_text()) for path in folders}


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


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


@pytest.mark.parametrize(("n_seeds", "start_of"), [(2, {3: 5, 4: 4, 5: 5}), (4, {3: 7, 4: 4, 5: 5})])
def test_a_confirmation_starts_from_networks_that_the_search_never_saw(tmp_path, n_seeds, start_of):
    """Seeds 3 to 5 of it are the first that no trial of three seeds has had; networks come in twos or fours."""
    first = dataclasses.replace(FIRST, n_seeds=n_seeds)
    fixed = SMALL | dict(weights="pretraining", new_head=True, frozen=1.0)
    study, home = two_stages(pretraining=first, fixed=fixed), Home(tmp_path)
    trained(study, home, where=dict(phase="explore"))
    (searched,) = kept(home)
    folder = trained(study, home, where=dict(first_resample=2, first_init=3))
    networks = kept(home)
    assert len(networks) == 2
    assert [row["init"] for row in networks.pop(searched)["replicas"]] == [*range(n_seeds)]
    ((digest, index),) = networks.items()
    assert [row["init"] for row in index["replicas"]] == [*range(4, 4 + n_seeds)]
    assert json.loads((folder / "config.json").read_text())["weights_digest"] == digest
    replicas, record = weights.unpacked((folder / weights.FILE).read_bytes())
    (path,) = (p for p in (home.mlruns / "pretrained").iterdir() if weights.read(p).digest == digest)
    starts = {row["init"]: tensors for row, tensors in zip(index["replicas"], weights.read(path).replicas, strict=True)}
    for tensors, row in zip(replicas, record["replicas"], strict=True):
        expected = starts[start_of[row["init"]]]
        np.testing.assert_array_equal(tensors["hidden0.weight"], expected["hidden0.weight"])


OWN = """
from torch import nn

def mine(image_shape, n_classes, config):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, {width}), nn.ReLU(), nn.Linear({width}, n_classes))
"""


def test_networks_of_a_family_of_the_study_file_are_trained_again_once_the_file_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.models.FAMILIES", dict(models.FAMILIES))
    own_families.register.cache_clear()
    path, home = tmp_path / "own.py", Home(tmp_path)
    first = Pretraining("digits", dict(n_train=100, epochs=1), n_seeds=2)
    study = two_stages(
        data="digits", pretraining=first, fixed=dict(family="mine", weights="pretraining", epochs=1, n_train=40)
    )
    for width, n_kept in ((5, 1), (5, 1), (7, 2)):
        path.write_text(OWN.format(width=width))
        own_families.register.cache_clear()  # as a new process does
        assert manifest(trained(study, home, where=dict(study_file=str(path))))["status"] == "finished"
        assert len(kept(home)) == n_kept
    own_families.register.cache_clear()


def breaking(error: Exception, name: str = "digits[0-4]"):
    """Training that breaks on the first data, and counts how often it is tried."""
    tried: list[str] = []

    def fit(config: Any, dataset: Any, *args: Any, whole: Any = training.fit, **options: Any) -> Any:
        tried.append(dataset.name)
        if dataset.name == name:
            raise error
        return whole(config, dataset, *args, **options)

    return fit, tried


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RuntimeError("no such\nkernel"), "failed", "PretrainingError: on digits[0-4]: RuntimeError: no such kernel"),
        (MemoryError("no room"), "failed", "no room"),
        (ValueError("cannot be"), "infeasible", "cannot be"),
        (SpecError("diverged"), "infeasible", "diverged"),
    ],
)
def test_what_goes_wrong_before_is_the_outcome_of_the_trial_and_not_the_end_of_the_study(
    tmp_path, monkeypatch, error, status, said
):
    fit, _ = breaking(error)
    monkeypatch.setattr(training, "fit", fit)
    found = manifest(trained(two_stages(), Home(tmp_path)))
    assert found["status"] == status
    assert said in found["reason"]


@pytest.mark.parametrize(
    ("error", "n_tried"),
    [
        (RuntimeError("no such kernel"), 1), (ValueError("cannot be"), 1), (SpecError("diverged"), 1),
        (MemoryError("no room"), 2), (OSError("gone"), 2),  # both may be over by the next trial
    ],
)  # fmt: skip
def test_pretraining_that_failed_is_not_tried_again_in_the_next_trial_but_in_the_next_run(
    tmp_path, monkeypatch, error, n_tried
):
    fit, tried = breaking(error)
    home = Home(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(training, "fit", fit)
        first, second = (manifest(trained(two_stages(), home, learning_rate=rate)) for rate in (0.01, 0.02))
    assert tried.count("digits[0-4]") == n_tried
    assert (first["status"], first["reason"]) == (second["status"], second["reason"])
    first_stage.tidy(home)
    found = manifest(trained(two_stages(), home))
    assert found["status"] == "finished", found["reason"]
    assert [path.name for path in (home.mlruns / "pretrained").iterdir() if path.is_file()] == []


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("no room"), OSError(28, "no space")])
def test_a_lack_of_memory_or_disk_is_not_kept_for_the_next_trial(tmp_path, monkeypatch, error):
    study, home = two_stages(), Home(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(weights, "as_torch", lambda *_, **__: (_ for _ in ()).throw(error))
        with contextlib.suppress(StorageError):
            assert manifest(trained(study, home))["status"] == "failed"
    assert manifest(trained(study, home))["status"] == "finished"


def test_networks_that_did_not_fit_in_memory_are_trained_by_the_next_trial(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    study, home = two_stages(), Home(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training.loop, "_differentiate", full)
        first = manifest(trained(study, home))
    assert first["status"] == "failed"
    assert "one replica does not fit" in first["reason"]
    assert manifest(trained(study, home))["status"] == "finished"


def test_a_trial_keeps_which_networks_it_began_with_though_they_go_while_it_trains(tmp_path, monkeypatch):
    def fit(*args: Any, fit: Any = training.fit, **options: Any) -> Any:
        yield from fit(*args, **options)
        if not options["keep_weights"] or args[1].name == "digits[5-9]":
            shutil.rmtree(tmp_path / "mlruns" / "pretrained")

    monkeypatch.setattr(training, "fit", fit)
    folder = trained(two_stages(), Home(tmp_path))
    assert manifest(folder)["status"] == "finished"
    assert len(json.loads((folder / "config.json").read_text())["weights_digest"]) == 64


def test_a_run_begins_by_forgetting_what_failed_and_what_was_left_half_written(tmp_path):
    folder, other = tmp_path / "mlruns" / "pretrained", tmp_path / "mlruns" / "features"
    left = [folder / f"0123{first_stage.FAILED}", folder / ".0123.abc.tmp", other / ".4567.abc.tmp"]
    young = folder / ".89ab.abc.tmp"
    for path in (left[1], other, young):
        path.mkdir(parents=True)
    for path in (left[0], left[1] / "replica-0000.safetensors", left[2]):
        path.write_text("{}")
    for path in left:
        os.utime(path, (1, 1))
    study = two_stages(pretraining=None, fixed=SMALL, data="digits", learning_curve=())
    search.run(study, "s", home=Home(tmp_path), engine="inline", device="cpu")
    assert not any(path.exists() for path in left)
    assert young.exists()  # somebody may be writing it


def test_networks_that_another_wrote_meanwhile_stay_as_they_are(tmp_path):
    """As when a stopped worker is continued after its replacement has made them."""
    one, other = ([{"a": np.full(3, value, dtype=np.float32)}] for value in (1, 2))
    weights.write(tmp_path / "w", one, [{"replica": 0}], {})
    weights.write(tmp_path / "w", other, [{"replica": 0}], {}, replaces=False)
    assert weights.read(tmp_path / "w").replicas[0]["a"].tolist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    weights.write(tmp_path / "w", other, [{"replica": 0}], {})
    assert weights.read(tmp_path / "w").replicas[0]["a"].tolist() == [2, 2, 2]


def test_a_trial_starts_from_the_networks_that_another_wrote_while_it_trained_its_own(tmp_path, monkeypatch):
    trained(two_stages(), Home(tmp_path / "first"))
    (made,) = (tmp_path / "first" / "mlruns" / "pretrained").iterdir()
    home, index = Home(tmp_path / "second"), json.loads((made / weights.INDEX).read_text())
    doubled = [{name: 2 * value for name, value in tensors.items()} for tensors in weights.read(made).replicas]

    def fit(config: Any, dataset: Any, *args: Any, whole: Any = training.fit, **options: Any) -> Any:
        yield from whole(config, dataset, *args, **options)
        if dataset.name == "digits[0-4]":
            rows = [{"replica": row["replica"], "init": row["init"]} for row in index["replicas"]]
            weights.write(home.mlruns / "pretrained" / made.name, doubled, rows, {})

    (home.mlruns / "pretrained").mkdir(parents=True)
    monkeypatch.setattr(training, "fit", fit)
    folder = trained(two_stages(), home)
    ((digest, _),) = kept(home).items()
    assert digest != weights.read(made).digest
    for name, value in weights.read(home.mlruns / "pretrained" / made.name).replicas[1].items():
        np.testing.assert_array_equal(value, doubled[1][name])
    assert json.loads((folder / "config.json").read_text())["weights_digest"] == digest


def test_a_study_goes_on_when_its_pretraining_breaks(tmp_path, monkeypatch):
    fit, _ = breaking(RuntimeError("no such kernel"))
    monkeypatch.setattr(training, "fit", fit)
    study = two_stages(
        space=dict(weights=Choice("", "pretraining", role="scientific")), fixed=SMALL | dict(new_head=True),
        sampler="grid", n_trials=2, learning_curve=(),
    )  # fmt: skip
    summary = search.run(study, "s", home=Home(tmp_path), engine="inline", device="cpu")
    assert (summary.counts["finished"], summary.counts["failed"]) == (1, 1)


def test_a_study_of_two_stages_runs_like_any_other(tmp_path):
    study = two_stages(
        space=dict(weights=Choice("", "pretraining", role="scientific")), fixed=SMALL | dict(new_head=True),
        sampler="grid", n_trials=2, learning_curve=(),
    )  # fmt: skip
    summary = search.run(study, "s", home=Home(tmp_path), engine="inline", device="cpu")
    assert summary.counts["finished"] == 2


@pytest.mark.parametrize(("n_inits", "is_said"), [(2, False), (3, True)])
def test_a_run_says_so_if_there_are_fewer_networks_than_seeds_and_its_history_how_many_there_are(
    tmp_path, capsys, n_inits, is_said
):
    study = two_stages(replication=Replication("bootstrap", 2, n_inits), learning_curve=())
    search.run(study, "s", home=Home(tmp_path), engine="inline", device="cpu")
    said = f"weights=pretraining: {n_inits} seeds share 2 networks to start from"
    assert (said in capsys.readouterr().err) is is_said
    assert set(history.load("s", home=Home(tmp_path)).trials["n_starts"]) == {2}


def test_one_file_for_all_seeds_is_said_and_one_a_seed_is_not(tmp_path):
    replicas = [{"a": np.zeros(3, dtype=np.float32)} for _ in range(3)]
    weights.write(tmp_path / "w", replicas, [{"replica": r} for r in range(3)], {})
    paths = (f"{tmp_path}/w", f"{tmp_path}/w/replica-0001.safetensors")
    study = two_stages(pretraining=None, space=dict(weights=Choice("", *paths)), fixed=SMALL, sampler="grid")
    (said,) = first_stage.shared_starts(study)
    assert said.startswith(f"weights={paths[1]}: 3 seeds share 1 network to start from")


def test_the_study_of_transfer_and_its_small_version_are_possible():
    study = study_file.load(Path(__file__).parent.parent / "studies" / "transfer.py")
    for version in (study, study.smoke()):
        search.prepare(version)
        assert {version.config(dict(n_train=20, weights=w, frozen=1.0)).weights for w in version.values("weights")} == {
            "", "pretraining",
        }  # fmt: skip
        assert first_stage.shared_starts(version) == []


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
        (lambda: Pretraining(3), "pretraining: data = 3 has to name a data set"),
        (lambda: Pretraining(""), "pretraining: data = '' has to name a data set"),
        (lambda: Pretraining("digits", 3), "pretraining: fixed = 3 has to be a dict of knobs"),
        (lambda: two_stages(pretraining=dict(data="[0-4]")), r"pretraining: give a Pretraining\(data=…\)"),
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
    assert first_stage.dataset_of(spec, data_dir=None, study_file=None).name == "digits[0-4]"
    spec["pretraining"] = Pretraining("digits[2-6]").to_dict()
    assert first_stage.dataset_of(spec, data_dir=None, study_file=None).name == "digits[2-6]"
