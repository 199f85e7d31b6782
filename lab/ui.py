"""Starts the MLflow UI and the Optuna dashboard on this machine's loopback interface, and stops them together.

Each runs in a process of its own (this file, run as a module) that leads a process group and holds one end of a pipe:
when `serve` ends, in whatever way, the pipe closes and the group ends. So no server is left behind, not even by
kill -9.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

from lab import interrupts, live
from lab.errors import LabError, SpecError, StorageError
from lab.mlflow_store import VIEW, is_server, prepare_environment, remove_stray, tracking_uri
from lab.spec import check_name
from lab.storage import Home, masked
from lab.tracking import relocate

FIRST_LIVE = 8800  # where to look first for a free port for the live page
LOOPBACK = ("127.0.0.1", "localhost")
PATIENCE = 90.0  # seconds until a server has to answer; the MLflow UI took 8 on a busy machine of two cores


@dataclass
class _Server:
    """One of the two servers: how it is started, where it answers, how a page of it is found."""

    name: str
    kind: str
    uri: str  # of its database; handed over in the environment, because command lines can be read by everybody
    port: int
    health: str
    page: Callable[["_Server", str], str]  # the path of a study's page
    process: "subprocess.Popen[bytes] | None" = None
    log: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        prepare_environment()
        command = [sys.executable, "-m", "lab.ui", self.kind, str(self.port)]
        # job execution is for MLflow's evaluation of language models: 8 more processes, 1.2 GB (MLflow 3.17.2)
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "LAB_UI_DATABASE": self.uri}
        environment.setdefault("MLFLOW_ENABLE_AI_GATEWAY", "false")  # an entry that has nothing to do with studies
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, env=environment, start_new_session=True
        )

    def died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> None:
        if self.process is None:
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(seconds)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self.log.close()

    def last_words(self) -> str:
        self.log.seek(0)
        lines = [line for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
        return masked(lines[-1].strip()) if lines else "it said nothing"


def serve(
    study: str | None,
    *,
    home: Home,
    host: str = "127.0.0.1",
    ports: tuple[int, int] = (5000, 8080),
    open_browser: bool = False,
) -> int:
    """Run the MLflow UI, the Optuna dashboard and a study's live page until Ctrl-C; print where they are to stderr.

    Args:
        study: Whose pages the addresses lead to; None for the overviews.
        home: The project folder.
        host: The loopback address; anything else is refused, because neither server asks for a password.
        ports: Where to look first for a free port, for the MLflow UI and for the dashboard.
        open_browser: Whether to open both pages.

    Returns:
        The exit code: 0 after Ctrl-C, 143 after SIGTERM.

    Raises:
        SpecError: The host is not the loopback interface.
        StorageError: There is no database yet, or it does not hold the study.
        LabError: A server did not start, or ended by itself.
    """
    if host not in LOOPBACK:
        raise SpecError(f"--host {host}: the pages have no password, so they are served on 127.0.0.1 only")
    if study is not None:
        from lab import search

        check_name(study, "study")
        search.status(home, study)  # that there is no such study is said at once, with those that there are
    servers, live_page = _servers(home, ports), contextlib.ExitStack()
    heeded = contextlib.ExitStack()
    heeded.enter_context(interrupts.heeded())
    try:
        for server in servers:
            server.start()
        _wait(servers)
        pages = _pages(servers, study, home)
        if study is not None:
            port = _free_port(FIRST_LIVE, {server.port for server in servers})
            pages.append(("live page", live_page.enter_context(live.serving(study, home, port))))
        for name, address in pages:
            print(f"{name:<17} {address}", file=sys.stderr)
        print("Ctrl-C stops all of them.", file=sys.stderr, flush=True)
        if open_browser:
            for _, address in pages:
                webbrowser.open(address)
        while True:
            _check(servers)
            time.sleep(0.3)
    except interrupts.Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # not interrupted while stopping
        live_page.close()
        for server in servers:
            server.stop()
        remove_stray(home)
        heeded.close()


def _servers(home: Home, ports: tuple[int, int]) -> list[_Server]:
    first_mlflow, first_dashboard = ports
    uri = tracking_uri(home)
    for path, needed in ((home.mlflow_db, uri == home.mlflow_uri), (home.optuna_db, home.search_uri is None)):
        if needed and not path.is_file():
            raise StorageError(f"{path} does not exist: run a study first (python -m lab.study run NAME)")
    if uri == home.mlflow_uri:
        relocate(home)
    servers = []
    taken: set[int] = set()
    if not is_server(uri):  # a tracking server shows its pages itself
        port = _free_port(first_mlflow, taken)
        servers.append(_Server("MLflow UI", "mlflow", uri, port, "/health", _experiment_page))
    port = _free_port(first_dashboard, taken)
    servers.append(_Server("Optuna dashboard", "dashboard", home.optuna_uri, port, "/api/meta", _study_page))
    return servers


def _free_port(first: int, taken: set[int]) -> int:
    for port in range(first, min(first + 100, 65536)):
        if port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        taken.add(port)
        return port
    raise LabError(f"no free port from {first} to {first + 99}: stop one of the programs that hold them")


def _check(servers: Iterable[_Server]) -> None:
    interrupts.check()
    for server in servers:
        if server.died():
            raise LabError(f"the {server.name} ended by itself: {server.last_words()}")


def _wait(servers: list[_Server]) -> None:
    """Wait until every server answers."""
    deadline = time.monotonic() + PATIENCE
    for server in servers:
        while True:
            _check(servers)
            try:
                _get(server, server.health)
                break
            except OSError as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
                if time.monotonic() > deadline:
                    raise LabError(f"the {server.name} does not answer: {server.last_words()}") from None
                time.sleep(0.1)


def _get(server: _Server, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.address + path, timeout=PATIENCE) as answer:
        return answer.read()


def _pages(servers: list[_Server], study: str | None, home: Home) -> list[tuple[str, str]]:
    pages = [(s.name, s.address + (s.page(s, study) if study else "/")) for s in servers]
    uri = tracking_uri(home)
    return [("MLflow UI", masked(uri)), *pages] if is_server(uri) else pages


def _experiment_page(server: _Server, study: str) -> str:
    query = urllib.parse.urlencode({"experiment_name": study})
    try:
        answer = json.loads(_get(server, f"/ajax-api/2.0/mlflow/experiments/get-by-name?{query}"))
    except urllib.error.HTTPError as error:
        error.close()
        raise StorageError(f"study {study} has no runs in MLflow yet: run it first") from error
    # the MLflow UI starts as one for language models otherwise
    view = urllib.parse.urlencode({"workflowType": "machine_learning", "viewStateShareKey": VIEW})
    return f"/#/experiments/{answer['experiment']['experiment_id']}/runs?{view}"


def _study_page(server: _Server, study: str) -> str:
    for known in json.loads(_get(server, "/api/studies"))["study_summaries"]:
        if known["study_name"] == study:
            return f"/dashboard/studies/{known['study_id']}"
    raise StorageError(f"study {study} is not in Optuna's database yet: run it first")


# --- in the servers' own processes ------------------------------------------------------------------------------------


def _end_with_parent() -> None:
    """End this process group when the other end of stdin closes."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _run_mlflow(uri: str, port: int) -> None:
    from mlflow.cli import cli

    hosts = ",".join(f"{host}:{port}" for host in LOOPBACK)  # MLflow's own list lets "10.evil.com" through
    cli(
        ["server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--no-serve-artifacts", "--default-artifact-root", "mlruns/artifacts", "--allowed-hosts", hosts]
    )  # fmt: skip


