"""Several studies side by side: what the verdict's configuration of each does better or worse than that of the first.

In pairs where the two share data, training sets, seeds and test images: what is common cancels, and the intervals of
the differences are narrower than those of the two numbers.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab import history
from lab.analysis.capacity_curve import estimate
from lab.analysis.examples import per_example
from lab.analysis.paired import common, paired_difference
from lab.commands import command
from lab.errors import SpecError
from lab.files import disk_errors
from lab.history import History
from lab.knobs import KNOBS
from lab.report import figures_compare
from lab.report.exports import to_csv
from lab.report.markdown import plain
from lab.report.page import assemble, write
from lab.report.tables import focus_of, test_share, verdict
from lab.report.text import count, glossary, interval, is_number, knob_value, num, with_interval
from lab.report.view import Block, Link, Section, figure_view, panel, table_view
from lab.storage import Home, inside

TERMS = ("risk", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction")
MAIN = ("risk", "bias_sq", "variance")
LIKE = {"data_digest": "data", "seed": "study seed", "scheme": "scheme", "n_resamples": "number of training sets",
        "n_inits": "number of seeds", "n_noise_draws": "draws of the label noise", "n_partitions": "partitions",
        "n_train": "training examples", "phase": "phase"}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """A study and the run that speaks for it."""

    history: History
    row: pd.Series
    verdict: str

    @property
    def name(self) -> str:
        """The stored name of the study."""
        return self.history.study


@dataclass(frozen=True)
class Comparison:
    """One study against the first: `table` has a row a term, `unlike` says what forbids pairs (empty: paired)."""

    other: Side
    table: pd.DataFrame
    unlike: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A page on the disk, what it answers in a line a study, and the table as Markdown."""

    path: Path
    answers: list[str]
    markdown: str


def build(names: list[str], *, home: Home) -> Built:
    """Write the page that compares stored studies with the first of them, and its table as CSV beside it.

    Raises:
        SpecError: Fewer than two different studies are named.
        StorageError: One has no run history, or nothing in it was measured.
    """
    if len(set(names)) != len(names) or len(names) < 2:
        raise SpecError(f"report {' '.join(names)}: name two or more different studies to compare them")
    first, *others = [_side(name, home) for name in names]
    comparisons = [compare(first, other) for other in others]
    path = inside(home.reports, f"compare-{digest(names)}.html")
    csv = path.with_suffix(".csv")
    table = pd.concat([c.table.assign(study=c.other.name) for c in comparisons], ignore_index=True)
    with disk_errors(f"the comparison of {', '.join(names)} cannot be written"):
        home.reports.mkdir(parents=True, exist_ok=True)
        write(csv, to_csv(table))
        write(path, render(first, comparisons, csv.name))
    return Built(path, [_answer(first, c) for c in comparisons], _markdown(first, comparisons))


def _counts(side: Side) -> str:
    """Return "32 replicas on 400 test images" of the run that speaks for a study."""
    return f"{num(side.row.get('n_replicas'))} replicas on {num(side.history.data.get('n_test'))} test images"


def _markdown(first: Side, comparisons: list[Comparison]) -> str:
    bias = _bias([first, *(c.other for c in comparisons)])
    lines = [f"### {', '.join(plain(c.other.name) for c in comparisons)} minus {plain(first.name)}", "",
             f"| study | part | difference | {_level(first)} % interval |", "|---|---|---|---|"]  # fmt: skip
    for c in comparisons:
        for row in c.table[c.table["term"].isin(MAIN)].to_dict("records"):
            ends = interval(row["lo"], row["hi"], row["difference"])
            part = bias if row["term"] == "bias_sq" else row["term"]
            lines.append(f"| {plain(c.other.name)} | {part} | {num(row['difference'])} | {ends} |")
    lines += ["", *(f"{plain(s.name)}: {plain(s.verdict)}; risk {plain(with_interval(s.row, 'risk'))}, {_counts(s)}."
                    for s in [first, *(c.other for c in comparisons)])]  # fmt: skip
    lines += ["", *(f"{plain(c.other.name)}: " + ("in pairs." if not c.unlike else
              f"not in pairs, as it differs in {plain(', '.join(c.unlike))}.") for c in comparisons)]  # fmt: skip
    return "\n".join(lines) + "\n"


