"""The first section: what limits the model, how sure that is, what would change it, what to do next."""

import math
from typing import Any

import pandas as pd

from lab.analysis import coverage
from lab.analysis.checks import OVERFITTING, UNDERFITTING
from lab.report.context import Page
from lab.report.sections_more import other_losses
from lab.report.text import interval, is_number, knob_value, num, percent, sentence
from lab.report.view import Section

MOST_TIMES = 30  # as many training sets: beyond, that is no advice


def limits(page: Page) -> tuple[Section, dict[str, Any]]:
    """Return the first section and what its template shows."""
    diagnosis, focus = page.tables.diagnosis, page.tables.focus
    context: dict[str, Any] = {"tiles": [], "share": [], "share_label": "", "tile_caption": ""}
    if focus is not None and is_number(focus.get("risk")):
        names = ["risk", "bias_sq", "variance", *(["noise"] if page.known_noise else [])]
        context["tiles"] = [_tile(page, focus, name) for name in names]
        context["share"], context["share_label"] = _share(page, focus)
        who = "the confirmed configuration" if focus["phase"] == "confirm" else "the best trial, not yet confirmed"
        context["tile_caption"] = (
            f"Measured on {num(page.history.data.get('n_test'))} test images with "
            f"n = {num(focus.get('n_replicas'))} replicas of {who}: "
            f"{_configuration(page, focus)}. Brackets: {page.level} % intervals. "
            "The Brier risk is 0 for a perfect model and 2 for one that is certain and always wrong."
        )
    context["actions"] = [{"text": sentence(a.text), "command": a.command} for a in diagnosis.actions[:3]]
    context["sure"] = _how_sure(page)
    context["evidence"] = [sentence(line) for line in diagnosis.evidence]
    answer = diagnosis.verdict.replace("bias² + noise", "bias²\u00a0+\u00a0noise")  # one word, not to be broken
    blocks = tuple(other_losses(page))
    return Section("verdict", "What limits this model?", answer, blocks, partial="verdict", short="Verdict"), context


def _configuration(page: Page, focus: pd.Series) -> str:
    """Return what tells the run apart from others of its study: its variant, or the knobs that the study varies."""
    if isinstance(focus.get("variant"), str):
        return f"the variant “{str(focus['variant']).replace('_', ' ')}”"
    return ", ".join(f"{k} {knob_value(focus[k])}" for k in page.history.spec.get("space", {}) if k in focus)


def _tile(page: Page, focus: pd.Series, name: str) -> dict[str, str]:
    value = focus.get(name)
    band = interval(focus.get(f"{name}_lo"), focus.get(f"{name}_hi"), value) if name != "noise" else "known exactly"
    flag = "Estimate below 0: too small to tell from 0" if value is not None and value < 0 else ""
    note = f"wrong on {_errors(focus)} of the test images" if name == "risk" and is_number(focus.get("error")) else ""
    if band and is_number(focus.get("n_resamples")) and is_number(focus.get("n_inits")):
        flag = flag or coverage.remark(name, int(focus["n_resamples"]), int(focus["n_inits"]))
    return {"id": name, "name": page.part(name), "value": num(value), "band": band, "flag": flag, "note": note}


def _errors(focus: pd.Series) -> str:
    """Return the error rate with its interval, in per cent."""
    ends = [focus.get(f"error{end}") for end in ("_lo", "_hi")]
    band = f" [{', '.join(percent(end, 1) for end in ends)}]" if all(map(is_number, ends)) else ""
    return f"{percent(focus['error'], 1)}{band}"


def _share(page: Page, focus: pd.Series) -> tuple[list[dict[str, str]], str]:
    """Return how the risk is made up as pieces of a bar. Negative estimates take no room in it."""
    names = [*(["noise"] if page.known_noise else []), "bias_sq", "variance"]
    sizes = {n: max(float(focus[n]), 0.0) if is_number(focus.get(n)) else 0.0 for n in names}
    total = sum(sizes.values())
    if total <= 0:
        return [], ""
    pieces, at = [], 0.0
    for name, size in sizes.items():
        width = 100 * size / total
        pieces.append(
            {"id": name, "x": f"{at:.2f}", "width": f"{width:.2f}", "text": f"{page.part(name)} {width:.0f} %"}
        )
        at += width
    return pieces, "Shares of the risk: " + ", ".join(p["text"] for p in pieces)


def _how_sure(page: Page) -> list[str]:
    d = page.tables.diagnosis
    if not is_number(d.share):
        return ["Nothing was measured, so nothing is sure. A verdict needs trials whose replicas finish training."]
    band = f" [{percent(d.share_lo)}, {percent(d.share_hi)}]" if is_number(d.share_lo) and is_number(d.share_hi) else ""
    told = [
        f"{sentence(page.bias)[:-1]} makes up {percent(d.share)}{band} of the sum of {page.bias} and variance. Wholly "
        f"above {percent(UNDERFITTING)} means underfitting, wholly below {percent(OVERFITTING)} overfitting, and else "
        "the verdict is balanced or unclear."
    ]
    return [*told, _what_would_change_it(page)] if band else told


def _what_would_change_it(page: Page) -> str:
    """Return which line the interval would have to cross, and how many training sets might settle it."""
    d = page.tables.diagnosis
    if d.kind in ("underfitting", "overfitting"):
        end, line, word = (
            (d.share_lo, UNDERFITTING, "fell below")
            if d.kind == "underfitting"
            else (d.share_hi, OVERFITTING, "rose above")
        )
        which_end = "lower" if d.kind == "underfitting" else "upper"
        return f"What would change it: if the {which_end} end, now {percent(end)}, {word} {percent(line)}."
    if d.kind == "balanced":
        ends = f"{percent(d.share_lo)} and {percent(d.share_hi)}"
        limits = f"{percent(OVERFITTING)} to {percent(UNDERFITTING)}"
        return f"What would change it: if one of the ends, now {ends}, left the range from {limits}."
    if d.kind == "not enough replicas":
        few = "test images" if "test images" in d.verdict else "replicas"
        return f"What would settle it: narrower intervals, that is, more {few}."
    if d.kind != "unclear":
        return "What would change it: another data set or other fixed knobs; see the caveats."
    lines = [line for line in (OVERFITTING, UNDERFITTING) if d.share_lo < line < d.share_hi]
    line = min(lines, key=lambda at: abs(at - d.share)) if lines else UNDERFITTING
    half = d.share - d.share_lo if line < d.share else d.share_hi - d.share
    margin = abs(d.share - line)
    factor = (half / margin) ** 2 if margin > 0 else math.inf
    if not 1 < factor <= MOST_TIMES:
        return f"What would settle it: the share lies so near {percent(line)} that more replicas alone are unlikely to."
    n, most = math.ceil(factor * page.n_judged), _most_sets(page)
    told = (
        f"What would settle it: a narrower interval, clear of {percent(line)}. Its width shrinks with the square root "
        f"of the number of training sets, so about {n} instead of {page.n_judged} would do if the share stays"
    )
    return f"{told}." if n <= most else f"{told}; the pool has {most:g} disjoint ones of this size."


def _most_sets(page: Page) -> float:
    """Return how many disjoint training sets there are; inf for other schemes, which draw as many as one likes."""
    if page.history.spec.get("replication", {}).get("scheme") != "disjoint":
        return math.inf
    focus, pool = page.tables.focus, page.history.data.get("n_pool")
    return math.inf if focus is None or not pool else pool // focus["n_train"]
