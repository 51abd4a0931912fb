"""On-policy self-distillation (paper, Eq. 13): the policy learns from itself, as it would have answered with the plan in its prompt.

Trajectories are sampled without guidance. The teacher is the policy at the start of the step, looking at the same tokens behind the full
plan g_K (the paper leaves the level open); it is frozen, and the loss is the KL from it over the whole vocabulary. Rewards are judged for
the record only. No advantage, no reference policy, no ratio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from harness.config import Section, identity
from harness.types import Attempt, Group, Task
from trainers.algorithms.base import Rollouts, as_they_come
from trainers.guidance.inject import as_plan
from trainers.objectives.base import Objective
from trainers.objectives.distill import Distillation
from trainers.phases import Phase
from trainers.sample import Sample


class OPSDGroupConfig(Section):
    """How many trajectories are drawn."""

    group_size: int = identity(8, ge=1)
    """Trajectories per task (N)."""


class OPSDConfig(Section):
    group: OPSDGroupConfig = OPSDGroupConfig()


class OPSD:
    """Distils the guided policy into the unguided one on the latter's own trajectories."""

    config_type: type[Section] = OPSDConfig

    def __init__(self, config: OPSDConfig) -> None:
        self._size = config.group.group_size

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(algorithm=self),)

    async def collect(self, tasks: Sequence[Task], rollouts: Rollouts) -> AsyncIterator[Group]:
        """One group a task; a task without expert actions has no teacher and is left out."""
        async for group in as_they_come(self._collect_one(task, rollouts) for task in tasks if task.actions):
            yield group

    def credit(self, groups: Sequence[Group]) -> list[Sample]:
        """Every trajectory that an outage did not cut, whatever its reward."""
        attempts = (member.attempt for group in groups for member in group.members)
        return [_row(attempt) for attempt in attempts if attempt.trajectory.spans and not attempt.status.is_outage]

    def objective(self) -> Objective:
        return Distillation()

    async def _collect_one(self, task: Task, rollouts: Rollouts) -> Group:
        members = await rollouts.sample(task, size=self._size, teacher=as_plan(task.actions, len(task.actions)))
        return Group(task=task, step=rollouts.step, members=members)


def _row(attempt: Attempt) -> Sample:
    assert attempt.teacher is not None
    return Sample.of(
        attempt.trajectory.with_view(attempt.target),
        attempt_id=attempt.id,
        group_id=attempt.task.id,
        advantage=1.0,
        teacher=attempt.trajectory.with_view(attempt.teacher),
    )
