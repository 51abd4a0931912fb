"""Plans with task-irrelevant actions in them, as in logs of people who also did something else (paper, Table 5)."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.errors import HarnessError
from harness.types import Action, Task


def with_plan_noise(tasks: Sequence[Task], share: float, seed: int) -> tuple[Task, ...]:
    """Every task with actions of other tasks put at random places among its own, in a number of ``share`` of them.

    A number that is not whole is rounded up or down by chance, so that plans of a few actions get the right share on average. What is put
    in follows from seed, task and set alone. Raises ``HarnessError`` where no other task has an action to give.
    """
    known = {action.to_json(): action for task in tasks for action in task.actions}
    pool = list(known)
    return tuple(replace(task, actions=_noisy(task, known, pool, share, seed)) for task in tasks)


def _noisy(task: Task, known: Mapping[str, Action], pool: Sequence[str], share: float, seed: int) -> tuple[Action, ...]:
    rng = random.Random(f"plan noise {seed} {task.id}")
    wanted = math.floor(share * len(task.actions) + rng.random())
    own = {action.to_json() for action in task.actions}
    if not wanted:
        return task.actions
    if len(own) == len(known):
        raise HarnessError(f"plan_noise is {share}, but no task beside {task.id} has an action that is not its own; set plan_noise to 0")
    actions = list(task.actions)
    for _ in range(wanted):
        while (words := rng.choice(pool)) in own:
            pass
        actions.insert(rng.randrange(len(actions) + 1), known[words])
    return tuple(actions)