NOTE = """**{question}**

A trial is one configuration, trained as many replicas (on other training sets and from other initial weights); its
objective and all numbers below are means over them.

| attribute | meaning |
|---|---|
| objective | on the validation set; replicas that diverged count with the worst value |
| `outcome` | finished, diverged (some replicas did), pruned (stopped early, as worse than the best), infeasible or failed; `reason` says why |
| `bias_sq`, `variance` | parts of the expected Brier score on the test set; without a known posterior `bias_sq` holds the noise |
| `variance_by_cause` | variance due to the training set (resample), to the seed (init), to both together (interaction) |
| `…_interval` | ends of the 95 % interval |
| `run_id` | the trial's run in MLflow |

“Hyperparameter Importance” on this page is PED-ANOVA: what decides whether a trial is among the best by the objective.
Which knob goes with bias², and which with variance, is another question: the report answers it.
"""  # noqa: E501


def _note_studies(uri: str) -> None:
    """Explain the columns of the lab's studies in the dashboard, unless somebody has written a note of their own."""
    import optuna
    from optuna_dashboard import save_note

    storage = optuna.storages.RDBStorage(uri.replace("{", "{{").replace("}", "}}"))
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler())
        question = study.user_attrs.get("question")
        noted = any(key.startswith("dashboard:note") for key in storage.get_study_system_attrs(study._study_id))
        if question is not None and not noted:
            save_note(study, NOTE.format(question=question))
    storage.engine.dispose()


def _run_dashboard(uri: str, port: int) -> None:
    import socketserver
    import wsgiref.simple_server

    from optuna_dashboard import wsgi

    _note_studies(uri)
    app = wsgi(uri)
    hosts = {f"{host}:{port}" for host in LOOPBACK}
    origins = {None, *(f"http://{host}" for host in hosts)}

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Refuse other host names and pages of other origins: neither DNS rebinding nor forged requests get in."""
        if environ.get("HTTP_HOST") not in hosts or environ.get("HTTP_ORIGIN") not in origins:
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"this page is for this machine only\n"]
        return app(environ, start_response)

    class Threaded(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
        daemon_threads = True

    wsgiref.simple_server.make_server("127.0.0.1", port, guarded, server_class=Threaded).serve_forever()


if __name__ == "__main__":
    _end_with_parent()
    {"mlflow": _run_mlflow, "dashboard": _run_dashboard}[sys.argv[1]](os.environ["LAB_UI_DATABASE"], int(sys.argv[2]))
