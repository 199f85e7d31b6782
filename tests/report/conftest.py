import os
import shutil
from collections.abc import Iterator
from functools import cache

import pytest

from lab.report.page import render
from lab.report.tables import Tables, collect
from tests.report.synthetic import SyntheticHistory, synthetic_history

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# no graphics device in a container, no profile, and nothing that looks for a network by itself
CHROMIUM_ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@cache
def _made(kind: str) -> tuple[SyntheticHistory, Tables, str]:
    history = synthetic_history(kind)
    tables = collect(history)
    return history, tables, render(history, tables)


@pytest.fixture(scope="session")
def made():
    """Kind of history → history, tables, page. Made once a session: the forests of the attribution take seconds."""
    return _made


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
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
        yield browser
        browser.close()
