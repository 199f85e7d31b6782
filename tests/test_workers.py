import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from lab import objectives, spool
from lab.errors import DataError, LabError, SpecError
from lab.spec import Replication, Study
from lab.storage import Home
from lab.task import Task
from lab.trial import evaluate, load_dataset
from lab.workers import InlineEngine, ProcessEngine
from tests import fake_training, fake_worker
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent
STUDY = Study(
    question="Is it a toy?", data="fake", fixed=dict(epochs=3, n_train=40, learning_rate=0.01),
    replication=Replication("disjoint", 3, 4), n_evaluations=2,
)  # fmt: skip


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def faked(monkeypatch):
    from lab import training
    from lab.data import datasets

    monkeypatch.setattr(training, "fit", fake_training.fit)
    monkeypatch.setattr(training, "count_parameters", fake_training.count_parameters)
    monkeypatch.setitem(datasets.DATASETS, "fake", fake_training.dataset)


def a_task(number=0, **knobs):
    """Return a task; what is no knob is trouble that tests.fake_worker makes."""
    names = asdict(STUDY.config({}))
    config = asdict(STUDY.config({name: value for name, value in knobs.items() if name in names}))
    spec = json.loads(json.dumps(STUDY.to_dict()))
    spec["trouble"] = {name: value for name, value in knobs.items() if name not in names}
    return Task(study="toy", spec=spec, phase="explore", number=number, config=config)


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def pids(folder):
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


# --- one trial --------------------------------------------------------------------------------------------------------


def test_an_outcome_holds_the_files_of_the_contract(home, faked):
    task = replace(a_task(7, width=32), phase="confirm", first_resample=3, first_init=4)
    outcome = spool.read_outcome(evaluate(task, home))
    assert set(outcome.contents) == {
        "config.json", "curves.parquet", "decomposition.json", "environment.json", "examples.npz", "metrics.json",
        "per_class.json", "predictions.npz",
    }  # fmt: skip
    assert (outcome.key, outcome.status, outcome.reason) == ("confirm-0007", "finished", None)
    config = outcome.json("config.json")
    assert config["config"] == task.config
    assert (config["n_parameters"], config["image_shape"], config["first_resample"]) == (64, [1, 2, 2], 3)
    assert config["data"]["n_test"] == 15
    assert outcome.json("environment.json")["n_threads"] >= 1


def test_images_of_the_hardest_test_points_are_kept_of_the_confirmed_configuration_only(home, faked):
    explored = spool.read_outcome(evaluate(a_task(), home))
    assert "examples.npz" not in explored.contents
    confirmed = spool.read_outcome(evaluate(replace(a_task(), phase="confirm"), home))
    with np.load(confirmed.directory / "examples.npz", allow_pickle=False) as kept:
        index_K, images_KCHW = kept["index_K"], kept["images_KCHW"]
    test = load_dataset(a_task().spec).test.images
    assert index_K.tolist() == list(range(15))  # all there are: 24 of either kind would be kept
    low, high = test.min(), test.max()
    assert images_KCHW.dtype == np.uint8
    np.testing.assert_allclose(images_KCHW / 255 * (high - low) + low, test, atol=0.51 / 255 * (high - low))


def test_the_curves_have_a_row_an_epoch_and_replica_with_the_numbers_of_its_resample_and_seed(home, faked):
    import pandas as pd

    task = replace(a_task(), first_resample=3, first_init=4)
    curves = pd.read_parquet(evaluate(task, home) / "curves.parquet")
    assert len(curves) == 2 * 12
    last = curves[curves.epoch == 3]
    assert last.replica.tolist() == list(range(12))
    assert last["resample"].tolist() == [3] * 4 + [4] * 4 + [5] * 4
    assert last["init"].tolist() == [4, 5, 6, 7] * 3
    assert not curves.isna().any().any()


