"""A report in a few lines of Markdown, for a pull request or a chat."""

from lab.history import History
from lab.report.context import Page, which
from lab.report.tables import Tables
from lab.report.text import interval, is_number, num, sentence

PARTS = ("risk", "noise", "bias_sq", "variance", "variance_resample", "variance_init", "variance_interaction")
WORST = ("fail", "attention")


def markdown(history: History, tables: Tables, page_path: str) -> str:
    """Return verdict, parts with intervals, advice with commands, and the checks that did not pass.

    Args:
        history: The run history, and `tables` made of it.
        tables: See `history`.
        page_path: Where the whole report lies.
    """
    page, diagnosis = Page(history, tables), tables.diagnosis
    lines = [f"### {plain(history.study)}: {plain(str(history.spec.get('question', '')))}", "",
             f"**{plain(diagnosis.verdict)}.**", ""]  # fmt: skip
    if tables.focus is not None:
        lines += [f"| part | estimate | {page.level} % interval |", "|---|---|---|"]
        for part in PARTS:
            value, low, high = (tables.focus.get(f"{part}{end}") for end in ("", "_lo", "_hi"))
            if num(value) != num(None):
                lines.append(f"| {page.part(part)} | {num(value)} | {interval(low, high, value)} |")
        error, low, high = (tables.focus.get(f"error{end}") for end in ("", "_lo", "_hi"))
        lines += [f"| error rate | {num(error)} | {interval(low, high, error)} |"] if is_number(error) else []
        n = num(tables.focus.get("n_replicas"))
        lines += ["", f"{which(tables.focus)}, n = {n} replicas, {num(history.data.get('n_test'))} test images of "
                      f"{plain(str(history.data.get('name')))}, {len(tables.explore)} trials."]  # fmt: skip
    if diagnosis.actions:
        lines += ["", "What to do next:", ""]
        for place, action in enumerate(diagnosis.actions[:3], 1):
            ends = f" `{action.command}`" if action.command else ""
            lines.append(f"{place}. {plain(sentence(action.text))}{ends}")
    bad = tables.checks[tables.checks["status"].isin(WORST)] if len(tables.checks) else tables.checks
    told = "; ".join(f"{r['name']} ({r['measured']}, wanted: {r['threshold']})" for r in bad.to_dict("records"))
    lines += ["", f"Checks: {plain(told)}." if told else "Checks: none fails or asks for attention.", ""]
    commit = str(history.environment.get("git_commit") or "unknown")[:12]
    lines.append(f"Report: {plain(page_path)} · commit {plain(commit)}")
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Return a text that is one line and no markup: no link, image, HTML or table cell can begin in it."""
    for mark in "\\`*[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
