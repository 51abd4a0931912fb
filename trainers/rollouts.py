"""Rollouts of one training step: draws of a task under one guide, all at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from harness.episode import Draw
from harness.errors import HarnessError
from harness.guide import UNGUIDED, Guide
from harness.types import Member, Purpose, Task, Trajectory
from judges.attempts import Sampler
from trainers.algorithms.base import end_all
from trainers.demonstrations import demonstration


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRollouts:
    """What ``collect`` samples with; the engine's queue, not this class, bounds how many run together."""

    sampler: Sampler
    run_seed: int
    step: int

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
        """``size`` trajectories of one task at one level, in the order of their index."""
        if bool(guide) != (level > 0):
            raise HarnessError(f"{task.id}: level {level} with the guide {guide.words()!r}; level 0 has none, every other level has one")
        draw = Draw(task=task, run_seed=self.run_seed, purpose=purpose, step=self.step, level=level, guide=guide, teacher=teacher)
        draws = [replace(draw, index=i) for i in range(first, first + size)]
        temperature = self.sampler.agent.temperature
        attempts = [asyncio.create_task(self.sampler.attempt(one, temperature=temperature)) for one in draws]
        try:
            return tuple(await asyncio.gather(*attempts))
        finally:
            await end_all(attempts)

    async def demonstration(self, task: Task) -> Trajectory:
        if self.sampler.chat is None:
            raise HarnessError("an endpoint's turns are text, and cannot be trained on; use --engine hf or vllm")
        return await demonstration(task, self.sampler.env(task), self.sampler.chat)