def test_what_is_tracked_agrees_with_the_stored_predictions_computed_a_second_way(home, faked):
    outcome = spool.read_outcome(evaluate(a_task(), home))
    final = outcome.json("metrics.json")["final"]
    with np.load(outcome.directory / "predictions.npz", allow_pickle=False) as stored:
        p_DINC, y_N = np.exp(stored["log_probabilities_DINC"].astype(np.float64)), stored["labels_N"]
    losses_DI = ((p_DINC - np.eye(3)[y_N]) ** 2).sum(axis=-1).mean(axis=-1)
    assert final["risk"] == pytest.approx(losses_DI.mean(), abs=1e-6)
    assert final["test_risk"] == pytest.approx(losses_DI.mean(), abs=1e-6)
    assert final["test_risk_sd"] == pytest.approx(losses_DI.std(ddof=1), abs=1e-6)
    assert final["error"] == pytest.approx((p_DINC.argmax(-1) != y_N).mean(), abs=1e-9)
    assert final["bias_sq"] + final["variance"] == pytest.approx(final["risk"], abs=1e-9)
    parts = [final[f"variance_{cause}"] for cause in ("resample", "init", "interaction")]
    assert sum(parts) == pytest.approx(final["variance"], abs=1e-9)
    assert final["val_risk_lo"] < final["val_risk"] < final["val_risk_hi"]
    assert final["objective_0"] == pytest.approx(final["val_risk"], abs=1e-6)
    epochs = outcome.json("metrics.json")["epochs"]
    assert [row["epoch"] for row in epochs] == [0, 3]
    assert epochs[-1]["bias_sq"] == final["bias_sq"]


def test_replicas_that_diverged_are_nan_in_the_files_counted_and_left_out_of_the_means(home, faked):
    outcome = spool.read_outcome(evaluate(a_task(momentum=0.5), home))
    final = outcome.json("metrics.json")["final"]
    assert outcome.status == "diverged"
    assert (final["n_replicas"], final["n_diverged"]) == (12, 6)
    with np.load(outcome.directory / "predictions.npz", allow_pickle=False) as stored:
        lost_DI = np.isnan(stored["log_probabilities_DINC"]).all(axis=(2, 3))
        assert np.isfinite(stored["log_probabilities_DINC"][~lost_DI]).all()
    assert lost_DI.ravel().tolist() == [False] * 6 + [True] * 6
    assert outcome.json("decomposition.json")["final"]["n_replicas"] == 6
    assert all(math.isfinite(value) for value in final.values())


def test_a_trial_of_which_nothing_is_left_has_an_outcome_all_the_same(home, faked):
    outcome = spool.read_outcome(evaluate(a_task(momentum=0.25), home))
    assert outcome.status == "diverged"
    assert outcome.json("decomposition.json")["final"] is None
    assert outcome.json("metrics.json")["final"]["objective_0"] == 2.0
    assert "val_risk" not in outcome.json("metrics.json")["final"]


def test_a_configuration_that_cannot_be_built_is_infeasible_and_says_why(home, faked):
    outcome = spool.read_outcome(evaluate(a_task(batch_size=13), home))
    assert (outcome.status, outcome.reason) == ("infeasible", "batch_size 13 cannot be built")
    assert set(outcome.contents) == {"config.json", "environment.json"}


def test_a_configuration_that_breaks_in_training_has_failed_and_keeps_its_traceback(home, faked):
    outcome = spool.read_outcome(evaluate(a_task(batch_size=17), home))
    assert (outcome.status, outcome.reason) == ("failed", "RuntimeError: broke in training")
    assert b"fake_training.py" in outcome.contents["error.txt"]


def test_the_same_trial_gives_the_same_bits(home, faked, tmp_path):
    one, two = (spool.read_outcome(evaluate(a_task(), Home(tmp_path / name))) for name in ("one", "two"))
    for name in ("curves.parquet", "decomposition.json", "config.json"):
        assert one.contents[name] == two.contents[name]


def test_a_data_set_may_be_a_function_in_the_study_file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "def mine(*, seed, n_validation, n_test, data_dir):\n"
        "    from tests.fake_training import dataset\n"
        "    return dataset(seed=seed, n_validation=n_validation, n_test=n_test, data_dir=data_dir)\n"
        "def broken(**sizes):\n"
        "    return {}['key']\n"
    )
    spec = STUDY.to_dict()
    assert len(load_dataset(spec | {"data": "mine", "n_test": 21}, study_file=str(path)).test.labels) == 21
    with pytest.raises(DataError, match=r"own\.py: KeyError: 'key'"):
        load_dataset(spec | {"data": "broken"}, study_file=str(path))
    with pytest.raises(SpecError, match="nowhere"):
        load_dataset(spec | {"data": "nowhere"}, study_file=str(path))
    other = path.with_name("other.py")
    other.write_text(path.read_text().replace("n_test=n_test", "n_test=5"))
    assert len(load_dataset(spec | {"data": "mine", "n_test": 21}, study_file=str(other)).test.labels) == 5


