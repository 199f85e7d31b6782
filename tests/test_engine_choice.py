"""Which engine and device a run takes where the user does not say, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab import workers
from lab.errors import SpecError
from lab.workers import choose_device, choose_engine

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("asked", "n_workers", "device", "smoke", "expected"),
    [
        (None, None, "cuda", False, ("inline", 1)),
        (None, None, "cpu", True, ("inline", 1)),
        (None, 1, "cpu", False, ("inline", 1)),
        (None, 3, "cpu", True, ("process", 3)),
        (None, 2, "cuda", False, ("process", 2)),
        ("process", 1, "cpu", False, ("process", 1)),
        ("process", None, "cuda", False, ("process", 1)),
        ("inline", None, "cpu", False, ("inline", 1)),
    ],
)
def test_the_engine_fits_the_machine_unless_the_user_says_otherwise(asked, n_workers, device, smoke, expected):
    assert choose_engine(asked, n_workers, device=device, smoke=smoke) == expected


def test_the_default_on_a_cpu_is_a_process_a_core_up_to_eight(monkeypatch):
    for n_cpus, n_workers in ((1, 1), (4, 4), (64, 8)):
        monkeypatch.setattr(workers.choice, "_n_cpus", lambda n=n_cpus: n)
        assert choose_engine(None, None, device="cpu", smoke=False) == ("process", n_workers)


@pytest.mark.parametrize(("engine", "n_workers"), [("dask", None), ("inline", 2), (None, 0), (None, -1), (None, 10**6)])
def test_impossible_engines_are_refused(engine, n_workers):
    with pytest.raises(SpecError):
        choose_engine(engine, n_workers, device="cpu", smoke=False)


@pytest.mark.parametrize("name", ["abacus", "cuda:999", "meta", ""])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(SpecError, match="--device"):
        choose_device(name)
    assert choose_device("cpu") == "cpu"


def test_the_coordinator_of_a_cpu_study_does_without_torch(monkeypatch):
    code = (
        "import sys; from lab import search, workers; from lab.spec import Study\n"
        "workers.choose_device('cpu'); search.prepare(Study(question='?', data='digits'))\n"
        "print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "False"
    monkeypatch.setattr(workers.choice, "_may_have_gpu", lambda: False)
    assert choose_device("auto") == "cpu"


def test_a_machine_that_may_have_a_gpu_is_asked(monkeypatch):
    import torch

    monkeypatch.setattr(workers.choice, "_may_have_gpu", lambda: True)
    for n_gpus, expected in ((1, "cuda"), (0, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda n=n_gpus: n > 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert choose_device("auto") == expected
