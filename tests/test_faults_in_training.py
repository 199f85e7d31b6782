"""Kills of a study that really trains: it goes on from its checkpoints, with the bits of an undisturbed one."""

import dataclasses

import pytest

from lab.storage import Home
from tests import faults, invariants


@pytest.mark.slow
def test_kills_of_a_study_that_really_trains_leave_its_bits(monkeypatch):
    monkeypatch.setenv("LAB_CHECKPOINT_SECONDS", "0")
    with faults.memory() as folder:
        begun = Home(folder / "begun")
        begun.root.mkdir()
        assert faults.forked(lambda: faults.run(begun, dataclasses.replace(faults.REAL, n_trials=1))) == 0
        undisturbed = faults.copy(begun, folder / "undisturbed")
        assert faults.forked(lambda: faults.run(undisturbed, faults.REAL)) == 0
        measured, n = invariants.measured(undisturbed, faults.NAME), 0
        for place in ("epoch", "checkpoint.write", "checkpoint.rename"):
            home = faults.copy(begun, folder / place)
            n += faults.again_and_again(home, place, "kill", faults.REAL, first=2)
            assert invariants.measured(home, faults.NAME) == measured, place
        assert n >= 5
