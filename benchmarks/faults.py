"""Does a study survive anything? Random faults at random times, and after each of them what may never happen.

    python -m benchmarks.faults                   # 300 faults, some minutes on a core
    python -m benchmarks.faults --n 2000          # the long run
    python -m benchmarks.faults --seed 7 --add    # other faults, added to those on record, if the code is the same

Training is faked, everything else is the lab's own: databases, spool, checkpoints, locks. A study is disturbed until a
run of it is not, then compared with an undisturbed one, and the next study begins. Each run is a fork of this process,
which has imported everything and read the databases' migrations. What is found is printed with the faults that led to
it, and the exit code is 1.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork waits for ever for threads that its parent had

import numpy as np

from benchmarks import records
from lab import failpoints
from lab.storage import Home
from tests import faults, invariants

N_TRIALS = 4
IN_TRAINING = (
    "epoch",
    "checkpoint.write",
    "checkpoint.rename",
)  # an error there is the trial's, and stays in its result
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
ACTIONS = ("kill", "raise", "enospc")
DAMAGES = ("flipped", "truncated", "removed")
ABOUT = (
    f"Studies of {N_TRIALS} trials with faked training, in one process each, disturbed until a run is not. `kill`, "
    "`raise` (an error that nobody foresaw) and `enospc` (a full disk) happen at a random passage of a random "
    "failpoint; signals come at random times; a file of the spool or a checkpoint is damaged between two runs. "
    "After each fault: no trial is lost or counted twice, what lies in MLflow, Optuna and on the disk agrees and "
    "is as it was written, the exit code is the documented one. At the end of each study: nothing is left RUNNING "
    "or temporary, and all that was measured equals an undisturbed study bit for bit."
)


@dataclass
class Study:
    """A study under way, and what was done to it."""

    home: Home
    done: list[str] = field(default_factory=list)


@dataclass
class Campaign:
    """What was injected into how many studies, and what was found."""

    rng: np.random.Generator
    folder: Path
    begun: Home
    undisturbed: Any
    injected: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    n_studies: int = 0

    def begin(self) -> Study:
        """Begin another study."""
        self.n_studies += 1
        return Study(faults.copy(self.begun, self.folder / f"study-{self.n_studies}"))

    def disturb(self, study: Study) -> bool:
        """Let one fault happen to the study, and look at it; return whether it is at its end."""
        kind, what, codes, run = self._draw(study.home)
        study.done.append(what)
        try:
            code = run()
            fired = code != 0
            self.injected[kind] += fired
            assert code in (0, *codes), f"exit code {code}, expected one of {(0, *codes)}"
            if fired:
                invariants.check(study.home, faults.NAME, N_TRIALS)
                self._damage(study)
            else:
                self._compare(study)
        except AssertionError as error:
            self.violations[kind] += 1
            print(f"VIOLATION after {', '.join(study.done)}:\n{error}", file=sys.stderr, flush=True)
            return True
        return not fired

    def _draw(self, home: Home) -> tuple[str, str, tuple[int, ...], Any]:
        """Draw a fault; return its kind, a description, the exit codes that it may lead to, and the run."""
        trials = faults.small(N_TRIALS)
        if self.rng.random() < 0.3:
            number = signal.Signals(int(self.rng.choice(list(SIGNALS))))
            after = float(self.rng.exponential(0.3))
            what = f"{number.name} after {after:.3f} s"
            return number.name, what, (SIGNALS[number],), lambda: faults.signalled(home, number, after, trials)
        action = str(self.rng.choice(ACTIONS))
        places = [
            name for name in failpoints.NAMES
            if not name.startswith("report") and (action != "raise" or name not in IN_TRAINING)
        ]  # fmt: skip
        place, k = str(self.rng.choice([failpoints.EVERY, *places])), int(self.rng.geometric(0.5))
        if place == failpoints.EVERY:
            k = 1 + int(self.rng.integers(120))  # of all places: anywhere in two trials
            action = "kill" if action == "raise" else action
        what = f"{place}:{k}={action}"
        return action, what, faults.CODES[action], lambda: faults.injected(home, what, trials)

    def _damage(self, study: Study) -> None:
        """Now and then damage a file that waits for the next run, which has to see it and to come to its end."""
        home = study.home
        files = [*home.spool_of(faults.NAME).glob("*-*/*"), *home.checkpoints_of(faults.NAME).glob("*/*")]
        if not files or self.rng.random() > 0.5:
            return
        path, damage = files[int(self.rng.integers(len(files)))], str(self.rng.choice(DAMAGES))
        content = bytearray(path.read_bytes())
        at = int(self.rng.integers(len(content)))
        if damage == "flipped":
            content[at] ^= 1 << int(self.rng.integers(8))
        if damage == "removed":
            path.unlink()
        else:
            path.write_bytes(content if damage == "flipped" else content[:at])
        study.done.append(f"{path.relative_to(home.root)} {damage} at byte {at}")
        self.injected["file damaged"] += 1
        code = faults.forked(lambda: faults.run(home, faults.small(N_TRIALS)))
        assert code == 0, f"after the damage, exit code {code}"

    def _compare(self, study: Study) -> None:
        invariants.check_finished(study.home, faults.NAME, N_TRIALS)
        measured = invariants.measured(study.home, faults.NAME)
        assert measured == self.undisturbed, "other numbers than those of an undisturbed study"


@contextmanager
def _campaign(seed: int) -> Iterator[Campaign]:
    before = os.environ.get("LAB_CHECKPOINT_SECONDS")
    os.environ["LAB_CHECKPOINT_SECONDS"] = "0"
    try:
        with faults.memory() as folder, faults.fake_trainer():
            begun = Home(folder / "begun")
            begun.root.mkdir()
            faults.run(begun, faults.small(1))
            whole = faults.copy(begun, folder / "undisturbed")
            faults.run(whole, faults.small(N_TRIALS))
            yield Campaign(np.random.default_rng(seed), folder, begun, invariants.measured(whole, faults.NAME))
    finally:
        del os.environ["LAB_CHECKPOINT_SECONDS"]
        if before is not None:
            os.environ["LAB_CHECKPOINT_SECONDS"] = before


def _code() -> str:
    """Return a digest of the lab's own code: faults add up only if they were injected into the same."""
    root = Path(failpoints.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)} ".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _earlier(path: Path, seed: int) -> dict[str, Any]:
    """Return a record that the faults of a seed can be added to."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if _code() not in record["machine"]["lab"]:
        raise SystemExit(f"{path} is of another edition of the lab: begin again without --add")
    if seed in record["machine"]["seeds"]:
        raise SystemExit(f"{path} has the faults of seed {seed} already: choose another --seed")
    return record


def main(argv: list[str] | None = None, folder: Path = records.FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="faults to inject, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="to the record of earlier runs, instead of replacing it")
    args = parser.parse_args(argv)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what it starts with "&"
        signal.signal(signal.SIGINT, signal.default_int_handler)
    earlier = _earlier(folder / "faults.json", args.seed) if args.add else None
    facts, started = records.machine(lab=[_code()]), time.monotonic()
    with _campaign(args.seed) as campaign:
        study = campaign.begin()
        while campaign.injected.total() < args.n or study.done:  # the last one goes to its end, too
            if campaign.disturb(study):
                shutil.rmtree(study.home.root)
                study = campaign.begin()
    found = bool(campaign.violations)
    before = {"seeds": [], "n_studies": 0, "minutes": 0.0}
    about = ABOUT
    if earlier is not None:
        before, about = earlier["machine"], earlier["about"]
        facts["lab"] = before["lab"]
        for row in earlier["tables"]["Faults"][:-1]:
            campaign.injected[row["fault"]] += row["injected"]
            campaign.violations[row["fault"]] += row["violations"]
    rows = [
        {"fault": kind, "injected": n, "violations": campaign.violations[kind]}
        for kind, n in sorted(campaign.injected.items())
    ]
    rows.append({"fault": "all", "injected": campaign.injected.total(), "violations": campaign.violations.total()})
    facts |= {"seeds": [*before["seeds"], args.seed], "n_studies": before["n_studies"] + campaign.n_studies - 1}
    facts |= {"minutes": round(before["minutes"] + (time.monotonic() - started) / 60, 1)}
    records.write("faults", about, {"Faults": rows}, facts, folder)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
