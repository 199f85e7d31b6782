import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest

from lab import ui
from lab.errors import SpecError, StorageError
from lab.storage import Home
from lab.tracking import Tracker
from tests import builders
from tests.servers import free_port
from tests.waiting import LONG, until

STUDY = "capacity_sweep"
SERVE = """
import sys
from pathlib import Path
from lab import ui
from lab.errors import LabError
from lab.storage import Home
ui.PATIENCE = 300.0
try:
    sys.exit(ui.serve(sys.argv[2] or None, home=Home(Path(sys.argv[1])), ports=(int(sys.argv[3]), int(sys.argv[4]))))
except LabError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(99)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        home = Home(tmp_path_factory.mktemp("ui"))
        tracker = Tracker.open(STUDY, home=home, question="Does it?")
        for path in builders.write_study(home.spool_of(STUDY), n_explore=3):
            tracker.publish(path)
        tracker.close()
        storage = optuna.storages.RDBStorage(home.optuna_uri)
        for name in ("another", STUDY):
            study = optuna.create_study(storage=storage, study_name=name)
            study.set_user_attr("question", "What is asked?")
            trial = study.ask({"width": optuna.distributions.IntDistribution(4, 256)})
            study.tell(trial.number, 0.5)
        storage.engine.dispose()
        yield home


@pytest.fixture
def ports():
    one = two = free_port()
    while two == one:
        two = free_port()
    return one, two


@contextlib.contextmanager
def serving(home, ports, study=STUDY, **variables):
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | variables
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", SERVE, home.root, study, *map(str, ports)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, cwd=home.root) as process:
        try:
            yield process
        finally:
            process.kill()


def addresses(process):
    """Wait until both servers answer and return their addresses."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return re.findall(r"http://\S+", "".join(lines))
    raise AssertionError("".join(lines))


def fetch(address, data=None, headers=None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"} | (headers or {}))
    with opener.open(request, timeout=LONG) as answer:
        return answer.read().decode()


def refused(address, headers, data=None):
    """Return whether a request is answered with 403."""
    try:
        fetch(address, data, headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 403
    return False


def processes_of(home):
    """Return the command lines of living processes that name the project folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(home.root) in command or set(environment(path)) & {
                f"{name}={uri}"
                for name in ("MLFLOW_BACKEND_STORE_URI", "LAB_UI_DATABASE")
                for uri in (home.mlflow_uri, home.optuna_uri)
            }:
                found.append(command)
    return found


def environment(path):
    return (path.parent / "environ").read_bytes().decode(errors="replace").split("\0")


def wait_until_all_are_gone(home):
    until(lambda: processes_of(home) == [], 60.0)


needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")


def files_of(home):
    """The files of a project, but locks, and what SQLite keeps beside a database in its WAL mode while it is in use."""
    used = (".db-wal", ".db-shm", ".lock")
    return {path for path in home.root.rglob("*") if path.is_file() and not path.name.endswith(used)}


@needs_proc
def test_both_servers_show_the_study_and_stop_on_ctrl_c(home, ports):
    files = files_of(home)
    with serving(home, ports) as process:
        mlflow_page, dashboard_page, _ = addresses(process)
        mlflow, dashboard = (page.split("/")[2] for page in (mlflow_page, dashboard_page))
        assert (mlflow, dashboard) == tuple(f"127.0.0.1:{port}" for port in ports)

        number = re.search(r"#/experiments/(\d+)", mlflow_page).group(1)
        assert "<html" in fetch(f"http://{mlflow}/")
        query = {"experiment_ids": [number], "max_results": 100}
        runs = json.loads(fetch(f"http://{mlflow}/ajax-api/2.0/mlflow/runs/search", query))["runs"]
        assert {run["info"]["run_name"] for run in runs} >= {"explore-0000", "confirm-0000", "learning_curve-0005"}
        run_id = runs[0]["info"]["run_id"]
        artifact = fetch(f"http://{mlflow}/get-artifact?path=config.json&run_uuid={run_id}")
        assert json.loads(artifact)["study"] == STUDY

        number = int(re.search(r"/dashboard/studies/(\d+)", dashboard_page).group(1))
        assert "<html" in fetch(dashboard_page)
        known = json.loads(fetch(f"http://{dashboard}/api/studies"))["study_summaries"]
        assert [s["study_name"] for s in known if s["study_id"] == number] == [STUDY]

        assert known[0]["study_name"] and "What is asked?" in fetch(f"http://{dashboard}/api/studies/{number}")
        searched = f"http://{mlflow}/ajax-api/2.0/mlflow/experiments/search?max_results=5"
        listed = f"http://{dashboard}/api/studies"
        for where, address in ((mlflow, searched), (dashboard, listed)):
            port = where.rpartition(":")[2]
            for host in (f"10.evil.com:{port}", f"evil.com:{port}", "evil.com", f"127.0.0.1.evil.com:{port}"):
                assert refused(address, {"Host": host}), host
            for origin in ("http://evil.com", f"http://evil.com:{port}", f"http://127.0.0.1.evil.com:{port}", "null"):
                assert refused(address, {"Origin": origin}, data={}), (address, origin)
            assert fetch(address, headers={"Host": f"localhost:{port}"})
        assert fetch(listed, headers={"Origin": f"http://{dashboard}"})

        assert len(processes_of(home)) <= 5
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 0
        assert "Traceback" not in process.stderr.read()
    wait_until_all_are_gone(home)
    assert files_of(home) == files


@needs_proc
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_process_is_left_after_a_kill(home, ports, number, code):
    with serving(home, ports) as process:
        addresses(process)
        assert len(processes_of(home)) >= 3
        process.send_signal(number)
        assert process.wait(LONG) == code
    wait_until_all_are_gone(home)


@needs_proc
def test_no_process_is_left_when_it_is_stopped_while_starting(home, ports):
    with serving(home, ports) as process:
        until(lambda: len(processes_of(home)) >= 3 or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 143
    wait_until_all_are_gone(home)


@needs_proc
def test_when_one_server_dies_both_end_and_it_says_which(home, ports):
    with serving(home, ports) as process:
        addresses(process)
        [victim] = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if b"lab.ui\0dashboard\0" in read(path) and f"LAB_UI_DATABASE={home.optuna_uri}" in environment(path)
        ]
        os.kill(victim, signal.SIGKILL)
        assert process.wait(LONG) == 99
        assert "error: the Optuna dashboard ended by itself" in process.stderr.read()
    wait_until_all_are_gone(home)


def read(path):
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_taken_ports_are_passed_over_and_an_unknown_study_is_an_error(home, ports):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))
        taken.listen()
        with serving(home, (ports[0], ports[0]), study="") as process:
            found = [int(address.split(":")[2].rstrip("/")) for address in addresses(process)]
            assert ports[0] < found[0] < found[1] < ports[0] + 100
            process.send_signal(signal.SIGINT)
            assert process.wait(LONG) == 0
    with serving(home, ports, study="unknown") as process:
        assert process.wait(LONG) == 99
        assert re.search("error: no study 'unknown' is stored here: choose one of", process.stderr.read())


def test_without_a_study_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(StorageError, match=r"mlflow\.db does not exist: run a study first"):
        ui.serve(None, home=Home(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_only_the_loopback_interface_is_served(tmp_path, host):
    with pytest.raises(SpecError, match=r"127\.0\.0\.1 only"):
        ui.serve(None, home=Home(tmp_path), host=host)