def test_a_pair_counts_diverged_replicas_in_their_proportion():
    pair, diverged_R = ["bias_sq", "variance"], np.array([True, False, False, False])
    assert objectives.values(pair, {}, diverged_R, {"bias_sq": 0.4, "variance": None}) == [0.8, 2.0]
    assert objectives.values(pair, {}, diverged_R, None) == [2.0, 2.0]


# --- engines ----------------------------------------------------------------------------------------------------------


def drain(engine):
    done = []
    until(lambda: not engine.n_open, rest=lambda seconds: done.append(engine.next_done(seconds)))
    return [result for result in done if result is not None]


def given_again(engine):
    """Return whether a worker has a task whose first worker was lost."""
    return any(task.attempt == 2 for worker in engine._workers for task in worker.tasks)


def workers_at(engine, n_tasks):
    """Wait until all workers are ready and so many have a task; return the process numbers of those."""

    def busy():
        return [worker for worker in engine._workers if worker.tasks]

    def done_early(seconds):
        assert engine.next_done(seconds) is None, "a task is done too early"

    until(lambda: all(worker.ready for worker in engine._workers) and len(busy()) == n_tasks, rest=done_early)
    return [worker.process.pid for worker in busy()]


@pytest.fixture
def engine(home):
    engine = ProcessEngine(home, 2, main=fake_worker.main)
    yield engine
    engine.close()


def test_every_task_comes_out_once_whichever_worker_did_it(engine, home):
    for number in range(9):
        engine.submit(a_task(number, company=2))
    done = drain(engine)
    assert sorted(task.number for task, _ in done) == list(range(9))
    assert all(spool.read_outcome(path).number == task.number for task, path in done)
    assert len(pids(home.root)) == 2
    assert engine.next_done(0.1) is None


def test_the_task_of_a_dead_worker_goes_to_another_within_five_seconds(engine, home):
    engine.n_workers = 3
    for number in range(2):
        engine.submit(a_task(number, held=[1]))
    victim, _ = workers_at(engine, 2)
    [lost] = [worker.tasks[0].number for worker in engine._workers if worker.process.pid == victim]
    done = []
    os.kill(victim, signal.SIGKILL)
    until(lambda: given_again(engine) or any(done), 5.0, rest=lambda seconds: done.append(engine.next_done(seconds)))
    until(lambda: any(done), rest=lambda seconds: done.append(engine.next_done(seconds)))
    [(task, path)] = filter(None, done)
    assert (task.number, task.attempt, spool.read_outcome(path).manifest["attempt"]) == (lost, 2, 2)
    fake_worker.gate(home, 1).touch()
    assert [task.number for task, _ in drain(engine)] == [1 - lost]


def test_a_task_that_always_kills_its_worker_is_set_aside_and_the_others_go_on(engine, home, faked):
    engine.submit(a_task(0, deaths=99))
    for number in range(1, 5):
        engine.submit(a_task(number))
    outcomes = {task.number: spool.read_outcome(path) for task, path in drain(engine)}
    assert [outcomes[k].status for k in range(5)] == ["failed"] + ["finished"] * 4
    assert outcomes[0].reason == "its worker process was lost 3 times, last by signal 9"
    assert outcomes[0].manifest["attempt"] == 3


def test_an_outcome_whose_worker_died_before_it_could_say_so_counts(engine):
    engine.submit(a_task(0, mute=True))
    [(task, path)] = drain(engine)
    assert task.attempt == 1
    assert spool.read_outcome(path).status == "finished"


def test_an_error_that_every_task_would_meet_ends_the_study(engine):
    engine.submit(a_task(0, error=DataError("digits.gz is truncated")))
    with pytest.raises(DataError, match=r"digits\.gz is truncated"):
        drain(engine)


