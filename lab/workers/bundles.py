"""Bundles: tasks that a worker carries out together, in one pack."""

import math
from collections import deque
from collections.abc import Callable

from lab.fusion import form_of, most_replicas, shape_of
from lab.knobs import TrialConfig
from lab.task import Task
from lab.workers.engine import MAX_ATTEMPTS

GPU_WINDOW = 16  # trials for each GPU that are asked for ahead, so that some of them have the same shape


def take_bundle(waiting: deque[Task], most: Callable[[Task], int] = most_replicas) -> list[Task]:
    """Take the first task out of a queue, and those of its shape that fit in a pack with it, in their order.

    A task whose worker died under it goes alone: if it is what kills, its company must not be blamed.
    """
    first = waiting.popleft()
    bundle, rest, room = [first], [], most(first) - first.replication.n_replicas
    for task in waiting:
        if task.replication.n_replicas <= room and _together(first, task):
            bundle.append(task)
            room -= task.replication.n_replicas
        else:
            rest.append(task)
    waiting.clear()
    waiting.extend(rest)
    return bundle


def take_share(waiting: deque[Task], n_workers: int) -> list[Task]:
    """Take a bundle for one of so many free workers, which leaves the others as many tasks."""
    share = math.ceil(len(waiting) / n_workers)
    return take_bundle(waiting, lambda first: min(most_replicas(first), share * first.replication.n_replicas))


def _together(first: Task, second: Task) -> bool:
    if any((task.attempt - 1) % MAX_ATTEMPTS for task in (first, second)):
        return False
    if (first.study, first.spec, first.device) != (second.study, second.spec, second.device):
        return False
    if first.replication.grows or first.spec.get("prune"):  # each as far as its own predictions say
        return False
    same = form_of if first.device.startswith("cuda") else shape_of  # elsewhere filling up does not pay
    return same(TrialConfig.from_dict(first.config)) == same(TrialConfig.from_dict(second.config))
