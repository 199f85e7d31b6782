"""Weights in files: what is exported is what predicted, and torch.nn alone can tell."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lab import history, search, study, training, weights
from lab.data.datasets import load
from lab.export import export
from lab.knobs import TrialConfig
from lab.replication import Replication
from lab.spec import Study
from lab.storage import Home
from lab.task import Task
from lab.trained import Snapshot, Trained
from lab.trial import evaluate

PLAN = Replication(scheme="bootstrap", n_resamples=2, n_inits=2)
SMALL = dict(width=6, depth=2, epochs=3, n_train=40, batch_size=8, learning_rate=0.01)


def small(**knobs: Any) -> Study:
    return Study(
        question="?", data="digits", fixed=SMALL | knobs, replication=PLAN, n_trials=1, learning_curve=(),
        n_validation=20, n_test=30,
    )  # fmt: skip


class Perceptron(nn.Module):
    """Two hidden layers with batch norm, named as the lab names them."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden0, self.norm0 = nn.Linear(64, 6), nn.BatchNorm1d(6)
        self.hidden1, self.norm1 = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.output = nn.Linear(6, 10)

    def forward(self, x):
        x = self.norm0(self.hidden0(x.flatten(1))).relu()
        return self.output(self.norm1(self.hidden1(x)).relu())


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block0, self.norm0 = nn.Conv2d(1, 6, 3, padding=1), nn.GroupNorm(3, 6)
        self.block1, self.norm1 = nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(3, 6)
        self.output = nn.Linear(6 * 2 * 2, 10)

    def forward(self, x):
        for block, norm in ((self.block0, self.norm0), (self.block1, self.norm1)):
            x = nn.functional.max_pool2d(norm(block(x)).relu(), 2)
        return self.output(x.flatten(1))


def predicted(module: nn.Module, state: dict[str, torch.Tensor], images: np.ndarray) -> np.ndarray:
    """The probabilities of a torch.nn module with this state."""
    mean, std = (state.pop(f"input.{name}")[:, None, None] for name in ("mean", "std"))
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)  # torch counts, and never reads it here
    module.eval()
    with torch.no_grad():
        return torch.softmax(module((torch.from_numpy(images) - mean) / std), dim=1).numpy()


@pytest.fixture(scope="module")
def project(tmp_path_factory, new_home):
    """A folder where a study was run, whose replicas have batch norm."""
    root = tmp_path_factory.mktemp("project")
    search.run(small(norm="batch"), "s", home=new_home(root), engine="inline", device="cpu")
    return root


def test_exported_weights_loaded_by_torch_alone_predict_what_the_run_history_holds(
    project, monkeypatch, capsys, digits
):
    monkeypatch.chdir(project)
    assert study.main(["export-weights", "s", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["key"], printed["n_replicas"], printed["note"]) == ("confirm-0000", 4, None)
    folder = project / "reports" / "s" / "weights"
    assert Path(printed["folder"]) == folder
    index = json.loads((folder / "weights.json").read_text())
    stored = history.load("s", home=Home(project)).predictions("confirm-0000").probabilities_DINC
    for row in index["replicas"]:
        p = predicted(Perceptron(), load_file(folder / row["file"]), digits.test.images)
        np.testing.assert_allclose(p, stored[row["resample"] - 2, row["init"] - 2], rtol=1e-4, atol=1e-6)
    assert index["data"]["class_names"] == list("0123456789")
    assert index["config"]["norm"] == "batch"
    assert index["tensors"]["hidden0.weight"] == [6, 64]
    assert study.main(["export-weights", "s"]) == 0  # again, in its place
    assert study.main(["verify", "s"]) == 0


def test_the_weights_of_a_convolutional_network_are_those_of_torchs_layers(tmp_path, digits):
    folder = confirmed(tmp_path, family="cnn", norm="group", n_train=60)
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        stored = np.exp(arrays["log_probabilities_DINC"]).reshape(4, 30, 10)
    with np.load(folder / "examples.npz", allow_pickle=False) as arrays:
        assert arrays["seen_KHW"].shape == (len(arrays["index_K"]), 8, 8)
        assert arrays["seen_KHW"].max() > 100
    replicas, _ = weights.unpacked((folder / weights.FILE).read_bytes())
    for r, tensors in enumerate(replicas):
        state = {name: torch.from_numpy(value) for name, value in tensors.items()}
        np.testing.assert_allclose(
            predicted(Convolutional(), state, digits.test.images), stored[r], rtol=1e-4, atol=1e-6
        )


def last(digits, **knobs):
    config = TrialConfig(**(SMALL | knobs))
    *_, evaluation = training.fit(config, digits, PLAN, seed=3, n_evaluations=3, keep_weights=True)
    return evaluation


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=30, n_validation=20)


@pytest.mark.parametrize("knobs", [dict(patience=1, epochs=9, learning_rate=0.3), dict(averaging="ema"), dict()])
def test_what_is_kept_are_the_weights_that_the_predictions_are_of(digits, knobs):
    """Of replicas that stopped early, those of their best evaluation; with averaging, the averages."""
    evaluation = last(digits, **knobs)
    w = {name: torch.from_numpy(values) for name, values in evaluation.weights.items()}
    x = (torch.from_numpy(digits.test.images) - w["input.mean"][:, None, :, None, None]) / w["input.std"][
        :, None, :, None, None
    ]
    x = x.flatten(2)
    for k in range(2):
        x = torch.relu(torch.einsum("rnf,rfg->rng", x, w[f"hidden{k}.weight"]) + w[f"hidden{k}.bias"][:, None])
    logits = torch.einsum("rnf,rfg->rng", x, w["output.weight"]) + w["output.bias"][:, None]
    p = torch.softmax(logits, dim=-1).reshape(2, 2, 30, 10)
    np.testing.assert_allclose(p, evaluation.probabilities_test_DINC, rtol=1e-4, atol=1e-6)


