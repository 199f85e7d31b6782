"""What holds for a study after any fault: checked by one function, in ways that share little with the lab's own.

`check` looks between two runs; `check_finished` after a run that came to its end. `measured` is all of a study that a
fault may not change.
"""

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from lab import storage, verify
from lab.storage import Home

CLOCKS = ("seconds", "replicas_per_second")
OUTCOME = "SELECT value_json FROM trial_user_attributes WHERE trial_id = ? AND key = 'outcome'"


def rows(path, query, *values):
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(path)) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        assert "no such table" in str(error), error  # made, and killed before it was filled
        return []


def trials(home: Home, study: str):
    """Return number → (state, values, params, outcome) of the explore trials, straight from Optuna's tables."""
    query = """SELECT t.trial_id, t.number, t.state FROM trials t JOIN studies s USING (study_id)
               WHERE s.study_name = ? ORDER BY t.number"""
    found = {}
    for trial_id, number, state in rows(home.optuna_db, query, study):
        values = rows(home.optuna_db, "SELECT value FROM trial_values WHERE trial_id = ? ORDER BY objective", trial_id)
        params = rows(home.optuna_db, "SELECT param_name, param_value FROM trial_params WHERE trial_id = ?", trial_id)
        outcome = rows(home.optuna_db, OUTCOME, trial_id)
        found[number] = (state, [v for (v,) in values], dict(params), json.loads(outcome[0][0]) if outcome else None)
    return found


def runs(home: Home, study: str):
    """Return (key, run id, status) of the runs that are not deleted, straight from MLflow's tables."""
    query = """SELECT t.value, r.run_uuid, r.status FROM runs r JOIN experiments e USING (experiment_id)
               JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'key'
               WHERE e.name = ? AND r.lifecycle_stage = 'active'"""
    return rows(home.mlflow_db, query, study)


def complete(home: Home, study: str):
    """Return key → run id of the complete runs; no key has two."""
    found = [(key, run) for key, run, status in runs(home, study) if status in ("FINISHED", "FAILED")]
    assert len(dict(found)) == len(found), "a trial is counted twice"
    return dict(found)


def measured(home: Home, study: str):
    """Return all that was measured, without times: trials of Optuna, and digests of each run's files."""
    digests = {}
    for key, run in sorted(complete(home, study).items()):
        for path in sorted((home.artifacts / study / run / "artifacts").iterdir()):
            if path.name not in ("environment.json", "manifest.json"):
                content = path.read_bytes()
                if path.name == "metrics.json":
                    metrics = json.loads(content)
                    content = json.dumps(
                        [metrics["epochs"], {k: v for k, v in metrics["final"].items() if k not in CLOCKS}]
                    )
                    content = content.encode()
                digests[key, path.name] = hashlib.sha256(content).hexdigest()
    return trials(home, study), digests


def check(home: Home, study: str, n_planned: int) -> None:
    """Check what holds at any time between two runs."""
    found = trials(home, study)
    assert sorted(found) == list(range(len(found))), "a number is missing"
    waiting = [n for n, (state, *_) in found.items() if state in ("RUNNING", "WAITING")]
    done = {n: outcome for n, (state, _, _, outcome) in found.items() if n not in waiting}
    assert all(outcome in ("finished", "diverged", "pruned", "infeasible", "failed") for outcome in done.values()), done
    assert len(done) + len(waiting) + (max(n_planned, len(found)) - len(found)) == max(n_planned, len(found))
    spooled = {path.name for path in home.spool_of(study).glob("*-*")} if home.spool_of(study).is_dir() else set()
    published = set(complete(home, study))
    for number in done:
        key = f"explore-{number:04d}"
        assert key in published or key in spooled, f"{key} is lost"
    if home.optuna_db.exists():
        assert not storage.in_use(home, study), "the lock is still held"
    if found and home.mlflow_db.exists() and runs(home, study):
        damage = verify.verify(study, home=home).damage
        assert damage == [], damage


def check_finished(home: Home, study: str, n_planned: int) -> None:
    """Check what holds after a run that came to its end: nothing waits, nothing is left over."""
    check(home, study, n_planned)
    found = trials(home, study)
    assert len(found) == n_planned, f"{len(found)} trials of {n_planned}"
    assert not [n for n, (state, *_) in found.items() if state == "RUNNING"], "a trial is left RUNNING"
    assert not [run for run in runs(home, study) if run[2] not in ("FINISHED", "FAILED")], "a run is left RUNNING"
    left = [path for path in home.root.rglob("*") if path.name.endswith((".tmp", ".partial"))]
    left += [path for folder in (home.spool_of(study), home.mlruns / "checkpoints") for path in folder.glob("*/*")]
    assert left == [], "temporary files are left"


def children(of: int | None = None) -> set[int]:
    """Return the processes below one (this one), zombies left out."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found, new = set(), {of or os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in new} - found:
        found |= new
    return found
