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


@pytest.fixture
def opened(browser, made, tmp_path):
    """Opens the page of a kind of history; afterwards no error may have been reported and nothing requested."""
    contexts, said, asked = [], [], []

    def open_page(kind, *, width=1280, scheme="light", javascript=True):
        path = tmp_path / f"{kind}.html"
        path.write_text(made(kind)[2], encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=javascript
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:") and not url.endswith(".html")] == []
