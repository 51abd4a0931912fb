"""ActGuide-RL: where every unguided rollout fails, the smallest sufficient piece of an expert's plan is put into the prompt, and the
guided rollouts are trained into the unguided policy (paper, Algorithm 1, Eq. 10-12).

The mixed policy needs no code of its own: a member's trajectory carries the log-probabilities of the context it was sampled in (the
denominator), and ``credit`` swaps in the unguided view (the numerator).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from harness.config import Section
from harness.guide import UNGUIDED
from harness.types import Attempt, Group, Member, Purpose, Task, Trajectory
from trainers.algorithms.base import Rollouts
from trainers.algorithms.grpo import GroupConfig, ZeroRL, ZeroRLConfig
from trainers.guidance.config import GuidanceConfig
from trainers.guidance.search import Found, default_budget, fixed_level
from trainers.objectives.policy_gradient import ObjectiveConfig


class ActGuideConfig(ZeroRLConfig):
    group: GroupConfig = GroupConfig()
    guidance: GuidanceConfig = Field(default_factory=GuidanceConfig)
    objective: ObjectiveConfig = ObjectiveConfig()


class ActGuide(ZeroRL):
    """Zero-RL with guidance as a fallback."""

    config_type: type[Section] = ActGuideConfig

    def __init__(self, config: ActGuideConfig) -> None:
        super().__init__(config)
        self._guidance = config.guidance
        self._inject = config.guidance.inject()

    async def _collect_one(self, task: Task, rollouts: Rollouts) -> Group:
        group = await super()._collect_one(task, rollouts)
        best = group.best(guided=False)
        needed = best is not None and (best < self._group.delta or not self._guidance.fallback)  # an outage is no reason to guide
        if not needed or not task.actions:
            return group
        fixed = fixed_level(len(task.actions), self._guidance.fixed_level, self._guidance.fixed_ratio)
        found, drawn = (Found(level=fixed), {}) if fixed else await self._find_level(task, rollouts)
        fresh: Sequence[Member] = ()
        if found.level is not None:  # 0, which only the authors' search ends at: another unguided group
            size, reused = self._group.group_size, drawn.pop(found.level, ()) if self._guidance.reuse_probes else ()
            fresh = reused or await self._draw(task, found.level, size, Purpose.TRAIN, rollouts, first=0 if found.level else size)
        return self._merge(group, found, fresh, [member for members in drawn.values() for member in members])

    async def _draw(self, task: Task, level: int, size: int, purpose: Purpose, rollouts: Rollouts, *, first: int = 0) -> tuple[Member, ...]:
        guide = self._inject(task.actions, level) if level else UNGUIDED
        return await rollouts.sample(task, size=size, first=first, level=level, guide=guide, purpose=purpose)

    async def _find_level(self, task: Task, rollouts: Rollouts) -> tuple[Found, dict[int, tuple[Member, ...]]]:
        """Binary search, some rollouts a level. A level whose rollouts are all unscorable (an outage) says nothing and ends the search;
        what was verified before it stands."""
        levels, options = len(task.actions), self._guidance
        probe = options.search_of(levels, options.probe_budget or default_budget(levels))
        drawn: dict[int, tuple[Member, ...]] = {}
        probed: list[tuple[int, bool]] = []
        try:
            level = next(probe)
            while True:
                drawn[level] = await self._draw(task, level, options.probe_size or self._group.group_size, Purpose.PROBE, rollouts)
                best = max((m.score.value for m in drawn[level] if m.score.value is not None), default=None)
                if best is None:
                    verified = min((k for k, sufficed in probed if sufficed), default=None)
                    return Found(level=verified, probed=tuple(probed)), drawn
                probed.append((level, best >= self._group.delta))
                level = probe.send(best >= self._group.delta)
        except StopIteration as end:
            found: Found = end.value
            return found, drawn

    def _merge(self, group: Group, found: Found, fresh: Sequence[Member], spent: Sequence[Member]) -> Group:
        """The group with the members that its failure called for; ``spent`` were drawn on the way and are not trained."""
        replaced = bool(fresh) and self._guidance.merge == "replace"
        return Group(
            task=group.task,
            step=group.step,
            members=(*(() if replaced else group.members), *fresh),
            level=found.level or None,
            probes=found.probed,
            discarded=(*(group.members if replaced else ()), *spent),
            delta=group.delta,
        )

    def _trained_view(self, attempt: Attempt) -> Trajectory:
        return attempt.trajectory if self._guidance.train_view == "guided" else super()._trained_view(attempt)