def digest(names: list[str]) -> str:
    """Return a file name's part for a comparison: the names, cut where they are many, with a hash of all of them."""
    whole = "+".join(names)
    return whole if len(whole) <= 80 else f"{whole[:70]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _side(name: str, home: Home) -> Side:
    loaded = history.load(name, home=home)
    row = focus_of(loaded, loaded.phase("explore"))
    if row is None or not is_number(row.get("risk")):
        raise SpecError(f"report: no trial of {name} has a measured risk, so there is nothing to compare: run it first")
    images = per_example(*loaded.predictions(str(row["key"])))
    return Side(loaded, row, verdict(loaded, test_share=test_share(row, images)).verdict)


def compare(first: Side, other: Side) -> Comparison:
    """Return other − first for every term: in pairs where the two have everything in common that allows it."""
    unlike = [f"{words} ({_value(first, k)} and {_value(other, k)})" for k, words in LIKE.items()
              if _value(first, k) != _value(other, k)]  # fmt: skip
    if not unlike and _value(first, "n_partitions") != "1":
        unlike.append("what pairs can show: training sets of different partitions overlap")
    if not unlike:
        p, q = (side.history.predictions(str(side.row["key"])) for side in (first, other))
        arrays = common(p.probabilities_DINC, q.probabilities_DINC)
        if np.array_equal(p.labels_N, q.labels_N) and arrays[0].shape == arrays[1].shape:
            table = paired_difference(*arrays, p.labels_N, posterior_NC=p.posterior_NC)
            return Comparison(other, table[table["term"].isin(TERMS)].reset_index(drop=True), ())
        unlike.append("test images")
    rows = []
    for term in TERMS:
        a, b = estimate(first.row, term), estimate(other.row, term)
        change = b - a
        rows.append({"term": term, "a": a.value, "b": b.value, "difference": change.value, "lo": change.lo,
                     "hi": change.hi})  # fmt: skip
    return Comparison(other, pd.DataFrame(rows), tuple(unlike))


def _value(side: Side, name: str) -> str:
    value = side.row.get(name)
    if name in ("n_noise_draws", "n_partitions"):  # runs of earlier editions have neither
        return f"{value:g}" if is_number(value) else "1"
    if is_number(limit := side.row.get(name.replace("n_", "max_"))):  # of trials that grow: what they can have decides
        return f"up to {limit:g}"  # which training sets and seeds these are
    return str(value)[:12]


def _known_noise(sides: list[Side]) -> bool:
    return all(bool(side.history.data.get("has_posterior")) for side in sides)


def _bias(sides: list[Side]) -> str:
    return "bias²" if _known_noise(sides) else "bias² + noise"


def _level(side: Side) -> str:
    return f"{100 * float(side.row.get('level', 0.95)):g}"


def _answer(first: Side, c: Comparison) -> str:
    bias = _bias([first, c.other])
    told = []
    for term in MAIN:
        row = c.table[c.table["term"] == term].iloc[0]
        name = bias if term == "bias_sq" else term
        size, ends = row["difference"], (row["lo"], row["hi"])
        if is_number(row["lo"]) and row["lo"] > 0:
            told.append(f"{name} is higher by {num(size)} {interval(*ends, size)}")
        elif is_number(row["hi"]) and row["hi"] < 0:
            told.append(f"{name} is lower by {num(-size)} {interval(-row['hi'], -row['lo'], size)}")
        else:
            told.append(f"{name} cannot be told apart ({num(size)} {interval(*ends, size)})")
    return f"{c.other.name} against {first.name}: {'; '.join(told)}."


