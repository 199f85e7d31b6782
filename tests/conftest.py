"""What holds for all tests."""

import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.storage import Home
from tests.waiting import LONG

# One thread, as in a worker and in the inline engine; set before anybody imports torch. Bits are promised at a fixed
# number of threads: with two, a matrix product is cut at places that depend on its size, so that packs of other sizes
# round otherwise. And a fork that trains on several threads after its parent did waits for ever for the parent's.
os.environ["OMP_NUM_THREADS"] = "1"

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# no graphics device in a container, no profile, and nothing that looks for a network by itself
CHROMIUM_ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

# A shell starts a background job with SIGINT ignored, and children inherit that: tests that press Ctrl-C in a program
# they start would wait for ever. A Python handler here becomes the default action in every child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def patient(make):
    """Have pages wait for long: a browser on a busy machine takes its time."""

    def made(**options):
        page = make(**options)
        page.set_default_timeout(1000 * LONG)  # in milliseconds
        return page

    return made


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        missing = "no Chromium on this system (Debian: apt install chromium)"
        if os.environ.get("LAB_REQUIRE_BROWSER"):  # .ci/run: a check that is skipped there checks nothing
            pytest.fail(missing)
        pytest.skip(missing)
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install -e '.[test]')")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS, timeout=1000 * LONG)
        browser.new_page, browser.new_context = patient(browser.new_page), patient(browser.new_context)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def begun() -> Iterator[Home]:
    """Yield a project whose databases are made (that takes seconds) and whose faked study has one trial: copy it."""
    from tests import faults

    with faults.memory() as folder:
        home = Home(folder / "begun")
        home.root.mkdir()
        with faults.fake_trainer():
            faults.run(home, faults.small(1))
        yield home


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """MLflow's database with all its tables and nothing in them: making one takes seconds, copying it nothing."""
    from lab import mlflow_store

    home = Home(tmp_path_factory.mktemp("empty"))
    mlflow_store.connect(home, create=True)
    with contextlib.closing(sqlite3.connect(home.mlflow_db)) as database:  # else half of them lie in a file beside it
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return home.mlflow_db


@pytest.fixture(scope="session")
def new_home(empty_database):
    """Folder → a project folder whose MLflow has its tables."""

    def make(folder: Path) -> Home:
        home = Home(folder)
        home.mlruns.mkdir(parents=True)
        shutil.copy(empty_database, home.mlflow_db)
        return home

    return make


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one study, `toy`; the working directory."""
    from tests.command_line import LIGHT

    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.py").write_text(LIGHT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """Where the studies below are run: MLflow makes its tables once."""
    from tests.command_line import TOY

    project = tmp_path_factory.mktemp("project")
    (project / "studies").mkdir()
    (project / "studies" / "toy.py").write_text(TOY)
    return project
