"""A search that prunes: the same proposals and results whatever happens on the way, and pruned trials apart."""

import optuna
import pytest

from lab import workers
from lab.errors import SpecError
from lab.replication import Replication
from lab.search import ledger
from lab.storage import Home
from tests.search.kills import killed_everywhere
from tests.toys import Boom, run, runs, stored, toy

PRUNING = dict(sampler="tpe", n_trials=12, round_size=4, replication=Replication("disjoint", 6, 2), prune=0.1)


def test_pruned_trials_are_told_apart_and_are_never_the_best(home):
    summary = run(toy(**PRUNING), home)
    trials = stored(home)
    pruned = [t for t in trials if t.state.name == "PRUNED"]
    assert summary.counts["pruned"] == len(pruned) > 0
    assert summary.counts["finished"] == 12 - len(pruned) > 0
    assert all(t.number >= 4 for t in pruned)  # there is nobody to lose to in the first round
    assert summary.share_failed == 0
    for t in trials:
        n = 4 if t.state.name == "PRUNED" else 6
        by_resample = t.user_attrs[ledger.BY_RESAMPLE]
        assert len(by_resample) == n
        means = [sum(by_resample[: d + 1]) / (d + 1) for d in range(n)]
        assert list(t.intermediate_values) == [*range(1, n + 1)]
        assert [*t.intermediate_values.values()] == pytest.approx(means)
        assert t.value == pytest.approx(means[-1])
        earlier = [other for other in trials if other.number < t.number // 4 * 4 and other.state.name == "COMPLETE"]
        if t.state.name == "PRUNED":
            best = min(earlier, key=lambda other: other.value)
            assert runs(home)[f"explore-{t.number:04d}"]["reason"].startswith(f"worse than trial {best.number} on")
            assert all(a > b for a, b in zip(by_resample, best.user_attrs[ledger.BY_RESAMPLE], strict=False))
    assert summary.best["number"] in {t.number for t in trials if t.state.name == "COMPLETE"}
    assert ledger.BY_RESAMPLE not in summary.best


def test_a_search_that_prunes_trains_fewer_replicas_and_the_first_round_is_the_same(tmp_path):
    homes = [Home(tmp_path / name) for name in ("with", "without")]
    for home, level in zip(homes, (0.1, None), strict=True):
        run(toy(**(PRUNING | {"prune": level, "learning_curve": ()})), home)
    first, second = (stored(home) for home in homes)
    assert [t.params for t in first[:4]] == [t.params for t in second[:4]]
    assert [t.value for t in first[:4]] == pytest.approx([t.value for t in second[:4]])


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_kill_at_any_step_of_a_search_that_prunes_changes_nothing(tmp_path, monkeypatch, sampler):
    study = toy(**(PRUNING | {"sampler": sampler}))
    rows = killed_everywhere(study, 18, tmp_path, monkeypatch, first=5, skip=41)
    assert {row[1] for row in rows[12:]} >= ({"PRUNED"} if sampler == "tpe" else set())


def test_pruning_is_refused_where_every_trial_has_to_be_whole():
    for changes, says in (
        ({"sampler": "qmc"}, "make a curve"), ({"sampler": "grid"}, "make a curve"),
        ({"sampler": "random"}, "make a curve"), ({"objective": ("bias_sq", "variance")}, "few training sets"),
        ({"prune": 0.0}, "prune = 0.0"), ({"prune": True}, "prune = True"), ({"prune": "yes"}, "prune = 'yes'"),
        ({"replication": Replication("disjoint", 4, 2)}, "set n_resamples to 5 or more"),
        ({"replication": Replication("disjoint", 6, 2, n_partitions=2)}, "several partitions"),
        ({"replication": Replication("disjoint", 6, 3, target_half_width=0.1)}, "target_half_width"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=says):
            toy(**(PRUNING | changes))


def test_after_an_interruption_within_a_round_a_trial_still_has_the_rival_of_before_the_round(home, monkeypatch):
    """Although a trial of its own round, told before the interruption, was better than that one."""
    rivals: dict[int, set[int | None]] = {}
    real = workers.inline.evaluate_together

    def watched(tasks, *args, **kwargs):
        for task in tasks:
            if task.phase == "explore":
                rivals.setdefault(task.number, set()).add(None if task.rival is None else task.rival.number)
        return real(tasks, *args, **kwargs)

    monkeypatch.setattr(workers.inline, "evaluate_together", watched)
    study = toy(**(PRUNING | {"n_trials": 16}))
    for _ in range(60):
        with monkeypatch.context() as patch:
            real_tell = optuna.Study.tell

            def tell(*args, real_tell=real_tell, **kwargs):
                real_tell(*args, **kwargs)
                raise Boom

            patch.setattr(optuna.Study, "tell", tell)
            try:
                run(study, home)
            except Boom:
                continue
            break
    trials = [t for t in stored(home) if t.state.name == "COMPLETE"]
    was_better = False
    for number, seen in rivals.items():
        first = number // 4 * 4
        before = min((t for t in trials if t.number < first), key=lambda t: t.value, default=None)
        assert seen == {None if before is None else before.number}, number
        mates = [t for t in trials if first <= t.number < number]
        was_better |= before is not None and any(t.value < before.value for t in mates)
    assert was_better
