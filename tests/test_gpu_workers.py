"""Local workers on a machine with several GPUs: who has which, and who trains what with whom. No GPU is needed."""

import os
from dataclasses import replace

import pytest

from lab import spool, workers
from lab.storage import Home
from lab.workers import ProcessEngine, choose_engine, open_engine
from tests import fake_worker
from tests.test_workers import a_task, drain, pids
from tests.waiting import until


@pytest.fixture
def engine(tmp_path, request):
    n_workers, n_gpus = request.param
    engine = ProcessEngine(Home(tmp_path), n_workers, "cuda", n_gpus, main=fake_worker.main)
    yield engine
    engine.close()


def gpus(engine):
    """Return what the workers that there were saw of the GPUs, in no order."""
    return sorted((engine.home.root / f"pid-{pid}").read_text() for pid in pids(engine.home.root))


def bundles(engine):
    """Return the bundles that were given out: lists of the tasks' numbers."""
    lines = [line for path in engine.home.root.glob("bundles-*") for line in path.read_text().splitlines()]
    return sorted([int(number) for number in line.split()] for line in lines)


def on_gpu(number, **knobs):
    return replace(a_task(number, **knobs), device="cuda")


@pytest.mark.parametrize(
    ("engine", "allowed", "expected"),
    [
        ((3, 2), None, ["0", "0", "1"]),
        ((2, 2), "5,GPU-8a3f", ["5", "GPU-8a3f"]),
        ((2, 1), None, ["all", "all"]),
        ((2, 1), "3", ["3", "3"]),
    ],
    indirect=["engine"],
)
def test_worker_k_has_gpu_k_modulo_their_number_of_those_that_the_user_allows(engine, allowed, expected, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    for number in range(3):
        engine.submit(on_gpu(number, company=engine.n_workers))
    assert len(drain(engine)) == 3
    assert gpus(engine) == expected
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == allowed


@pytest.mark.parametrize("engine", [(2, 2)], indirect=True)
def test_who_takes_the_place_of_a_dead_worker_has_its_gpu(engine, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    engine.submit(on_gpu(0, deaths=1, company=2))
    assert [task.attempt for task, _ in drain(engine)] == [2]
    seen = [
        engine.home.root / f"pid-{worker.process.pid}" for worker in sorted(engine._workers, key=lambda w: w.number)
    ]
    until(lambda: all(path.exists() for path in seen))
    assert [path.read_text() for path in seen] == ["0", "1"]
    assert len(pids(engine.home.root)) == 3


@pytest.mark.parametrize("engine", [(2, 2)], indirect=True)
def test_tasks_of_equal_shape_that_wait_are_shared_out_evenly_and_trained_together(engine):
    engine.start()
    for number in range(6):
        engine.submit(on_gpu(number, company=2, learning_rate=0.01 * (number + 1)))
    engine.submit(on_gpu(6, depth=3))
    assert sorted(task.number for task, _ in drain(engine)) == list(range(7))
    found = bundles(engine)
    assert sorted(number for bundle in found for number in bundle) == list(range(7))
    assert max(len(bundle) for bundle in found) == 4  # half of seven: nobody takes what another could do meanwhile
    assert [6] in found


@pytest.mark.parametrize("engine", [(1, 1)], indirect=True)
def test_whoever_of_a_bundle_had_no_outcome_when_its_worker_died_is_trained_again_alone(engine):
    for number in range(3):
        engine.submit(on_gpu(number, deaths=1, victim=1))
    done = {task.number: (task.attempt, spool.read_outcome(path).manifest["attempt"]) for task, path in drain(engine)}
    assert done == {0: (1, 1), 1: (2, 2), 2: (2, 2)}
    assert bundles(engine) == [[0, 1, 2], [1], [2]]


@pytest.mark.parametrize("engine", [(2, 2)], indirect=True)
def test_enough_trials_are_asked_ahead_for_every_gpu(engine):
    assert engine.capacity == 2 * 16


@pytest.mark.parametrize(
    ("device", "n_workers", "smoke", "expected"),
    [
        ("cuda", None, False, ("process", 4)),
        ("cuda", 2, False, ("process", 2)),
        ("cuda", None, True, ("inline", 1)),
        ("cuda:1", None, False, ("inline", 1)),
        ("cuda:1", 2, False, ("process", 2)),
    ],
)
def test_several_gpus_have_a_worker_each_unless_the_user_says_otherwise(
    tmp_path, monkeypatch, device, n_workers, smoke, expected
):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    engine = choose_engine(None, n_workers, device=device, smoke=smoke)
    assert engine == expected
    opened = open_engine(*engine, home=Home(tmp_path), device=device)
    if isinstance(opened, workers.ProcessEngine):
        assert opened.n_gpus == (4 if device == "cuda" else 1)  # "cuda:1" is meant: all workers are on it
        assert opened.device == device
    opened.close()
