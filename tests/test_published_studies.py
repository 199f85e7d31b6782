"""Studies of published results: the first and the last trial of each train in a small version, on their own data."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from lab import study_file
from lab.data import cifar, load, mnist1d
from lab.search.points import grid_point, grid_size
from lab.spec import Study
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate

STUDIES = Path(__file__).resolve().parent.parent / "studies"
RECORDS = 80  # of a CIFAR batch


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with 300 curves of MNIST-1D to come, and 480 random images as CIFAR-10."""
    monkeypatch.setattr(mnist1d, "N_EXAMPLES", 300)
    edition = cifar.EDITIONS["cifar10"]._replace(n_train=RECORDS, n_test=RECORDS)
    monkeypatch.setitem(cifar.EDITIONS, "cifar10", edition)
    rng = np.random.default_rng(0)
    for file in (*edition.train_files, edition.test_file):
        records = rng.integers(0, 256, size=(RECORDS, 1 + cifar.PIXEL_BYTES), dtype=np.uint8)
        records[:, 0] %= 10
        (tmp_path / file).write_bytes(records.tobytes())
    return tmp_path


def shrunk(name: str) -> Study:
    study = study_file.load(STUDIES / f"{name}.py").smoke()
    sizes = {"n_train": 40, "epochs": 2, "batch_size": 20}
    return dataclasses.replace(study, fixed={**study.fixed, **sizes}, n_validation=20, n_test=20)


@pytest.mark.parametrize("name", ["double_descent", "neal_width", "regularization", "label_noise", "yang_resnet_width"])
def test_a_published_study_trains_at_both_ends_of_its_space(small, name):
    study = shrunk(name)
    if study.variants:
        ends = [{"variant": next(iter(study.variants))}, {"variant": list(study.variants)[-1]}]
    else:
        ends = [grid_point(study.space, number=n) for n in (0, grid_size(study.space) - 1)]
        if name == "yang_resnet_width":
            ends[1]["width"] = 4  # the widest takes minutes on a CPU
    for number, params in enumerate(ends):
        task = Task(
            study=name, spec=json.loads(json.dumps(study.to_dict())), phase="explore", number=number,
            config=dataclasses.asdict(study.config(params)), data_dir=str(small),
        )  # fmt: skip
        manifest = json.loads((evaluate(task, Home(small)) / "manifest.json").read_text())
        assert manifest["status"] == "finished", manifest["reason"]


@pytest.mark.parametrize("name", ["neal_width", "regularization", "label_noise"])
def test_the_digits_suffice_for_the_plan_of_a_study(name):
    study = study_file.load(STUDIES / f"{name}.py")
    n_train = study.largest("n_train")
    assert n_train * study.replication.n_blocks <= len(load("digits", seed=0).pool)
