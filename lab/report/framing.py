"""What stands around the evidence: header, verdict, checks, table of trials, method, words, how to reproduce."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pandas as pd

from lab import pretraining
from lab.commands import note
from lab.data.resampling import describe
from lab.report.context import Page
from lab.report.protocol import protocol
from lab.report.text import (
    MISSING,
    count,
    duration,
    glossary,
    is_number,
    knob_value,
    moment,
    num,
    sentence,
)
from lab.report.view import Block, Section
from lab.spec import Replication

VERSIONS = ("lab", "python", "torch", "numpy", "platform", "device", "n_threads")
# status of a check (lab.analysis.diagnosis.Check) → class, mark; the worst first
STATUSES = {
    "fail": ("fail", "✕ fail"),
    "attention": ("warn", "! attention"),
    "not measured": ("unknown", "? not measured"),
    "ok": ("pass", "✓ pass"),
    "info": ("unknown", "i for information"),
}


def facts(page: Page) -> list[tuple[str, str]]:
    """Return the header: what was studied, on what, how much, and when."""
    history, trials, explore = page.history, page.history.trials, page.tables.explore
    data, environment = history.data, history.environment
    outcomes = explore["outcome"].value_counts() if len(explore) else pd.Series(dtype=int)
    diverged = int(outcomes.get("diverged", 0))
    pruned = int(outcomes.get("pruned", 0))
    failed = len(explore) - diverged - pruned - int(outcomes.get("finished", 0))
    unlike = f"{diverged} diverged" + (f" · {pruned} stopped early" if pruned else "") + f" · {failed} failed"
    trained = _total(trials, "n_replicas") + _total(trials, "n_diverged")
    shape = "×".join(str(s) for s in data.get("image_shape", []))
    wall = trials["finished"].max() - trials["started"].min() if len(trials) else None
    return [
        ("Data", f"{data.get('name', MISSING)} ({len(data.get('class_names', []))} classes, images {shape})"),
        ("Examples", f"pool {num(data.get('n_pool'))}, validation {num(data.get('n_validation'))}, "
                     f"test {num(data.get('n_test'))}"),
        ("Trials", f"{len(explore)} of {num(history.spec.get('n_trials'))} · {unlike}"),
        ("Replicas trained", f"{num(trained)} ({page.replicas} a trial)"),
        ("Device", f"{environment.get('device', MISSING)}, torch {environment.get('torch', MISSING)}"),
        ("Time", duration(wall)),
        ("Started", moment(trials["started"].min() if len(trials) else None)),
        ("Commit", str(environment.get("git_commit") or "unknown")[:12]),
        ("Data digest", str(data.get("digest", MISSING))[:12]),
    ]  # fmt: skip


def _total(trials: pd.DataFrame, column: str) -> float:
    return float(trials[column].sum()) if column in trials else 0.0


def state(page: Page) -> str:
    """Return what is still missing from a study that is not finished; empty for a finished one."""
    history, explore = page.history, page.tables.explore
    planned, missing = int(history.spec.get("n_trials", 0)), []
    if len(explore) < planned:
        missing.append(f"{len(explore)} of {planned} trials are done")
    if history.phase("confirm").empty:
        missing.append("the best configuration has not been confirmed")
    if history.phase("learning_curve").empty and page.plans_sizes:
        missing.append("there is no learning curve yet")
    return f"This is a partial report: {'; '.join(missing)}. To finish: {page.command('run')}" if missing else ""


def checks(page: Page) -> tuple[Section, dict[str, Any]]:
    """Return the section on trust and the rows of its table, the worst first."""
    table = page.tables.checks
    order = list(STATUSES)
    rows: list[dict[str, str]] = []
    for row in sorted(table.to_dict("records"), key=lambda r: order.index(r["status"]) if r["status"] in order else 2):
        css, mark = STATUSES.get(str(row["status"]), ("unknown", str(row["status"])))
        texts = {k: _cell(row[k]) for k in ("name", "threshold", "measured", "note", "where", "command")}
        texts["threshold"] = texts["threshold"] or MISSING
        rows.append({"status": css, "mark": mark, **texts})
    counts = table["status"].value_counts()
    decided = [s for s in order if s != "info" and counts.get(s, 0)]
    if not decided:
        answer = "Nothing could be checked yet."
    else:
        lead = {"fail": "No", "attention": "With care", "not measured": "As far as measured", "ok": "Yes"}[decided[0]]
        one = {"fail": "fails", "attention": "asks for attention", "ok": "passes"}
        words = {
            "fail": "fail",
            "attention": "ask for attention",
            "not measured": "could not be measured",
            "ok": "pass",
        }
        total = sum(int(counts[s]) for s in decided)
        told = ", ".join(
            f"{counts[s]} {one.get(s, words[s]) if counts[s] == 1 else words[s]}" for s in reversed(decided)
        )
        first = f"; look first at: {rows[0]['name']}" if decided[0] in ("fail", "attention") else ""
        answer = f"{lead}: of {count(total, 'check')} {told}{first}."
    section = Section("trust", "Can this study be trusted?", answer, partial="checks" if rows else "", short="Trust")
    return section, {"checks": rows}


def _cell(value: Any) -> str:
    return num(value) if is_number(value) else MISSING if value is None or value != value else str(value)


def _first_stage(spec: Mapping[str, Any]) -> list[str]:
    """Return what was trained before, on other data, in a study with pre-training."""
    given = spec.get("pretraining")
    if not given:
        return []
    data = pretraining.name_of(spec)
    knobs = ", ".join(f"{k} = {knob_value(v)}" for k, v in given["fixed"].items()) or "knobs as by default"
    return [
        f"Pre-training (weights = {pretraining.NAME}): {count(given['n_seeds'], 'network')} of each architecture, from "
        f"a seed each, learned {data} first ({knobs}). Seed i starts from network i modulo {given['n_seeds']}; a "
        "confirmation has networks of its own, which the search never saw."
    ]


def method(page: Page) -> Section:
    """Return how it was measured, what the numbers mean, and what they cannot show."""
    spec, data = page.history.spec, page.history.data
    replication, trials = spec.get("replication", {}), page.history.trials
    n_train = _n_train(page)
    findings = [sentence(f"the data: {finding}") for finding in data.get("findings", [])]
    more = " and more" if replication.get("max_replicas") else ""
    answer = (
        f"Every configuration was trained {page.times} times, on {page.plan}{more}, and "
        f"all trainings were compared on the same {num(data.get('n_test'))} test images."
    )
    n_pool = int(data.get("n_pool") or n_train)
    sets = describe(Replication(**replication), n_train=n_train, n_pool=n_pool)
    scheme = str(replication.get("scheme"))
    picture = protocol(
        n_resamples=page.n_resamples, n_inits=page.n_inits, n_replicas=page.n_replicas, n_train=n_train, scheme=scheme,
        n_pool="a generator" if scheme == "fresh" else f"{num(data.get('n_pool'))} images",
        n_validation=num(data.get("n_validation")), n_test=num(data.get("n_test")),
    )  # fmt: skip
    lines = [
        *findings,
        f"Training sets: {sets}",
        *_first_stage(spec),
        "Replica: one training, on resample d and from seed i; all combinations are trained (a crossed design), with "
        "the same resamples and seeds in every trial, so that trials compare in pairs.",
        "Parts: the unbiased two-way random-effects estimator for squared error (Brier, summed over the classes): "
        "bias² = mean loss − variance. Being unbiased, estimates of small parts can be negative; they are shown as "
        "they are, and only stacked areas are cut off at 0.",
        f"Intervals: {page.level} %, by leaving out one resample and one seed at a time, with the share of the finite "
        "test set. They do not cover the choice of data set or of the fixed knobs.",
        f"Selection: {_objective(spec)} on the validation set; the test set took no part in it. The chosen "
        "configuration is measured again with resamples and seeds that the search never saw.",
    ]
    if not page.known_noise:
        lines.append(
            "Noise: unknown, since each image has one label. It is contained in what is called “bias² + noise”."
        )
    varied = set(spec.get("space", {}))
    fixed = {k: v for k, v in spec.get("fixed", {}).items() if k not in varied}
    if fixed:
        held = ", ".join(f"{k} = {knob_value(v)}" for k, v in fixed.items())
        lines.append(f"Caveat: what was held fixed ({held}) may change the answer.")
    nuisance = [k for k, d in spec.get("space", {}).items() if d.get("role") == "nuisance"]
    if nuisance:
        lines.append(f"Optimised over for fairness, not studied: {', '.join(nuisance)}.")
    gone, hit = _total(trials, "n_diverged"), int((trials["n_diverged"] > 0).sum()) if "n_diverged" in trials else 0
    lines.append(
        f"Diverged replicas: {num(gone)}, in {count(hit, 'run')}. They are left out of the parts, and count with the "
        "worst risk (2) when trials are ranked."
        if gone else "Diverged replicas: none."
    )  # fmt: skip
    pruned = trials[trials["outcome"] == "pruned"] if len(trials) else trials
    if len(pruned):
        lines.append(
            f"Stopped early: {count(len(pruned), 'trial')}, each significantly worse than the best before its round on "
            f"the first training sets that they share (Wilcoxon signed-rank test on validation data, level "
            f"{num(spec.get('prune'))}). They are in no figure or table of parts."
        )
    odd = trials[~trials["outcome"].isin(["finished", "diverged", "pruned"])] if len(trials) else trials
    if len(odd):
        reasons = sorted({str(r) for r in odd.get("reason", pd.Series(dtype=str)).dropna()})[:3]
        lines.append(f"Not measured: {count(len(odd), 'run')}{': ' + '; '.join(reasons) if reasons else ''}.")
    return Section(
        "method",
        "How was this measured, and what can it not show?",
        answer,
        (Block("markup", picture), Block("list", lines)),
        short="Method and caveats",
    )


def _n_train(page: Page) -> int:
    explore = page.tables.explore
    if "n_train" in explore and len(explore):
        return int(explore["n_train"].max())
    return int(page.history.spec.get("fixed", {}).get("n_train", 150))


def _objective(spec: dict[str, Any]) -> str:
    names = {"val_risk": "lowest Brier risk", "val_error": "lowest error"}
    objective = spec.get("objective")
    return names.get(objective, "bias² and variance") if isinstance(objective, str) else "bias² and variance"


def words(page: Page) -> tuple[Section, dict[str, Any]]:
    """Return the definitions, all in one place."""
    answer = (
        "Risk = noise + bias² + variance: what no model can remove, what the average training gets wrong, and what "
        "varies from training to training."
    )
    section = Section("words", "What do the words mean?", answer, partial="words", short="Words")
    return section, {"words": glossary(page.known_noise, page.level)}


def reproduce(page: Page, names: list[str]) -> tuple[Section, dict[str, Any]]:
    """Return the commands, versions and seeds, and the links to the files `names` beside the page."""
    spec, environment = page.history.spec, page.history.environment
    run = page.command("run")
    answer = f"One command repeats it, with seed {knob_value(spec.get('seed', 0))} and the versions below."
    text = json.dumps(spec, indent=1, ensure_ascii=False)
    context = {
        "commands": [
            ("; ".join(filter(None, ["Run the study (one that is finished only rebuilds this page)", note(run)])), run),
            ("Rebuild this page from the run history", page.command("report")),
            ("Look at every run and trial in a browser", page.command("ui")),
        ],
        "spec_href": "data:application/json;charset=utf-8," + quote(text, safe=""),
        "file_links": [(name, page.href(name)) for name in names],
        "versions": [
            *[(k, str(environment[k])) for k in VERSIONS if k in environment],
            ("git commit", str(environment.get("git_commit") or "unknown")),
            ("study seed", knob_value(spec.get("seed", 0))),
            ("data digest (sha256)", str(page.history.data.get("digest", MISSING))),
        ],
    }  # fmt: skip
    return Section("reproduce", "How can this be reproduced?", answer, partial="reproduce", short="Reproduce"), context
