"""Zero-RL: group-relative policy optimisation on unguided rollouts (the control of every comparison).

``credit`` and ``objective`` here are those of every policy-gradient trainer of this package; a subclass answers ``collect`` differently.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

from harness.config import Section, identity
from harness.types import Attempt, Group, Member, Status, Task, Trajectory
from trainers.advantage import group_advantages
from trainers.algorithms.base import Rollouts, as_they_come
from trainers.objectives.base import Objective
from trainers.objectives.policy_gradient import ObjectiveConfig
from trainers.phases import Phase
from trainers.sample import Sample


class GroupConfig(Section):
    """How groups are drawn and credited."""

    group_size: int = identity(8, ge=1)
    """Trajectories per task and level (N)."""
    delta: float = identity(1.0)
    """Reward that counts as success."""
    advantage_scale: Literal["std", "none"] = identity("std")
    """Divide centred rewards by the group's standard deviation, or leave them."""
    advantage_eps: float = identity(1e-6, ge=0.0)
    """Added to the standard deviation."""
    zero_variance: Literal["drop", "keep"] = identity("drop")
    """A group whose rewards are all equal: leave its rows out of the batch, or keep them (their KL and token counts stay)."""
    truncated: Literal["penalise", "mask"] = identity("penalise")
    """Rows cut by the response budget: train on them with their reward, or only let them count in the baseline."""


class ZeroRLConfig(Section):
    group: GroupConfig = GroupConfig()
    objective: ObjectiveConfig = ObjectiveConfig()


class ZeroRL:
    """GRPO without guidance."""

    config_type: type[Section] = ZeroRLConfig

    def __init__(self, config: ZeroRLConfig) -> None:
        self._group = config.group
        self._objective = config.objective

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(algorithm=self),)

    async def collect(self, tasks: Sequence[Task], rollouts: Rollouts) -> AsyncIterator[Group]:
        async for group in as_they_come(self._collect_one(task, rollouts) for task in tasks):
            yield group

    def credit(self, groups: Sequence[Group]) -> list[Sample]:
        return [sample for group in groups for sample in self._credit_one(group)]

    def objective(self) -> Objective:
        return self._objective.objective()

    async def _collect_one(self, task: Task, rollouts: Rollouts) -> Group:
        members = await rollouts.sample(task, size=self._group.group_size)
        return Group(task=task, step=rollouts.step, members=members, delta=self._group.delta)

    def _credit_one(self, group: Group) -> list[Sample]:
        rewards = [m.score.value for m in group.members]
        scale, eps = self._group.advantage_scale, self._group.advantage_eps
        advantages = group_advantages(rewards, [0] * len(rewards), scale=scale, eps=eps)
        scored = [r for r in rewards if r is not None]
        if self._group.zero_variance == "drop" and (not scored or min(scored) == max(scored)):
            return []
        return [
            self._row(group, member, advantage)
            for member, advantage in zip(group.members, advantages, strict=True)
            if advantage is not None and self._trains(member)
        ]

    def _trains(self, member: Member) -> bool:
        attempt = member.attempt
        masked = self._group.truncated == "mask" and attempt.status is Status.TRUNCATED
        return bool(attempt.trajectory.spans) and not masked

    def _row(self, group: Group, member: Member, advantage: float) -> Sample:
        attempt = member.attempt
        return Sample.of(
            self._trained_view(attempt),
            attempt_id=attempt.id,
            group_id=group.task.id,
            advantage=advantage,
            guided=attempt.level > 0,
        )

    def _trained_view(self, attempt: Attempt) -> Trajectory:
        return attempt.trajectory.with_view(attempt.target)
