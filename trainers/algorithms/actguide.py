"""ActGuide-RL: where every unguided rollout fails, the smallest sufficient piece of an expert's plan is put into the prompt, and the
guided rollouts are trained into the unguided policy (paper, Algorithm 1, Eq. 10-12).

The mixed policy needs no code of its own: a member's trajectory carries the log-probabilities of the context it was sampled in (the
denominator), and ``credit`` swaps in the unguided view (the numerator).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from harness.config import Section, identity
from harness.types import Group, Member, Purpose, Task
from trainers.algorithms.base import Rollouts
from trainers.algorithms.grpo import GroupConfig, ZeroRL, ZeroRLConfig
from trainers.guidance.search import Found, default_budget, search
from trainers.objectives.policy_gradient import ObjectiveConfig


class GuidanceConfig(Section):
    """When and how much guidance is given."""

    probe_budget: int | None = identity(None, ge=1)
    """Levels tried per failed group (B); None means ceil(log2 L) + 1."""
    reuse_probes: bool = identity(True)
    """Keep the N trajectories that verified k*; False draws N fresh ones there (Algorithm 1 to the letter)."""
    merge: Literal["union", "replace"] = identity("union")
    """The guided N join the failed N (the paper), or replace them (the authors' code)."""


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

    async def _collect_one(self, task: Task, rollouts: Rollouts) -> Group:
        group = await super()._collect_one(task, rollouts)
        best = group.best(guided=False)
        if best is None or best >= self._group.delta or not task.actions:
            return group
        found, drawn = await self._find_level(task, rollouts)
        return await self._merge(group, found, drawn, rollouts)

    async def _find_level(self, task: Task, rollouts: Rollouts) -> tuple[Found, dict[int, tuple[Member, ...]]]:
        """Binary search with N rollouts a level. A level whose rollouts are all unscorable (an outage) says nothing and ends the search;
        what was verified before it stands."""
        levels = len(task.actions)
        probe = search(levels, self._guidance.probe_budget or default_budget(levels))
        drawn: dict[int, tuple[Member, ...]] = {}
        probed: list[tuple[int, bool]] = []
        try:
            level = next(probe)
            while True:
                drawn[level] = await rollouts.sample(task, size=self._group.group_size, level=level, purpose=Purpose.PROBE)
                best = max((m.score.value for m in drawn[level] if m.score.value is not None), default=None)
                if best is None:
                    verified = min((k for k, sufficed in probed if sufficed), default=None)
                    return Found(level=verified, probed=tuple(probed)), drawn
                probed.append((level, best >= self._group.delta))
                level = probe.send(best >= self._group.delta)
        except StopIteration as end:
            found: Found = end.value
            return found, drawn

    async def _merge(self, group: Group, found: Found, drawn: dict[int, tuple[Member, ...]], rollouts: Rollouts) -> Group:
        guided: Sequence[Member] = ()
        spent = [m for level, members in drawn.items() if level != found.level for m in members]
        if found.level is not None:
            guided = drawn[found.level]
            if not self._guidance.reuse_probes:
                spent += guided
                guided = await rollouts.sample(group.task, size=self._group.group_size, level=found.level)
        replaced = bool(guided) and self._guidance.merge == "replace"
        return Group(
            task=group.task,
            step=group.step,
            members=(*(() if replaced else group.members), *guided),
            level=found.level,
            probes=found.probed,
            discarded=(*(group.members if replaced else ()), *spent),
            delta=group.delta,
        )
