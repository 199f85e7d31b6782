from functools import cache

import pytest

from lab.report.page import render
from lab.report.tables import Tables, collect
from tests.report.synthetic import SyntheticHistory, synthetic_history


@cache
def _made(kind: str) -> tuple[SyntheticHistory, Tables, str]:
    history = synthetic_history(kind)
    tables = collect(history)
    return history, tables, render(history, tables)


@pytest.fixture(scope="session")
def made():
    """Kind of history → history, tables, page. Made once a session: the forests of the attribution take seconds."""
    return _made


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
