"""Rollouts of one training step: draws of a task at a guidance level, all at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from harness.episode import Draw
from harness.types import Member, Purpose, Task, Trajectory
from judges.attempts import Sampler
from trainers.demonstrations import demonstration
from trainers.guidance.inject import plan_text


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRollouts:
    """What ``collect`` samples with; the engine's queue, not this class, bounds how many run together."""

    sampler: Sampler
    run_seed: int
    step: int

    async def sample(
        self, task: Task, *, size: int, level: int = 0, purpose: Purpose = Purpose.TRAIN, teacher_level: int = 0
    ) -> tuple[Member, ...]:
        """``size`` trajectories of one task at one level, in the order of their index."""
        first = Draw(
            task=task,
            run_seed=self.run_seed,
            purpose=purpose,
            step=self.step,
            level=level,
            hint=plan_text(task.actions, level) if level else "",
            teacher_hint=plan_text(task.actions, teacher_level) if teacher_level else None,
        )
        draws = [replace(first, index=i) for i in range(size)]
        temperature = self.sampler.agent.temperature
        return tuple(await asyncio.gather(*(self.sampler.attempt(draw, temperature=temperature) for draw in draws)))

    async def demonstration(self, task: Task) -> Trajectory:
        return await demonstration(task, self.sampler.env(task), self.sampler.chat)