def test_without_being_asked_no_weights_are_kept(digits):
    *_, evaluation = training.fit(TrialConfig(**SMALL), digits, PLAN, seed=3, n_evaluations=2)
    assert evaluation.weights == {}


def test_weights_of_replicas_that_stopped_survive_an_interruption(digits):
    config = TrialConfig(**(SMALL | dict(patience=1, epochs=12, learning_rate=0.3)))
    states: list[Any] = []

    def fit(**options: Any) -> Any:
        *_, evaluation = training.fit(config, digits, PLAN, seed=3, n_evaluations=6, keep_weights=True, **options)
        return evaluation

    whole = fit(on_epoch=lambda state: states.append({name: value.clone() for name, value in state().items()}))
    assert any(name.startswith("scores.weights.") for name in states[-1])
    again = fit(resume=states[-1])
    for name, values in whole.weights.items():
        assert values.tobytes() == again.weights[name].tobytes()


def confirmed(tmp_path: Path, **knobs: Any) -> Path:
    spec = small(**knobs)
    task = Task(
        study="s", spec=json.loads(json.dumps(spec.to_dict())), phase="confirm", number=0,
        config=dataclasses.asdict(spec.config({})),
    )  # fmt: skip
    return evaluate(task, Home(tmp_path))


def test_replicas_that_diverged_are_left_out_and_the_record_says_so():
    gone_R = np.array([False, True, False, True])
    values_R = np.where(gone_R, np.nan, np.arange(4, dtype=np.float32))[:, None, None].astype(np.float32)
    trained = Trained(
        1, PLAN, [Snapshot(1, {}, gone_R)], [None], None, np.zeros((2, 2, 1, 2)), weights={"output.weight": values_R}
    )
    task = Task(study="s", spec={"replication": dataclasses.asdict(PLAN)}, phase="confirm", number=0, config={},
                first_resample=2, first_init=2)  # fmt: skip
    content, note = weights.of_trial(task, trained)
    assert note == "weights of 2 replicas that diverged are not kept"
    replicas, record = weights.unpacked(content)
    assert [tensors["output.weight"].item() for tensors in replicas] == [0, 2]
    assert [(row["replica"], row["resample"], row["init"]) for row in record["replicas"]] == [(0, 2, 2), (2, 3, 2)]


@pytest.mark.parametrize("room", [0, 3])
def test_of_large_networks_the_weights_of_the_first_replicas_are_kept_and_a_note_says_of_how_many(
    tmp_path, monkeypatch, room
):
    one = 4 * (64 * 6 + 6 + 6 * 6 + 6 + 6 * 10 + 10 + 2)
    monkeypatch.setattr(weights, "MOST_BYTES", room * one + one - 1)
    folder = confirmed(tmp_path)
    events = json.loads((folder / "environment.json").read_text())["events"]
    assert events == [f"weights of {room} replicas of 4 are kept: more would exceed 0 MiB"]
    assert (folder / weights.FILE).exists() == (room > 0)
    if room:
        replicas, record = weights.unpacked((folder / weights.FILE).read_bytes())
        assert len(replicas) == room
        assert [row["replica"] for row in record["replicas"]] == [0, 1, 2]


def test_an_export_of_what_is_not_there_says_so_in_one_line(project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    for words, said in (
        (["s", "--trial", "7"], "trial 7 is not confirmed in s: weights are kept of confirmed configurations alone"),
        (["s", "--out", str(tmp_path / "mine")], "mine: it is there, and holds more than an export of weights"),
        (["t"], "study t has no finished trial yet"),
    ):
        assert study.main(["export-weights", *words]) != 0
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert said in captured.err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_a_changed_file_of_an_export_is_refused(project, tmp_path):
    folder = export("s", home=Home(project), out=tmp_path / "w").folder
    start = weights.read(folder)
    assert len(start.replicas) == 4
    assert weights.read(folder / "replica-0002.safetensors").replicas[0].keys() == start.replicas[2].keys()
    body = bytearray((folder / "replica-0001.safetensors").read_bytes())
    body[-1] ^= 1
    (folder / "replica-0001.safetensors").write_bytes(body)
    with pytest.raises(Exception, match=r"replica-0001.safetensors is not what was exported"):
        weights.read(folder)


def test_a_trial_that_grew_keeps_the_weights_of_all_its_replicas(tmp_path, digits):
    plan = Replication("bootstrap", 3, 3, target_half_width=1e-6, max_resamples=4, max_inits=3)
    spec = dataclasses.replace(small(), replication=plan)
    task = Task(
        study="s", spec=json.loads(json.dumps(spec.to_dict())), phase="confirm", number=0,
        config=dataclasses.asdict(spec.config({})),
    )  # fmt: skip
    folder = evaluate(task, Home(tmp_path))
    replicas, record = weights.unpacked((folder / weights.FILE).read_bytes())
    assert [(row["resample"], row["init"]) for row in record["replicas"]] == [
        (d, i) for d in range(4) for i in range(3)
    ]
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        stored = np.exp(arrays["log_probabilities_DINC"]).reshape(12, 30, 10)
    for r, tensors in enumerate(replicas):
        x = (digits.test.images - tensors["input.mean"][:, None, None]) / tensors["input.std"][:, None, None]
        x = x.reshape(30, 64)
        for name in ("hidden0", "hidden1"):
            x = np.maximum(x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"], 0)
        logits = torch.from_numpy(x @ tensors["output.weight"].T + tensors["output.bias"])
        np.testing.assert_allclose(torch.softmax(logits, dim=1), stored[r], rtol=1e-4, atol=1e-6)
