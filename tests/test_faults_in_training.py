"""Faults in a study that really trains: it goes on from its checkpoints, with the bits of an undisturbed one."""

import dataclasses
import io
import json
import signal

import numpy as np
import pytest

from lab import spool, trial
from lab.storage import Home
from lab.task import Task
from lab.workers.worker import import_heavy
from tests import faults, invariants

REAL = dataclasses.replace(faults.REAL, n_trials=8)
POINTS = [
    "epoch=kill", "checkpoint.write=kill", "checkpoint.rename=kill", "epoch:2=kill", "checkpoint.write:3=kill",
    "checkpoint.rename:2=kill", "spool.write:3=kill", "spool.rename=kill", "spool.renamed=kill", "publish.metrics=kill",
    "publish.artifact:2=kill", "tell.attr:4=kill", "told=kill", "submit=kill",
    "epoch=enospc", "spool.rename=enospc", "publish.artifact=enospc", "spool.write=raise", "tell=raise",
]  # fmt: skip
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


@pytest.mark.slow
def test_a_study_that_really_trains_disturbed_twenty_times_has_the_bits_of_an_undisturbed_one(monkeypatch):
    monkeypatch.setenv("LAB_CHECKPOINT_SECONDS", "0")
    import_heavy()  # once, and not in every fork
    n_before = faults.INJECTED["real"]
    with faults.memory() as folder:
        home = Home(folder / "disturbed")
        home.root.mkdir()
        assert faults.forked(lambda: faults.run(home, dataclasses.replace(REAL, n_trials=1))) == 0
        undisturbed = faults.copy(home, folder / "undisturbed")
        for point in POINTS:
            code = faults.injected(home, point, REAL)
            assert code in faults.CODES[point.split("=")[1]], f"{point} ended with exit code {code}"
            invariants.check(home, faults.NAME, REAL.n_trials)
        rng = np.random.default_rng(5)
        for number in CODES:  # at random times, until one comes too late
            code = faults.signalled(home, number, float(rng.uniform(0.0, 0.5)), REAL)
            assert code in (0, CODES[number])
            invariants.check(home, faults.NAME, REAL.n_trials)
        for of in (home, undisturbed):
            assert faults.forked(lambda of=of: faults.run(of, REAL)) == 0
            invariants.check_finished(of, faults.NAME, REAL.n_trials)
        assert faults.INJECTED["real"] - n_before >= 20
        assert invariants.measured(home, faults.NAME) == invariants.measured(undisturbed, faults.NAME)


def evaluated(folder):
    """Return an outcome of really trained replicas, and their predictions (R, N, C)."""
    # without normalisation: on a CPU it rounds by a place in the pack, and those behind a replica that leaves move up
    chosen = REAL.config({name: domain.at(0.3) for name, domain in REAL.space.items()})
    config = dataclasses.asdict(chosen) | {"norm": "none"}
    spec = json.loads(json.dumps(REAL.to_dict()))
    task = Task(study=faults.NAME, spec=spec, phase="explore", number=0, config=config)
    outcome = spool.read_outcome(trial.evaluate(task, Home(folder)))
    with np.load(io.BytesIO(outcome.contents["predictions.npz"]), allow_pickle=False) as stored:
        predictions_DINC = stored["log_probabilities_DINC"]
    return outcome, predictions_DINC.reshape(-1, *predictions_DINC.shape[2:])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_weight_of_one_replica_that_is_not_finite_leaves_the_others_their_bits_and_is_counted(
    tmp_path, monkeypatch, poison
):
    from lab.training.pack import Pack

    healthy, healthy_RNC = evaluated(tmp_path / "healthy")
    start = Pack.start

    def poisoned_start(*args, **options):
        pack = start(*args, **options)
        pack.theta_RP[2, 5] = poison
        return pack

    monkeypatch.setattr(Pack, "start", poisoned_start)
    poisoned, poisoned_RNC = evaluated(tmp_path / "poisoned")
    assert (healthy.status, poisoned.status) == ("finished", "diverged")
    final = poisoned.json("metrics.json")["final"]
    assert (final["n_diverged"], final["n_replicas"]) == (1, 4)
    others = [0, 1, 3]
    assert poisoned_RNC[others].tobytes() == healthy_RNC[others].tobytes()
    assert np.isnan(poisoned_RNC[2]).all()
    assert poisoned.json("decomposition.json")["final"]["n_replicas"] == 3
