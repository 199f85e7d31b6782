"""What a study costs beside its training: the coordinator, the databases, the report; measured with training faked.

    python -m benchmarks.scale                # 1,000 trials, then the overhead of 1, 2 and 4 workers
    python -m benchmarks.scale --trials 50    # smaller
    python -m benchmarks.scale --browser      # and how long its pages take in a browser (Chromium and Playwright)

A faked training returns random predictions at once, or sleeps, so nearly all the time that is left is the lab's own.
"""

import argparse
import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import records
from lab import history, search
from lab.progress import Progress
from lab.replication import Replication
from lab.spec import Choice, Float, Int, Study
from lab.storage import Home

STUDY_FILE = "from tests.fake_training import fake\n"  # a process that loads it trains with fakes from then on
BIG = 10_000  # trials: the study that the table extrapolates to
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# page → what is there once it shows n trials: rows (the MLflow UI loads the first 100), figures with all points
DRAWN = {
    "MLflow UI": "n => document.querySelectorAll('.ag-center-cols-container .ag-row').length > 5",
    "Optuna dashboard": """n => document.querySelectorAll('.js-plotly-plot').length >= 3
        && [...document.querySelectorAll('.js-plotly-plot')].every((plot) => plot.querySelector('svg.main-svg'))
        && document.querySelector('.js-plotly-plot').querySelectorAll('path.point').length >= n""",
    "live page": "n => document.querySelectorAll('figure svg').length > 0",
}


def study(n_trials: int) -> Study:
    """Return a study with as many knobs as capacity_sweep, whose training is faked."""
    space = dict(
        learning_rate=Float(1e-4, 1.0, log=True), width=Int(4, 256, log=True), depth=Int(1, 4),
        batch_size=Choice(16, 32, 64), dropout=Float(0.0, 0.5), weight_decay=Float(1e-6, 1e-2, log=True),
        init_scheme=Choice("he_normal", "xavier_normal", "orthogonal"), init_gain=Float(0.5, 2.0, log=True),
    )  # fmt: skip
    return Study(
        question="What does a trial cost?", data="fake", space=space, fixed=dict(epochs=60, n_train=40),
        replication=Replication("disjoint", 8, 4), n_trials=n_trials, learning_curve=(1.0,),
    )  # fmt: skip


@contextmanager
def _folder(seconds: float) -> Iterator[tuple[Home, str]]:
    """Give a project folder with a study file, and have faked trainings take so long."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "study.py"
        path.write_text(STUDY_FILE)
        before = os.environ.get("LAB_FAKE_SECONDS")
        os.environ["LAB_FAKE_SECONDS"] = str(seconds)
        try:
            yield Home(Path(name)), str(path)
        finally:
            os.environ.pop("LAB_FAKE_SECONDS")
            if before is not None:
                os.environ["LAB_FAKE_SECONDS"] = before


class Clock(Progress):
    """Says nothing, and keeps the wall and processor time at which each trial was done."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[float, float]] = []

    def done(self, **facts: Any) -> None:
        self.times.append((time.monotonic(), time.process_time()))

    def note(self, text: str) -> None:
        pass

    def tick(self) -> None:
        pass


def _run(n_trials: int, home: Home, study_file: str, n_workers: int) -> list[tuple[float, float]]:
    """Run the study; return the wall and processor time of the coordinator at which each trial was done."""
    clock = Clock()
    summary = search.run(
        study(n_trials), "scale", home=home, device="cpu", engine="process", n_workers=n_workers,
        study_file=study_file, progress=clock,
    )  # fmt: skip
    assert summary.counts["finished"] == n_trials, summary.counts
    return clock.times[:n_trials]  # without the confirmation


