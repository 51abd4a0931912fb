"""What a diagnostic experiments with: tasks, judged rollouts at any level of guidance, and how likely their tokens are in either view."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engines.base import Engine
from harness.errors import HarnessError
from harness.events import Kind
from harness.types import Attempt, Ids, Member, Purpose, Task, Trajectory
from judges.attempts import Sampler
from trainers.guidance.inject import Inject, as_plan
from trainers.rollouts import StepRollouts

Logits = Callable[[Sequence[Trajectory]], list[list[float]]]
"""Raw logits of the sampled tokens of each trajectory, one list a trajectory (see ``logits.ModelLogits``)."""


class Unrecorded:
    """A log that keeps nothing: what a diagnostic samples belongs to no run's training or evaluation."""

    def record(self, kind: Kind, payload: Mapping[str, Any]) -> None:
        return None

    def blob(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much is sampled. ``level`` None is a task's whole plan; ``clip`` is the epsilon of Eq. 11, ``recovery`` the rho of Eq. 22."""

    samples: int = 8
    groups: int = 4
    levels: int = 8
    continuations: int = 32
    level: int | None = None
    clip: float = 0.2
    recovery: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """One policy over some tasks, which are the first of ``everything`` (empty: there are no others). ``step`` counts the training steps
    behind its weights; ``run_dir`` is the run they come from, if any."""

    sampler: Sampler
    engine: Engine
    tasks: tuple[Task, ...]
    everything: tuple[Task, ...] = ()
    logits: Logits
    amounts: Amounts = Amounts()
    inject: Inject = as_plan
    seed: int = 0
    step: int = 0
    run_dir: Path | None = None
    pieces: Callable[[Ids], list[str]] = field(default=lambda ids: [str(i) for i in ids])

    @property
    def guided_tasks(self) -> tuple[Task, ...]:
        """The tasks that have expert actions. Raises ``HarnessError`` if none has."""
        found = tuple(task for task in self.tasks if task.actions)
        if not found:
            raise HarnessError(
                f"none of the {len(self.tasks)} tasks has expert actions to guide with; choose a question set or split that does"
            )
        return found

    def level_of(self, task: Task) -> int:
        """The level at which trajectories are looked at: ``amounts.level``, at most the whole plan."""
        return min(self.amounts.level or len(task.actions), len(task.actions))

    async def draw(self, task: Task, level: int, size: int) -> tuple[Member, ...]:
        """``size`` judged trajectories of one task at one level."""
        if not level:
            return await self._rollouts.sample(task, size=size)
        guide = self.inject(task.actions, level)
        return await self._rollouts.sample(task, size=size, level=level, guide=guide, purpose=Purpose.PROBE)

    async def shifts(self, attempts: Sequence[Attempt]) -> list[tuple[float, ...]]:
        """log r of every sampled token of each attempt (Eq. 14): its log-probability in the unguided view minus that in the view it was
        sampled in. Both at the sampling temperature."""
        target = [a.trajectory.with_view(a.target) for a in attempts]
        scored = await self.engine.score([t.ids() for t in target], self.sampler.agent.temperature)
        return [
            tuple(new - old for new, old in zip(_sampled(t, row), t.behaviour_logprobs(), strict=True))
            for t, row in zip(target, scored, strict=True)
        ]

    async def delta_logits(self, attempts: Sequence[Attempt]) -> list[tuple[float, ...]]:
        """Logit of every sampled token in the guided view minus that in the unguided view (Eq. 5, signed)."""
        guided = [a.trajectory for a in attempts]
        unguided = [a.trajectory.with_view(a.target) for a in attempts]
        with_plan, without = await asyncio.to_thread(lambda: (self.logits(guided), self.logits(unguided)))
        return [tuple(a - b for a, b in zip(x, y, strict=True)) for x, y in zip(with_plan, without, strict=True)]

    async def guided_attempts(self) -> list[Member]:
        """One guided trajectory a task: the first success among ``samples`` draws, else the first draw. Outages are left out."""
        groups = await asyncio.gather(*(self.draw(task, self.level_of(task), self.amounts.samples) for task in self.guided_tasks))
        chosen = [_representative(group) for group in groups]
        return [member for member in chosen if member is not None]

    @property
    def _rollouts(self) -> StepRollouts:
        return StepRollouts(sampler=self.sampler, run_seed=self.seed, step=self.step)


def by_turn(attempt: Attempt, values: Sequence[float]) -> list[tuple[float, ...]]:
    """Values of the sampled tokens, cut into the assistant turns that they belong to."""
    turns, start = [], 0
    for span in attempt.trajectory.spans:
        turns.append(tuple(values[start : start + len(span.ids)]))
        start += len(span.ids)
    return turns


def succeeded(member: Member) -> bool:
    return member.score.value is not None and member.score.value >= 1.0


def _representative(group: Sequence[Member]) -> Member | None:
    usable = [m for m in group if m.attempt.trajectory.spans and m.score.value is not None]
    return next((m for m in usable if succeeded(m)), usable[0] if usable else None)


def _sampled(trajectory: Trajectory, scores: Sequence[float]) -> list[float]:
    """Of T - 1 scores, those of the sampled tokens."""
    return [p for p, sampled in zip(scores, trajectory.sampled_mask()[1:], strict=True) if sampled]
