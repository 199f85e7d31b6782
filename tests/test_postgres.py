"""The search state on a PostgreSQL server: the same study, the same promises."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna
import pytest

from lab import search
from lab.errors import SpecError, StorageError, StudyInUse
from lab.search import database as databases
from lab.search.results import Results
from lab.storage import Home
from tests.servers import Postgres, free_port
from tests.toys import faked, toy  # noqa: F401
from tests.waiting import until


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with tempfile.TemporaryDirectory() as folder:  # not below pytest's own folder, which only its user may enter
        os.chmod(folder, 0o755)
        server = Postgres(f"{folder}/postgres")
        server.start()
        yield server
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def home(tmp_path, server):
    return Home(tmp_path, search_uri=server.uri)


def run(study, home, name, **options):
    return search.run(study, name, home=home, engine="inline", device="cpu", **options)


def trials(home, name):
    database = databases.open_database(home)
    try:
        return optuna.load_study(storage=database, study_name=name).get_trials()
    finally:
        databases.close(database)


def test_a_study_on_a_server_equals_the_same_study_in_a_file(home, tmp_path):
    on_server = run(toy(sampler="tpe"), home, "equal")
    in_file = run(toy(sampler="tpe"), Home(tmp_path / "file"), "equal")
    assert on_server.counts == in_file.counts and on_server.counts["finished"] == 4
    here, there = trials(home, "equal"), trials(Home(tmp_path / "file"), "equal")
    assert [(t.params, t.values) for t in here] == [(t.params, t.values) for t in there]
    assert not home.optuna_db.exists()
    assert search.status(home, "equal")[0]["counts"]["finished"] == 4


def test_a_server_that_is_killed_in_the_middle_costs_one_line_and_nothing_else(home, server, monkeypatch):
    settle, n_settled = Results.settle, []

    def dying(self, outcome):
        n_settled.append(outcome)
        if len(n_settled) == 3:
            server.kill()
        settle(self, outcome)

    monkeypatch.setattr(Results, "settle", dying)
    with pytest.raises(StorageError, match="the search state postgresql") as caught:
        run(toy(n_trials=6), home, "killed")
    assert server.PASSWORD not in str(caught.value) and "s3cret" not in str(caught.value)
    monkeypatch.setattr(Results, "settle", settle)
    with pytest.raises(StorageError, match="the search state"):
        run(toy(n_trials=6), home, "killed")  # it is still away
    server.start()
    assert run(toy(n_trials=6), home, "killed").counts["finished"] == 6
    assert [t.number for t in trials(home, "killed")] == list(range(6))
    assert {t.state for t in trials(home, "killed")} == {optuna.trial.TrialState.COMPLETE}


def test_a_second_coordinator_is_refused_from_another_folder_too_and_told_who_holds_the_study(home, tmp_path):
    database = databases.open_database(home)
    try:
        with databases.study_lock(database, "held"):
            elsewhere = Home(tmp_path / "another machine", search_uri=home.search_uri)
            with pytest.raises(StudyInUse, match=r"process \d+ on \S+"):
                run(toy(), elsewhere, "held")
            assert run(toy(), elsewhere, "free").counts["finished"] == 4
    finally:
        databases.close(database)
    assert run(toy(), home, "held").counts["finished"] == 4


def test_the_lock_of_a_dead_coordinator_is_free(home):
    code = (
        "import sys, time; from lab.search import database as d; from lab.storage import Home\n"
        "db = d.open_database(Home(search_uri=sys.argv[1]))\n"
        "with d.study_lock(db, 'dead'): print('held', flush=True); time.sleep(3600)\n"
    )
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code, home.search_uri], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StudyInUse, match=f"process {process.pid} on"):
            run(toy(), home, "dead")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    found = []

    def goes_on():
        with contextlib.suppress(StudyInUse):  # the server notices the broken connection in its own time
            found.append(run(toy(), home, "dead").counts["finished"])
        return found

    until(goes_on)
    assert found == [4]


def test_the_password_stands_in_no_file_of_a_study(home):
    run(toy(), home, "secret")
    for path in home.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"s3cret" not in content and home.search_uri.encode() not in content, path
    assert "s3cret" not in json.dumps(search.status(home, "secret"))


def test_an_address_that_is_wrong_is_one_clear_line(tmp_path):
    nobody = Home(tmp_path, search_uri=f"postgresql+psycopg://lab:s3cret@127.0.0.1:{free_port()}/lab")
    with pytest.raises(StorageError, match=r"postgresql\+psycopg://\*\*\*@127") as caught:
        run(toy(), nobody, "toy")
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)
    for driver, message in (("nosuch", "give postgresql://"), ("psycopg2", "its driver is missing")):
        with pytest.raises(SpecError, match=message):
            run(toy(), Home(tmp_path, search_uri=f"postgresql+{driver}://lab@127.0.0.1/lab"), "toy")
    for wrong in ("mysql://lab:s3cret@host/lab", "lab.db", "sqlite:///x"):
        with pytest.raises(SpecError, match="give postgresql://") as caught:
            Home.here(wrong)
        assert "s3cret" not in str(caught.value)
