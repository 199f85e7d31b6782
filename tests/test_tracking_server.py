"""Tracking servers: a real one, killed and restarted while studies run, loses nothing and is sent nothing twice."""

import json
import os
import subprocess
import sys
import urllib.request

import pytest

from lab import history, mlflow_store
from lab.errors import StorageError
from lab.storage import Home
from tests import builders
from tests.command_line import ROOT, TOY, command, forked_command
from tests.servers import TrackingServer
from tests.trackers import STUDY, reopen
from tests.waiting import LONG, until


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = TrackingServer(tmp_path_factory.mktemp("server"))
    yield server
    if server.process is not None:
        server.kill()


@pytest.fixture
def project(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    (tmp_path / "studies").mkdir()
    for name in ("away", "midway"):
        (tmp_path / "studies" / f"{name}.py").write_text(TOY)
    return tmp_path


def runs(server, study):
    """Return key → status of a study's runs on the server, asked over its own interface; no key may come twice."""

    def ask(path, data):
        request = urllib.request.Request(
            f"{server.uri}/api/2.0/mlflow/{path}", json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=LONG) as answer:
            return json.loads(answer.read())

    experiments = ask("experiments/search", {"max_results": 100}).get("experiments", [])
    number = [e["experiment_id"] for e in experiments if e["name"] == study]
    found = ask("runs/search", {"experiment_ids": number, "max_results": 1000}).get("runs", []) if number else []
    tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in found]
    found = [run for run, tag in zip(found, tags, strict=True) if "key" in tag]  # the report's own run has none
    keys = [tag["key"] for tag in tags if "key" in tag]
    assert len(keys) == len(set(keys)), keys
    return {key: run["info"]["status"] for key, run in zip(keys, found, strict=True)}


def whole(n_explore=6):
    """Return whether a study's runs are all there and none is left half sent."""

    def check(found):
        phases = [key.rpartition("-")[0] for key in found]
        counts = {phase: phases.count(phase) for phase in set(phases)}
        assert counts == {"explore": n_explore, "confirm": 1, "learning_curve": 1}
        assert set(found.values()) == {"FINISHED"}

    return check


@pytest.mark.slow
def test_a_server_that_is_away_from_the_start_and_then_killed_in_the_middle(server, project):
    # away: the study is done all the same, what it measured waits
    answer = command("run", "away", "--workers", "1", cwd=project)
    assert answer.returncode == 5, answer.stderr
    assert "8 trials of away are measured, but not published" in answer.stderr
    assert "python -m lab.study publish away" in answer.stderr
    assert len(list((project / "mlruns" / "spool" / "away").iterdir())) == 8

    # there: publish sends exactly what is missing, and a second time nothing
    server.start()
    answer = forked_command("publish", "away", "--json", cwd=project)
    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(answer.stdout)["sent"]) == 8
    whole()(runs(server, "away"))
    answer = forked_command("publish", "away", "--json", cwd=project)
    assert json.loads(answer.stdout)["sent"] == []
    whole()(runs(server, "away"))

    # killed in the middle of another study: it goes on to its end
    gate = project / "gate"
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.study", "run", "midway", "--workers", "1"],
        cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LAB_FAKE_GATE": str(gate), "LAB_FAKE_FREE": "2"},
    )  # fmt: skip
    until(lambda: "FINISHED" in runs(server, "midway").values() or process.poll() is not None)
    server.kill()
    gate.touch()
    _, said = process.communicate(timeout=2 * LONG)
    assert process.returncode == 5, said
    assert "are measured, but not published" in said

    # back: the rest is sent, the run that was cut short is completed, and the report is built from the server
    server.start()
    assert set(runs(server, "midway").values()) <= {"FINISHED", "RUNNING"}
    answer = forked_command("run", "midway", cwd=project)
    assert answer.returncode == 0, answer.stderr
    whole()(runs(server, "midway"))
    assert (project / "reports" / "midway.html").stat().st_size > 10_000
    assert list((project / "mlruns" / "spool" / "midway").iterdir()) == []
    assert not (project / "mlruns" / "mlflow.db").exists()


@pytest.fixture
def running(server, monkeypatch):
    if server.process is None or server.process.poll() is not None:
        server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    return server


def test_a_tracking_server_keeps_runs_and_artifacts(tmp_path, running):
    home = Home(tmp_path / "client")
    outcome = builders.write_outcome(home.spool_of(STUDY), number=2)
    tracker = reopen(home)
    run_id = tracker.publish(outcome)
    assert reopen(home).publish(outcome) == run_id
    tracker.close()
    assert not home.artifacts.exists() and not home.mlflow_db.exists()
    assert set(history.studies(home=home)) - {"away", "midway"} == {STUDY}  # those of the tests above
    found = history.load(STUDY, home=home)
    assert found.trials["run_id"].tolist() == [run_id]
    assert found.trials["risk"].item() == json.loads((outcome / "metrics.json").read_text())["final"]["risk"]
    assert found.predictions("explore-0002").labels_N.shape == (40,)
    [kept] = running.folder.rglob(f"{run_id}/**/predictions.npz")
    kept.write_bytes(b"x" + kept.read_bytes())
    with pytest.raises(StorageError, match=r"predictions\.npz of run .* is damaged"):
        found.predictions("explore-0002")


def test_a_server_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens on the discard port
    with pytest.raises(StorageError) as caught:
        reopen(Home(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_password_in_the_address_never_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://me:secret@host/x")
    with pytest.raises(StorageError, match=r"\*\*\*") as caught:
        reopen(Home(tmp_path))
    assert "secret" not in str(caught.value)
    assert mlflow_store.first_line(OSError("could not connect to postgresql://me:s%40cret@db:5432/x\nmore")) == (
        "could not connect to postgresql://***@db:5432/x"
    )
