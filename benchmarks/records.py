"""How a benchmark says what it measured: one JSON and one Markdown file beside it, with date and machine.

Numbers without n and the machine are worth nothing later, so both are written here, once for all benchmarks. No torch
and no name of the machine: only its kind.
"""

import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
FAMILY = {"family": "cpu family", "model": "model"}  # what each is called in /proc/cpuinfo
Rows = Sequence[Mapping[str, Any]]


def machine(**more: Any) -> dict[str, Any]:
    """Return what a measurement depends on: processor, cores, load, versions; `more` for a GPU and the like."""
    facts: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "n_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }
    for package in ("torch", "optuna", "mlflow"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts | more


def _processor() -> str:
    """Return the name of the processor with family and model, which a name alone may leave open."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    facts = dict(reversed(pairs))  # of the first core
    if "model name" not in facts:
        return platform.machine()
    numbers = ", ".join(f"{what} {facts[key]}" for what, key in FAMILY.items() if key in facts)
    return facts["model name"] + (f" ({numbers})" if numbers else "")


def rounds(seconds: float) -> Iterator[int]:
    """Yield the numbers of the rounds that fit into this time, by the longest so far; one round in any case."""
    started, longest, number = time.monotonic(), 0.0, 0
    while number == 0 or time.monotonic() - started + longest < seconds:
        began = time.monotonic()
        yield number
        number, longest = number + 1, max(longest, time.monotonic() - began)


def write(
    name: str,
    about: str,
    tables: Mapping[str, Rows],
    facts: Mapping[str, Any],
    folder: Path = FOLDER,
    flags: str = "",
) -> None:
    """Write <name>.json and <name>.md.

    Args:
        name: Of the benchmark; what follows "_" tells a run with flags apart.
        about: What was measured and how, for who reads the table: n, what is compared with what.
        tables: Title → rows, all of the same columns.
        facts: From `machine`.
        folder: Where to.
        flags: Of the command that made the result.
    """
    content = {"benchmark": name, "machine": dict(facts), "about": about}
    content |= {"tables": {title: [dict(row) for row in rows] for title, rows in tables.items()}}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown(name, about, tables, facts, flags), encoding="utf-8")
    print(f"written: {folder / name}.json and .md", file=sys.stderr)


def markdown(name: str, about: str, tables: Mapping[str, Rows], facts: Mapping[str, Any], flags: str = "") -> str:
    """Return the page of a benchmark."""
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items() if value is not None)
    command = f"python -m benchmarks.{name.partition('_')[0]} {flags}".strip()
    parts = [f"# {name}", f"`{command}`", about, f"Measured: {said}."]
    for title, rows in tables.items():
        parts += [f"## {title}", table(rows)]
    return "\n\n".join(parts) + "\n"


def table(rows: Rows) -> str:
    """Return rows as a Markdown table, numbers to four digits."""
    columns = list(rows[0]) if rows else []
    lines = [columns, ["---"] * len(columns), *([_cell(row[column]) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
