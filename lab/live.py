"""A live page of one study on this machine's loopback interface, and the report of what is done so far.

A thread looks at the study every few seconds and keeps the two pages in memory: nothing is written, so it is no second
writer beside the coordinator, and a page that is asked for is there at once.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lab.errors import LabError, one_line
from lab.storage import Home

if TYPE_CHECKING:
    from lab.history import History

LOOK_EVERY = 2.0  # seconds
REPORT_EVERY = 15.0  # at least between two reports, and ten times as long as the last one took to make
HTML, CSV, JSON = "text/html; charset=utf-8", "text/csv; charset=utf-8", "application/json"

WAITING = (  # a page that asks again by itself until there is one
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
    "<title>{study}</title><p>{study}: {why}. This page asks again every two seconds.</p>\n"
)


class Watch:
    """Keeps the pages of a study as they are now. `page(path)` may be called from any thread."""

    def __init__(self, study: str, home: Home) -> None:
        self._study, self._home = study, home
        self._pages: dict[str, tuple[str, bytes]] = {}
        self._loaded: History | None = None
        self._loaded_at: tuple[object, ...] = ()  # how the study stood then
        self._reported_at: tuple[object, ...] = ()
        self._next_report = 0.0
        self._note = "The report is made when the first trial is done."

    def page(self, path: str) -> tuple[str, bytes] | None:
        """Return content type and content of a page; None if there is none at that path."""
        return self._pages.get(path)

    def look(self) -> None:
        """Renew the pages from the stored study.

        Raises:
            LabError: It cannot be read.
        """
        from lab import history, search
        from lab.report import live_page

        [status] = search.status(self._home, self._study)
        now = (tuple(status["counts"].values()), tuple(status["runs"]), status["n_spooled"])
        if now != self._loaded_at:
            with contextlib.suppress(LabError):  # no trial is published yet
                self._loaded, self._loaded_at = history.load(self._study, home=self._home), now
        if self._loaded is not None and self._reported_at != self._loaded_at and time.monotonic() >= self._next_report:
            self._report(self._loaded)
            self._reported_at = self._loaded_at
        text = live_page.live_page(status, self._loaded, report_note=self._note)
        self._pages = self._pages | {"/": (HTML, text.encode())}

    def _report(self, loaded: "History") -> None:
        from lab.report import page
        from lab.report.exports import files
        from lab.report.tables import collect

        started = time.monotonic()
        tables = collect(loaded)
        pages = {"/report.html": (HTML, page.render(loaded, tables).encode())}
        for name, text in files(loaded, tables).items():
            pages[f"/{self._study}/{name}"] = (JSON if name.endswith(".json") else CSV, text.encode())
        self._pages = self._pages | pages
        took = time.monotonic() - started
        self._next_report = time.monotonic() + max(REPORT_EVERY, 10 * took)
        n = len(loaded.phase("explore"))
        self._note = f"made from {n} {'trial' if n == 1 else 'trials'}; renewed as more are done"


@contextlib.contextmanager
def serving(study: str, home: Home, port: int) -> Iterator[str]:
    """Serve the live page while the context is open; gives its address. Errors of the study stand on the page."""
    watch, stop = Watch(study, home), threading.Event()

    def keep_looking() -> None:
        while not stop.is_set():
            try:
                watch.look()
            except LabError as error:  # a locked database, a file half removed: the next look will do
                last_error[:] = [one_line(error)]
            stop.wait(LOOK_EVERY)

    last_error: list[str] = []
    hosts = {f"{host}:{port}" for host in ("127.0.0.1", "localhost")}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if (
                self.headers.get("Host") not in hosts
            ):  # a page elsewhere could point one of its own here (DNS rebinding)
                self._answer(403, "text/plain", b"unknown host name\n")
                return
            path = unquote(urlsplit(self.path).path)
            found = watch.page(path)
            if found is None and path == "/":
                waiting = last_error[0] if last_error else "the study is being read"
                self._answer(503, HTML, WAITING.format(study=escape(study), why=escape(waiting)).encode())
            elif found is None:
                self._answer(404, "text/plain", b"there is no such page\n")
            else:
                self._answer(200, *found)

        def _answer(self, code: int, kind: str, content: bytes) -> None:
            self.send_response(code)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))),
                                ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # whoever asked has gone
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass  # one line a request would drown what `ui` says

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threads = [threading.Thread(target=keep_looking, daemon=True),
               threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)]  # fmt: skip
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
