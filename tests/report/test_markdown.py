"""The report in a few lines: the numbers of the page, and nothing in a name becomes markup."""

import dataclasses

from lab.report.markdown import markdown, plain
from lab.report.text import interval, num
from tests.report.synthetic import KINDS


def test_it_has_the_verdict_the_parts_with_intervals_and_the_first_three_actions(made):
    history, tables, _ = made("healthy")
    text = markdown(history, tables, "reports/x.html")
    assert f"**{tables.diagnosis.verdict}.**" in text
    for part in ("risk", "variance"):
        row = tables.focus
        assert f"| {part} | {num(row[part])} | {interval(row[f'{part}_lo'], row[f'{part}_hi'], row[part])} |" in text
    error = [row[f"error{end}"] for end in ("", "_lo", "_hi")]
    assert f"| error rate | {num(error[0])} | {interval(*error[1:], error[0])} |" in text
    for action in tables.diagnosis.actions[:3]:
        assert action.command is None or f"`{action.command}`" in text


def test_every_study_has_one_without_a_bare_nan(made):
    for kind in KINDS:
        history, tables, _ = made(kind)
        text = markdown(history, tables, "x.html")
        assert text.startswith("### ") and "nan" not in text and "None" not in text


def test_names_cannot_bring_markup(made):
    history, tables, _ = made("healthy")
    hostile = dataclasses.replace(history, spec={**history.spec, "question": "a\n# b <img src=x> [x](http://x) `|"})
    text = markdown(hostile, tables, "x.html")
    assert text.splitlines()[0] == "### capacity_sweep: a # b \\<img src=x\\> \\[x\\](http://x) \\`\\|"
    assert plain("*a*") == "\\*a\\*"
