"""What an algorithm is: three answers. Which trajectories (collect), what each token earns (credit), which loss (objective).

The loop asks and never knows the answer's name: it holds no word of guidance, groups of winners, or distillation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from harness.guide import UNGUIDED, Guide
from harness.types import Group, Member, Purpose, Task, Trajectory
from trainers.objectives.base import Objective
from trainers.sample import Sample

T = TypeVar("T")


class Rollouts(Protocol):
    """What the loop lends to ``collect``: sampling with the current weights, judged."""

    @property
    def step(self) -> int: ...

    async def sample(
        self,
        task: Task,
        *,
        size: int,
        first: int = 0,
        level: int = 0,
        guide: Guide = UNGUIDED,
        purpose: Purpose = Purpose.TRAIN,
        teacher: Guide = UNGUIDED,
    ) -> tuple[Member, ...]:
        """Draw ``size`` trajectories of one task; ``guide`` is what stands before the policy at a ``level`` > 0.

        ``first`` is the index of the first of them: of an equal draw, other indices are other trajectories. ``teacher`` also records how
        unguided trajectories look behind its hints. The seed of each depends on (run, purpose, step, task,
        level, index) only.
        """
        ...

    async def demonstration(self, task: Task) -> Trajectory:
        """The task's expert conversation as an episode would have recorded it; its log-probabilities are NaN."""
        ...


class Algorithm(Protocol):
    def collect(self, tasks: Sequence[Task], rollouts: Rollouts) -> AsyncIterator[Group]:
        """Yield at most one finished group per task, in any order; reads no learner state."""
        ...

    def credit(self, groups: Sequence[Group]) -> list[Sample]:
        """Turn groups into training rows; rows that can teach nothing are left out."""
        ...

    def objective(self) -> Objective: ...


async def as_they_come(calls: Iterable[Coroutine[Any, Any, T]]) -> AsyncIterator[T]:
    """Run all at once and yield each result as it arrives; a failure ends the others."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        for finished in asyncio.as_completed(tasks):
            yield await finished
    finally:
        await end_all(tasks)


async def end_all(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what still runs and wait for its end, so that nothing fails later where nobody looks."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
