"""Trials as Ray tasks: the same outcomes as in this process, on a cluster of two nodes of which one is killed."""

import dataclasses
import signal

import pytest

from lab import search, spool, workers
from lab.errors import DataError, SpecError
from lab.spec import Choice, Replication, Study
from lab.storage import Home
from lab.task import Task
from lab.workers import RayEngine, bundles
from tests.waiting import LONG, until

ray = pytest.importorskip("ray")
# Ray itself leaves pipes and sockets of its daemons to the garbage collector, and warns of a default that will change
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

STUDY = Study(
    question="Does it run elsewhere?", data="digits", space={"width": Choice(4, 5, 6, 7, 8, 9)},
    fixed=dict(family="mlp", depth=1, epochs=2, n_train=40), replication=Replication("disjoint", 2, 2),
    sampler="grid", n_trials=6, learning_curve=(1.0,), n_validation=20, n_test=50, n_evaluations=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def not_nice(monkeypatch):
    """Ray gives way to all other programs: on a busy machine its workers are minutes in starting."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


def a_task(number=0, **changes):
    task = Task("toy", STUDY.to_dict(), "explore", number, dataclasses.asdict(STUDY.config({"width": 4})))
    return dataclasses.replace(task, **changes)


def drain(engine):
    done = []
    until(lambda: not engine.n_open, 2 * LONG, rest=lambda seconds: done.append(engine.next_done(seconds)))
    return [answer for answer in done if answer is not None]


def nothing_counts_time(outcome, name):
    """Return a file of an outcome without what differs between two runs of the same trial."""
    content = outcome.json(name)
    for clock in ("seconds", "replicas_per_second"):
        content.get("final", {}).pop(clock, None)
    return content


def test_the_outcome_of_a_ray_task_is_that_of_this_process(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    engine = RayEngine(Home(tmp_path / "ray"), n_workers=1)
    try:
        assert engine.capacity == 2
        engine.submit(a_task())
        [(task, path)] = drain(engine)
        there = spool.read_outcome(path)
        engine.submit(a_task(1, data_dir=str(tmp_path), spec=STUDY.to_dict() | {"data": "cifar10"}))
        with pytest.raises(DataError, match="cifar"):
            drain(engine)
    finally:
        engine.close()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    inline = workers.InlineEngine(Home(tmp_path / "inline"))
    inline.submit(a_task())
    here = spool.read_outcome(inline.next_done(0)[1])
    assert there.status == "finished" and task.number == 0
    assert there.contents["curves.parquet"] == here.contents["curves.parquet"]
    for name in ("metrics.json", "decomposition.json", "config.json"):
        assert nothing_counts_time(there, name) == nothing_counts_time(here, name)


def test_on_gpus_trials_of_equal_shape_are_one_ray_task_and_what_dies_with_company_is_tried_again_alone(
    tmp_path, monkeypatch
):
    tasks = [a_task(k, config=a_task().config | knobs) for k, knobs in
             enumerate([{"dropout": 0.1}, {"width": 9}, {"dropout": 0.2}])]  # fmt: skip
    inline = workers.InlineEngine(Home(tmp_path / "inline"))
    for task in tasks:
        inline.submit(task)
    expected = {task.number: spool.read_outcome(path) for task, path in drain(inline)}

    def dies_in_company(tasks):  # in here, so that Ray sends it as it is: no test can be imported on a cluster
        import os

        from lab.workers.ray import _evaluate

        return os._exit(1) if len(tasks) > 1 else _evaluate(tasks)

    monkeypatch.setattr(RayEngine, "_gathers", True)  # as on a GPU, here on one core
    monkeypatch.setattr(bundles, "most_replicas", lambda task: 100)
    engine = RayEngine(Home(tmp_path / "ray"), n_workers=1)
    try:
        assert engine.capacity == bundles.GPU_WINDOW
        for task in tasks:
            engine.submit(task)
        assert (engine.n_open, len(engine._running)) == (3, 0)  # they wait for company
        while (first := engine.next_done(5.0)) is None:
            pass
        assert len(engine._done) == 1 and not engine._running  # two came out of one Ray task
        found = [first, *drain(engine)]
        assert {task.number: task.attempt for task, _ in found} == {0: 1, 1: 1, 2: 1}
        for task, path in found:
            outcome = spool.read_outcome(path)
            assert outcome.contents["curves.parquet"] == expected[task.number].contents["curves.parquet"]
        monkeypatch.setattr(engine, "_remote", ray.remote(max_retries=0)(dies_in_company))
        engine.submit(a_task(3))
        engine.submit(a_task(4))
        assert {task.number: task.attempt for task, _ in drain(engine)} == {3: 2, 4: 2}
    finally:
        engine.close()


def test_a_study_survives_the_death_of_a_node(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **store})
    second = cluster.add_node(num_cpus=1, **store)
    killed = []

    class Progress(search.session.Progress):
        def done(self, **facts):
            super().done(**facts)
            if not killed:  # a trial is done, others are under way on both nodes
                killed.append(len(ray.nodes()))
                cluster.remove_node(second, allow_graceful=False)

    try:
        summary = search.run(
            STUDY, "toy", home=Home(tmp_path), device="cpu", engine="ray", ray_address=cluster.address,
            progress=Progress(),
        )  # fmt: skip
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed == [2]
    assert summary.counts == {"finished": 6, "diverged": 0, "infeasible": 0, "failed": 0}
    assert summary.n_trained == 7  # and the confirmation; none twice
    assert spool.pending(Home(tmp_path), "toy") == []


def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path):
    engine = RayEngine(Home(tmp_path), address="127.0.0.1:1")
    with pytest.raises(SpecError, match=r"--ray-address 127.0.0.1:1: no Ray cluster can be used") as caught:
        engine.submit(a_task())
    assert "\n" not in str(caught.value)
