"""Kills, errors and full disks at every place that matters: a study comes to the same end, and nothing counts twice."""

import pytest

from lab import failpoints
from lab.storage import Home
from tests import faults, invariants

PLACES = [name for name in failpoints.NAMES if not name.startswith(("report", "checkpoint"))]


@pytest.fixture(scope="module")
def base():
    """Return a project whose databases are made and whose study has one trial of two."""
    with faults.memory() as folder, faults.fake_trainer():
        home = Home(folder / "base")
        home.root.mkdir()
        faults.run(home, faults.small(1))
        yield home


@pytest.fixture(scope="module")
def undisturbed(base):
    home = faults.copy(base, base.root.with_name("undisturbed"))
    faults.run(home)
    invariants.check_finished(home, faults.NAME, 2)
    return invariants.measured(home, faults.NAME)


def inject_until_done(base, undisturbed, place, action):
    """Run the same study again and again, and let the k-th session fall at its k-th passage, until one does not."""
    home = faults.copy(base, base.root.with_name(f"{place.replace('*', 'any')}-{action}"))
    for k in range(1, 200):
        code = faults.injected(home, f"{place}:{k}={action}")
        if code == 0:
            break
        assert code in (-9, 5, faults.FIRED), code
        invariants.check(home, faults.NAME, 2)
    invariants.check_finished(home, faults.NAME, 2)
    return invariants.measured(home, faults.NAME), k - 1


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_any_passage_of_any_place_changes_nothing(base, undisturbed, place):
    measured, n_injections = inject_until_done(base, undisturbed, place, "kill")
    assert measured == undisturbed
    assert n_injections >= 1
