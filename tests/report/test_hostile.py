"""Whatever text stands in a run history: in a real browser none of it runs, and nothing is fetched."""

import dataclasses

import pytest

from lab.report.page import render
from lab.report.tables import collect
from tests.report.synthetic import synthetic_history
from tests.report.test_browser import DRAW_ALL

pytestmark = pytest.mark.browser

RUN = "window.pwned=1"
PAYLOADS = [
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"\"><img src=x onerror='{RUN}'>",
    f"' onmouseover='{RUN}' x='",
    f'" autofocus onfocus="{RUN}" x="',
    f'<iframe srcdoc="<script>parent.{RUN.removeprefix("window.")}</script>"></iframe>',
    f'<a href="javascript:{RUN}">click</a>',
    f"<body onload={RUN}>",
    f"<details open ontoggle={RUN}><summary>x</summary></details>",
    f"<style>@import 'http://evil.example/x.css';</style>{RUN}",
    "<link rel=stylesheet href=http://evil.example/x.css>",
    "<img src=http://evil.example/pixel.png>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    f"{{{{ {RUN} }}}}{{% raw %}}",
    f"<!--<script>{RUN}//--></script>",
    f"${{{RUN}}}`+{RUN}+`",
    f"\u2028</textarea><math><mtext></form><script>{RUN}</script>",
]


def hostile_page(payloads):
    """Return the page of a history whose every text is one of the payloads."""
    history = synthetic_history("healthy")
    names = [payloads[k % len(payloads)] + str(k) for k in range(10)]
    texts = history.trials.assign(
        init_scheme=[payloads[k % len(payloads)] for k in range(len(history.trials))],
        run_id=[payloads[k % len(payloads)] + str(k) for k in range(len(history.trials))],
        reason=[payloads[k % len(payloads)] for k in range(len(history.trials))],
    )
    hostile = dataclasses.replace(
        history,
        study=payloads[0],
        spec={**history.spec, "question": payloads[1], "fixed": {"activation": payloads[2]}, "data": payloads[3]},
        data={**history.data, "name": payloads[4], "source": payloads[5], "digest": payloads[6], "class_names": names},
        environment={key: payloads[k % len(payloads)] for k, key in enumerate(history.environment)},
        trials=texts,
    )
    return render(hostile, collect(hostile))


@pytest.mark.parametrize("half", [0, 1])
def test_no_text_of_a_history_runs_or_loads_anything(browser, tmp_path, half):
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 20
    path = tmp_path / "hostile.html"
    path.write_text(hostile_page(PAYLOADS[10 * half : 10 * half + 10]), encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    requests, said, dialogs = [], [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.goto(path.as_uri())
    page.evaluate(DRAW_ALL)
    for details in page.locator("details").all():
        details.evaluate("node => { node.open = true; }")
    page.mouse.move(200, 200)
    page.wait_for_timeout(300)
    shown = page.locator("body").inner_text()
    ran, where = page.evaluate("window.pwned"), page.url
    loaded = [url for url in requests if url != path.as_uri() and not url.startswith("data:")]
    context.close()
    assert (ran, loaded, said, dialogs, where) == (None, [], [], [], path.as_uri())
    assert PAYLOADS[10 * half + 1].split()[0] in shown.replace("\u2028", "")  # the question: shown, as text


def test_the_guard_of_this_test_sees_a_payload_that_runs(browser, tmp_path):
    path = tmp_path / "open.html"
    path.write_text(f"<!doctype html><title>x</title><body>{PAYLOADS[0]}</body>")
    context = browser.new_context()
    page = context.new_page()
    page.goto(path.as_uri())
    ran = page.evaluate("window.pwned")
    context.close()
    assert ran == 1
