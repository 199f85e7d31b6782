"""Where the wall time of a whole `capacity_sweep` goes: `python -m benchmarks.throughput --study`.

The study runs twice in a folder of its own: as a user starts it, for the wall time, and in one process, whose main
thread is looked at every few milliseconds, for the shares.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from benchmarks import records

EVERY = 0.005  # seconds between two looks
# what a moment counts as: the first line of which any frame of the stack is in one of the files
PARTS = {
    "evaluation": ("lab/training/evaluation.py",),
    "report": ("lab/report/", "lab/history"),
    "decomposition": ("lab/analysis/", "lab/outcome"),
    "training": ("lab/training/", "lab/data/"),
    "MLflow": ("/mlflow/", "lab/tracking"),
    "Optuna": ("/optuna/", "lab/search/ledger", "lab/search/samplers", "lab/search/points"),
}
REST = "imports and the rest"
ABOUT = """`capacity_sweep` with its defaults: {wall:.0f} s as a user starts it, with one worker process a core (n = 1).
The shares are those of a second run in one process ({inline:.0f} s, one thread; {looks} looks at its main thread, one
every {every:.0f} ms), in which nothing overlaps: with workers, what is not training, evaluation or decomposition
happens beside them. Goal: all that is neither training nor evaluation takes at most 10 %; here it is {other:.1%}."""


class Looks(threading.Thread):
    """Looks at the main thread every few milliseconds and counts in which part of the lab it is."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: Counter[str] = Counter()
        self._is_over = threading.Event()

    def run(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not self._is_over.wait(EVERY):
            self.found[part_of(sys._current_frames().get(main))] += 1

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def part_of(frame: FrameType | None) -> str:
    """Return the part of the lab that a stack is in."""
    files = []
    while frame is not None:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    return next((part for part, places in PARTS.items() if any(p in f for f in files for p in places)), REST)


def main(*, quick: bool, folder: Path) -> int:
    study = Path(__file__).parents[1] / "studies" / "capacity_sweep.py"
    arguments = ["run", str(study), *(["--smoke"] if quick else [])]
    facts = records.machine()
    environment = os.environ | {"PYTHONPATH": str(study.parents[1])}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as there:
        subprocess.run([sys.executable, "-m", "lab.study", *arguments], cwd=there, env=environment, check=True)
    wall, started = time.perf_counter() - started, time.perf_counter()
    here, looks = Path.cwd(), Looks()
    looks.start()
    with tempfile.TemporaryDirectory() as there:
        os.chdir(there)
        try:
            from lab.study import main as run

            code = run([*arguments, "--engine", "inline"])
        finally:
            os.chdir(here)
    looks.stop()
    inline, total = time.perf_counter() - started, sum(looks.found.values())
    share = {part: looks.found[part] / total for part in (*PARTS, REST)}
    other = 1 - share["training"] - share["evaluation"]
    about = ABOUT.format(wall=wall, inline=inline, looks=total, every=1e3 * EVERY, other=other)
    rows = [{"part": part, "seconds": inline * value, "share": value} for part, value in share.items()]
    records.write("throughput_study", about, {"One process": rows}, facts, folder, flags="--study")
    return code