def render(first: Side, comparisons: list[Comparison], csv: str) -> str:
    """Return the page as text."""
    sides = [first, *(c.other for c in comparisons)]
    known = _known_noise(sides)
    names = " ".join(side.name for side in sides)
    level, bias = _level(first), _bias(sides)
    fig = figures_compare.difference_forest([(c.other.name, c.table) for c in comparisons], with_noise=known)
    answer = " ".join(_answer(first, c) for c in comparisons)
    blocks = panel([figure_view(
        fig, "differences", label=f"Differences to {first.name}. {answer}", height="h3" if len(sides) < 4 else "h4",
        caption=f"Each point: a study minus {first.name}; left of 0 is better. {level} % intervals over training sets, "
        "seeds and test images. An interval that holds 0 is no difference to speak of. "
        f"n: {'; '.join(f'{s.name}: {_counts(s)}' for s in sides)}.",
    )])  # fmt: skip
    again = f"python -m lab.study report {names}"
    columns: list[Any] = [("term", "part", lambda t: {"bias_sq": bias}.get(t, t.replace("_", " "))), ("a", first.name)]
    for c in comparisons:
        table = c.table.rename(columns={"lo": "difference_lo", "hi": "difference_hi"})
        blocks.append(Block("numbers", table_view(
            table, [*columns, ("b", c.other.name), ("difference", "difference")], link=Link(csv, csv),
            title=f"{c.other.name} minus {first.name}", caption=f"One row a part; brackets: {level} % intervals.",
        )))  # fmt: skip
    unlike = [c for c in comparisons if c.unlike]
    comparable = (
        "Yes, in pairs: the same data, training sets, seeds and test images."
        if not unlike
        else f"Not in pairs: {count(len(unlike), 'study was', 'studies were')} not measured on the training sets, "
        f"seeds and test images of {first.name}, so the intervals are those of independent studies, and too wide "
        "or too narrow where they are not."
    )
    lines = [f"{c.other.name} differs in {', '.join(c.unlike)}." for c in unlike]
    lines += [f"{c.other.name}: {_knobs(first, c.other)}." for c in comparisons]
    sections = [
        Section("differences", "How do they differ?", answer, tuple(blocks), short="Differences"),
        Section("comparable", "Can they be compared?", comparable, (Block("list", lines),), short="Comparable"),
        Section("each", "What does each say by itself?", "; ".join(f"{s.name}: {s.verdict}" for s in sides) + ".",
                (Block("list", [f"{s.name}: {s.history.spec.get('question', '')}" for s in sides]),),
                short="Each study"),
        Section("words", "What do the words mean?",
                f"A difference of {bias} is in how wrong the average training is; one of variance, in how much "
                "trainings differ.", partial="words", short="Words"),
        Section("reproduce", "How can this be reproduced?", "From the run histories, with one command.",
                (Block("command", again), Block("note", "The studies themselves:"),
                 *(Block("command", command("run", s.name, spec=s.history.spec, asked=s.history.asked))
                   for s in sides)), short="Reproduce"),
    ]  # fmt: skip
    context: dict[str, Any] = {
        "study": names, "question": f"{', '.join(s.name for s in sides[1:])} against {first.name}", "state": "",
        "facts": [(s.name, f"{_which(s)}, risk {with_interval(s.row, 'risk')}") for s in sides],
        "main_files": [("differences.csv", csv)],
        "words": glossary(known, level),
    }  # fmt: skip
    return assemble(context, sections)


def _which(side: Side) -> str:
    return "confirmed" if side.row["phase"] == "confirm" else f"trial {side.row['number']:g}, not confirmed"


def _knobs(first: Side, other: Side) -> str:
    changed = [f"{k} {knob_value(first.row[k])} → {knob_value(other.row[k])}" for k in KNOBS
               if k in first.row and k in other.row and first.row[k] != other.row[k]]  # fmt: skip
    return f"knobs {', '.join(changed)}" if changed else "the same knobs"
