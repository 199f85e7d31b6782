"""Kills of a search at any step that changes something."""

import dataclasses
import shutil

import optuna

from lab import spool, storage, workers
from lab.search.results import Results
from lab.storage import Home
from tests.toys import Boom, FakeTracker, run, state


def booby_trap(patch, k):
    """Raise at the k-th crossing of any step that changes something; return the counter."""
    crossings = [0]

    def cross():
        crossings[0] += 1
        if crossings[0] == k:
            raise Boom

    def trap(owner, name, *, after):
        real = getattr(owner, name)

        def wrapped(*args, **kwargs):
            cross()
            result = real(*args, **kwargs)
            if after:
                cross()
            return result

        patch.setattr(owner, name, wrapped)

    cached = optuna.storages._cached_storage._CachedStorage
    trap(cached, "create_new_trial", after=True)
    trap(cached, "set_trial_param", after=False)
    trap(cached, "set_trial_system_attr", after=True)
    trap(workers.InlineEngine, "submit", after=False)
    trap(workers.inline, "evaluate_together", after=True)
    trap(FakeTracker, "publish", after=True)
    trap(Results, "_tell", after=True)
    trap(cached, "set_trial_state_values", after=True)
    trap(spool, "remove_outcome", after=True)
    return crossings


def killed_everywhere(study, n_trials, folder, monkeypatch, first, skip):
    """Let a study that is done go on to `n_trials`, killed at crossing number first, first + skip, … each time anew.

    Every time it has to end as an undisturbed one: return the trials of that.
    """
    base, undisturbed = Home(folder / "base"), Home(folder / "undisturbed")
    run(study, base)
    study = dataclasses.replace(study, n_trials=n_trials)
    shutil.copytree(base.root, undisturbed.root)
    run(study, undisturbed)
    expected = state(undisturbed)
    k = first
    while True:
        home = Home(folder / f"killed-{k}")
        shutil.copytree(base.root, home.root)
        with monkeypatch.context() as patch:
            crossings = booby_trap(patch, k)
            try:
                run(study, home)
            except Boom:
                pass
            else:
                break
        run(study, home)
        assert state(home) == expected, f"killed at crossing {k}"
        assert list(home.spool_of("toy").iterdir()) == []
        assert not storage.in_use(home, "toy")
        k += skip
    assert k > crossings[0] > 25
    return expected[0]