def test_workers_that_die_as_they_start_are_reported_and_not_started_for_ever(engine, home):
    (home.root / "stillborn").touch()
    engine.submit(a_task(0))
    with pytest.raises(LabError, match="exit code 7"):
        drain(engine)


def test_closing_ends_the_workers_at_once_even_in_the_middle_of_a_task(engine, home):
    for number in range(2):
        engine.submit(a_task(number, held=[1]))  # at a gate that nobody opens
    workers_at(engine, 2)
    closing = threading.Thread(target=engine.close)
    closing.start()
    until(lambda: not closing.is_alive(), 10.0)
    assert len(pids(home.root)) == 2
    assert not any(alive(pid) for pid in pids(home.root))


def test_inline_carries_out_one_task_after_the_other(home, faked):
    engine = InlineEngine(home)
    for number in (2, 1):
        engine.submit(a_task(number))
    assert engine.n_open == 2
    assert [task.number for task, _ in drain(engine)] == [2, 1]


def test_real_workers_end_with_their_coordinator_are_deaf_to_ctrl_c_and_give_the_bits_of_inline(home, faked, tmp_path):
    study_file = tmp_path / "own.py"
    study_file.write_text("from tests.fake_training import fake\n")
    (tmp_path / "pids").mkdir()
    task = replace(a_task(), study_file=str(study_file))
    code = (
        "import sys, dataclasses, pathlib; from lab import storage, workers; from tests import test_workers as t\n"
        "home = storage.Home(pathlib.Path(sys.argv[1])); engine = workers.ProcessEngine(home, 1)\n"
        "task = dataclasses.replace(t.a_task(), study_file=sys.argv[2])\n"
        "engine.submit(task); print(t.drain(engine)[0][1], flush=True)\n"
        "engine.submit(dataclasses.replace(task, number=1)); t.drain(engine)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LAB_FAKE_PIDS": str(tmp_path / "pids")}
    held = {"LAB_FAKE_GATE": str(tmp_path / "gate"), "LAB_FAKE_FREE": "1"}  # the second training does not end
    with subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n {code.replace(chr(10), chr(10) + ' ')}",
         str(home.root), str(study_file)],
        stdout=subprocess.PIPE, text=True, env=environment | held, start_new_session=True,
    ) as coordinator:  # fmt: skip
        assert coordinator.stdout is not None
        path = Path(coordinator.stdout.readline().strip())
        [worker] = [int(p.name) for p in (tmp_path / "pids").iterdir()]
        os.kill(worker, signal.SIGINT)
        time.sleep(0.1)
        assert alive(worker)
        coordinator.kill()
        until(lambda: not alive(worker), 60.0)  # its training would go on for longer
    from_worker = spool.read_outcome(path)
    inline = InlineEngine(Home(tmp_path / "inline"))
    inline.submit(task)
    here = spool.read_outcome(drain(inline)[0][1])
    for name in ("curves.parquet", "decomposition.json", "config.json"):
        assert from_worker.contents[name] == here.contents[name], name


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what a process blocks in /proc")
def test_every_worker_is_deaf_to_ctrl_c_from_its_first_instruction_on(tmp_path):
    code = (
        "import pathlib, re, sys; from lab import storage, workers; from tests import fake_worker\n"
        "if __name__ == '__main__':\n"
        " engine = workers.ProcessEngine(storage.Home(pathlib.Path(sys.argv[1])), 2, main=fake_worker.main)\n"
        " engine.start()\n"
        " paths = [pathlib.Path(f'/proc/{worker.process.pid}/status') for worker in engine._workers]\n"
        " blocked = [int(re.search(r'SigBlk:\\s*(\\w+)', path.read_text())[1], 16) for path in paths]\n"
        " print([mask >> 1 & 1 for mask in blocked])\n"  # SIGINT is the second
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert answer.stdout.strip() == "[1, 1]"


def test_workers_know_neither_optuna_nor_mlflow_nor_plotly():
    code = (
        "import sys; from lab import trial, workers; workers.worker.import_heavy()\n"
        "print([name for name in ('optuna', 'mlflow', 'plotly', 'jinja2') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"