def unit_costs(n_trials: int, browser: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what one trial costs, measured over a study of `n_trials`, and what a study of `BIG` trials would need.

    And how long it takes to open that study afterwards.
    """
    with _folder(0.0) as (home, study_file):
        times = _run(n_trials, home, study_file, 2)
        cpu = (times[-1][1] - times[0][1]) / (n_trials - 1)  # without imports and the making of the databases
        with closing(sqlite3.connect(home.mlflow_db)) as database:
            n_rows = database.execute("SELECT count(*) FROM metrics").fetchone()[0]
        artifacts = sum(path.stat().st_size for path in home.artifacts.rglob("*") if path.is_file())
        costs: dict[str, tuple[float, str]] = {
            "coordinator, processor time": (cpu, "s a trial"),
            "MLflow, metric rows": (n_rows / n_trials, "rows a trial"),
            "MLflow, database": (home.mlflow_db.stat().st_size / n_trials / 1e6, "MB a trial"),
            "Optuna, database": (home.optuna_db.stat().st_size / n_trials / 1e6, "MB a trial"),
            "artifacts (15 test points; real ones are larger)": (artifacts / n_trials / 1e6, "MB a trial"),
        }
        opened = _opened(n_trials, home, browser)
    return [
        {"what": what, "cost": cost, "unit": unit, f"at {BIG:,} trials": cost * BIG}
        for what, (cost, unit) in costs.items()
    ], opened


def opening(n_trials: int, browser: bool = False) -> dict[str, Any]:
    """Return how long it takes to open a study of so many trials."""
    with _folder(0.0) as (home, study_file):
        _run(n_trials, home, study_file, 2)
        return _opened(n_trials, home, browser)


def _opened(n_trials: int, home: Home, browser: bool) -> dict[str, Any]:
    import plotly.graph_objects  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.ensemble  # noqa: F401

    from lab.report import page

    row: dict[str, Any] = {"trials": n_trials}
    for what, call in (
        ("status s", lambda: search.status(home, "scale")),
        ("reading s", lambda: history.load("scale", home=home)),
        ("report s, reading included", lambda: page.build("scale", home=home)),
    ):
        started = time.monotonic()
        call()
        row[what] = time.monotonic() - started
    row["page MB"] = home.report_of("scale").stat().st_size / 1e6
    return row | (_browsed(n_trials, home) if browser else {})


def _browsed(n_trials: int, home: Home) -> dict[str, float]:
    """Return how long `ui` takes to start, and each of its pages in a browser that has not seen it before."""
    from playwright.sync_api import sync_playwright

    started = time.monotonic()
    command = [sys.executable, "-m", "lab.study", "ui", "scale"]
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        command, cwd=home.root, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            lines = list(itertools.takewhile(lambda line: not line.startswith("Ctrl-C"), server.stderr))
            pages = dict(re.split("  +", line.strip()) for line in lines)
            seconds = {"ui s": time.monotonic() - started}
            executable = next(filter(None, map(shutil.which, BROWSERS)), None)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=executable, args=["--headless", "--no-sandbox"])
                for name, drawn in DRAWN.items():
                    page = browser.new_page()
                    started = time.monotonic()
                    page.goto(pages[name], wait_until="commit")
                    page.wait_for_function(drawn, arg=n_trials, timeout=120_000)
                    seconds[f"{name} s"] = time.monotonic() - started
                    page.close()
                browser.close()
        finally:
            server.send_signal(signal.SIGINT)
    return seconds


def overhead(workers: list[int], n_trials: int, seconds: float) -> list[dict[str, Any]]:
    """Return how much longer a study takes, from its first trial that is done to its last, than the trainings would."""
    rows = []
    for n_workers in workers:
        with _folder(seconds) as (home, study_file):
            times = _run(n_trials, home, study_file, n_workers)
        wall, cpu = times[-1][0] - times[0][0], times[-1][1] - times[0][1]
        ideal = seconds * (n_trials - 1) / n_workers
        rows.append(
            {"workers": n_workers, "trials": n_trials - 1, "seconds a training": seconds, "wall s": wall,
             "ideal s": ideal, "ratio": wall / ideal if ideal else None, "coordinator, cores": cpu / wall}
        )  # fmt: skip
    return rows


def main(argv: list[str] | None = None, folder: Path = records.FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--small", type=int, nargs="*", default=[100], help="trials of smaller studies to open, too")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=1.0, help="of a faked training, for the overhead")
    parser.add_argument("--browser", action="store_true", help="open the pages of `ui` too")
    args = parser.parse_args(argv)
    facts = records.machine(n_runs=1)
    n_overhead = max(4 * max(args.workers, default=1), min(args.trials, 60))
    costs, opened = unit_costs(args.trials, args.browser)
    tables = {
        f"Unit costs, over {args.trials} trials of 32 replicas with 8 knobs, 2 workers": costs,
        "Opening a study, after imports": [*(opening(n, args.browser) for n in args.small if n < args.trials), opened],
        "Overhead of workers": overhead(args.workers, n_overhead, args.seconds),
    }
    about = (
        "Training is faked: random predictions on 15 test points, 2 evaluations (a real trial has about 20, so more "
        "metric rows). Processor time is that of the coordinator's process alone, from the first trial that is done to "
        "the last; so is the wall time, which is compared with the trainings shared out evenly over the workers. A "
        "faked training sleeps, so that more workers than cores do not wait for each other."
    )
    records.write("scale", about, tables, facts, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
