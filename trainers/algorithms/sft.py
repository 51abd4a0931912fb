"""Supervised fine-tuning on an expert's whole trajectories, alone or before reinforcement learning.

Reasoning, calls and answers are trained; tool responses and prompts are not. An expert's conversation is rendered exactly as an episode
would have been (same opening, same cuts), so what is learned here is continued by rollouts without a seam.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from pydantic import Field

from harness.config import Section, identity
from harness.types import Group, Task
from trainers.algorithms.actguide import ActGuide, ActGuideConfig
from trainers.algorithms.base import Rollouts
from trainers.algorithms.grpo import ZeroRL, ZeroRLConfig
from trainers.objectives.base import Objective
from trainers.objectives.supervised import CrossEntropy
from trainers.phases import Material, Phase
from trainers.sample import Sample


class SFT:
    """Token-level cross-entropy; one conversation a task."""

    config_type: type[Section] = Section

    def __init__(self, config: Section) -> None:
        del config  # it has no settings of its own: steps, mini-batch and learning rate are the run's

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(algorithm=self, material=Material.DEMONSTRATIONS),)

    async def collect(self, tasks: Sequence[Task], rollouts: Rollouts) -> AsyncIterator[Group]:
        for task in tasks:
            yield Group(task=task, step=rollouts.step, members=(), demonstrations=(await rollouts.demonstration(task),))

    def credit(self, groups: Sequence[Group]) -> list[Sample]:
        return [
            Sample.of(shown, attempt_id=f"demonstration/{group.step}/{group.task.id}", group_id=group.task.id, advantage=1.0)
            for group in groups
            for shown in group.demonstrations
        ]

    def objective(self) -> Objective:
        return CrossEntropy()


class SupervisedPhaseConfig(Section):
    """The supervised phase before reinforcement learning."""

    steps: int = identity(16, ge=1)
    """Supervised steps; those of ``steps`` come after them."""
    lr: float | None = identity(None, gt=0)
    """Learning rate of the supervised phase (null: learner.lr)."""

    def phase(self) -> Phase:
        return Phase(algorithm=SFT(Section()), material=Material.DEMONSTRATIONS, steps=self.steps, lr=self.lr)


class SFTZeroRLConfig(ZeroRLConfig):
    sft: SupervisedPhaseConfig = Field(default_factory=SupervisedPhaseConfig)


class SFTZeroRL:
    """SFT, then zero-RL from its checkpoint."""

    config_type: type[Section] = SFTZeroRLConfig

    def __init__(self, config: SFTZeroRLConfig) -> None:
        self._config = config

    def phases(self) -> tuple[Phase, ...]:
        return (self._config.sft.phase(), *ZeroRL(self._config).phases())


class SFTActGuideConfig(ActGuideConfig):
    sft: SupervisedPhaseConfig = Field(default_factory=SupervisedPhaseConfig)


class SFTActGuide:
    """SFT, then ActGuide from its checkpoint."""

    config_type: type[Section] = SFTActGuideConfig

    def __init__(self, config: SFTActGuideConfig) -> None:
        self._config = config

    def phases(self) -> tuple[Phase, ...]:
        return (self._config.sft.phase(), *ActGuide(self._config).phases())
