"""The page: run history → tables → sections → one self-contained HTML file, and the tables beside it.

The file works offline and from any place. Its content security policy admits exactly the scripts and styles that it
was written with (by hash) and no address outside. The same history gives the same bytes: no clock, no random ids.
"""

import base64
import hashlib
import json
import os
from functools import cache
from importlib.resources import files as resource_files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lab import __version__, failpoints, history
from lab.analysis.diagnosis import lines
from lab.files import disk_errors
from lab.history import History
from lab.report import (
    framing,
    sections,
    sections_classes,
    sections_ensemble,
    sections_examples,
    sections_interventions,
    sections_labels,
    sections_trials,
)
from lab.report.context import Page
from lab.report.exports import file_names, files
from lab.report.markdown import markdown
from lab.report.style import css_colors, exchange
from lab.report.tables import Tables, collect
from lab.report.verdict import limits
from lab.report.view import Section, script_json
from lab.storage import Home, inside

PLOTLY_VERSION = "4.1.1"  # of plotly.js-cartesian-dist-min; the major that plotly.py 7 writes for
_EMPTY_SHA256 = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


class Built(NamedTuple):
    """A page on the disk, and what it was made of."""

    path: Path
    history: History
    tables: Tables

    @property
    def verdict(self) -> list[str]:
        """The verdict in three lines, for a terminal."""
        return lines(self.tables.diagnosis)

    def markdown(self, shown_path: str) -> str:
        """Return the report in a few lines of Markdown that name the page by `shown_path`."""
        return markdown(self.history, self.tables, shown_path)


def build(study: str, *, home: Home) -> Built:
    """Write reports/<study>.html and the tables beside it (reports/<study>/) from the run history.

    Raises:
        StorageError: There is no such run history, or it cannot be read or the report not be written.
    """
    loaded = history.load(study, home=home)
    tables = collect(loaded)
    page = home.report_of(study)
    with disk_errors(f"the report of {study} cannot be written"):
        folder = inside(home.reports, study)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files(loaded, tables).items():
            write(inside(folder, name), text)
        write(page, render(loaded, tables))
    return Built(page, loaded, tables)


def write(path: Path, text: str) -> None:
    """Replace a file as a whole, so that a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")  # always the same: what a kill leaves, the next build takes away
    try:
        failpoints.hit("report.write")
        partial.write_text(text, encoding="utf-8", newline="\n")
        failpoints.hit("report.rename")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def render(loaded: History, tables: Tables) -> str:
    """Return the page as text. Pure: nothing is read but the templates, nothing written."""
    page = Page(loaded, tables)
    context: dict[str, Any] = {
        "study": loaded.study,
        "question": str(loaded.spec.get("question", loaded.study)),
        "facts": framing.facts(page),
        "state": framing.state(page),
        "trials_table": sections_trials.trials_table(page),
        "main_files": [("trials.csv", page.href("trials.csv")), ("summary.json", page.href(f"{loaded.study}.json"))],
    }
    verdict_section, more = limits(page)
    checks_section, checks = framing.checks(page)
    words_section, words = framing.words(page)
    reproduce_section, reproduce = framing.reproduce(page, file_names(loaded, tables))
    context |= more | checks | words | reproduce
    techniques = sections_interventions.interventions(page)
    shown: list[Section] = [
        verdict_section,
        checks_section,
        *(_on_the_space(page) if techniques is None else [techniques]),
        sections.training(page),
        sections.more_data(page),
        sections_ensemble.ensemble(page),
        sections_classes.classes(page),
        sections_examples.examples(page),
        framing.method(page),
        words_section,
        reproduce_section,
    ]
    return assemble(context, shown)


def assemble(context: dict[str, Any], sections: list[Section]) -> str:
    """Return a page of sections as text, with its style, its scripts and the policy that admits only them."""
    sheet, boot, script, plotly = style(), template_text("boot.js"), template_text("report.js"), _plotly()
    return (
        environment()
        .get_template("page.html")
        .render(
            **context,
            sections=sections,
            style=Markup(sheet),
            boot=Markup(boot),
            script=Markup(script),
            plotly=Markup(plotly),
            exchange=script_json(json.dumps(exchange(), separators=(",", ":"))),
            csp=policy([boot, script, plotly], [sheet]),
            lab_version=__version__,
            plotly_version=PLOTLY_VERSION,
        )
    )


def _on_the_space(page: Page) -> list[Section]:
    """Return what can be said of a space of configurations; variants, which differ in one thing each, span none."""
    labels = sections_labels.noisy_labels(page)
    asked = [] if labels is None else [labels]
    return [*asked, sections.capacity(page), sections_trials.drivers(page), sections_trials.trade_offs(page)]


def policy(scripts: list[str], styles: list[str]) -> str:
    """Return a content security policy: these scripts and styles by their hashes, no address at all.

    plotly.js puts an empty style element in the page and fills it rule by rule, hence the hash of the empty text.
    """
    script = " ".join(f"'{_hash(text)}'" for text in scripts)
    style = " ".join(f"'{_hash(text)}'" for text in styles)
    return (
        f"default-src 'none'; script-src {script}; style-src {style} '{_EMPTY_SHA256}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def template_text(name: str) -> str:
    """Return a file of the folder templates/."""
    return (resource_files("lab.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    return template_text(f"plotly-cartesian-{PLOTLY_VERSION}.min.js")


@cache
def style() -> str:
    """Return the style sheet of all pages."""
    return template_text("report.css") + css_colors()


@cache
def environment() -> Environment:
    """Return the templates; everything that is put into them is escaped."""
    return Environment(
        loader=FunctionLoader(template_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
