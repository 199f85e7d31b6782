"""Real servers for tests, each on a free loopback port and in a folder of its own: PostgreSQL and MLflow."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.waiting import LONG, until


def free_port():
    """Return a port that nobody uses, of those that a system does not give to who asks for any, as clients do."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def postgres_programs():
    """Return the folder of initdb and postgres: on PATH, or where Debian keeps the newest version of them."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if versions:
        return versions[-1].parent
    if os.environ.get("LAB_REQUIRE_SERVERS"):  # .ci/run: a check that is skipped there checks nothing
        pytest.fail("PostgreSQL is not installed")
    pytest.skip("PostgreSQL is not installed")


class Postgres:
    """A PostgreSQL server with one database "lab", owned by the user "lab" with the password "s3cret/@%"."""

    PASSWORD = "s3cret/@%"

    def __init__(self, folder):
        self.folder, self.programs, self.port = Path(folder), postgres_programs(), free_port()
        self.process = None
        # PostgreSQL refuses to run as root
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self.folder.mkdir(parents=True, exist_ok=True)
        password = self.folder / "password"
        password.write_text(self.PASSWORD)
        if self.user:
            for path in (self.folder, password):
                shutil.chown(path, "postgres", "postgres")
        self._run(
            "initdb", "--username=lab", f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8",
            "--locale=C", str(self.folder / "data"),
        )  # fmt: skip

    def _run(self, program, *arguments):
        subprocess.run(
            [str(self.programs / program), *arguments],
            check=True, capture_output=True, cwd=self.folder, timeout=LONG, **self.user,
        )  # fmt: skip

    @property
    def uri(self):
        return f"postgresql+psycopg://lab:s3cret%2F%40%25@127.0.0.1:{self.port}/lab"

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), "-h",
                 "127.0.0.1", "-k", "", "-F"],
                stdout=log, stderr=log, cwd=self.folder, **self.user,
            )  # fmt: skip
        import psycopg

        address = dict(host="127.0.0.1", port=self.port, user="lab", password=self.PASSWORD)

        def has_its_database():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            with (
                contextlib.suppress(psycopg.OperationalError),  # it is not ready yet
                psycopg.connect(**address, dbname="postgres", autocommit=True) as connection,
            ):
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'lab'").fetchone():
                    connection.execute("CREATE DATABASE lab")
                return True

        until(has_its_database)

    def kill(self):
        """Stop the server at once, as a crash would: its sessions are cut, its files recovered at the next start."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(LONG)


class TrackingServer:
    """A `mlflow server` over a SQLite file and an artifact folder."""

    def __init__(self, folder):
        self.folder, self.port = Path(folder), free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = None

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", "1",
        ]  # fmt: skip
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            with contextlib.suppress(OSError), opener.open(f"{self.uri}/health", timeout=LONG):
                return True

        until(answers)

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(LONG)
