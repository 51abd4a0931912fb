"""What a trainer is to a run: phases, each some steps of one algorithm on one kind of task. Most trainers have one.

A phase after the first begins from the checkpoint that the one before left, as a new run would: with a fresh optimiser, and with that
checkpoint for a reference policy. Which phase a step belongs to follows from its number alone, so a resumed run is in the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Protocol

from harness.config import Section
from harness.errors import HarnessError
from trainers.algorithms.base import Algorithm


class Material(StrEnum):
    """What the tasks of a phase must bring."""

    QUESTIONS = "questions"  # the training split of the question set, to be rolled out
    DEMONSTRATIONS = "demonstrations"  # an expert's whole conversations


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """``steps`` None: until the run ends (the last phase). ``lr`` None: ``learner.lr``."""

    algorithm: Algorithm
    material: Material = Material.QUESTIONS
    steps: int | None = None
    lr: float | None = None


class Trainer(Protocol):
    """What the registry's trainers are: classes that are built from their own section of settings."""

    config_type: type[Section]

    def phases(self) -> Sequence[Phase]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The phases of a run in order; only the last has no number of steps."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        *earlier, last = self.phases
        if last.steps is not None or any(phase.steps is None for phase in earlier):
            raise HarnessError("every phase of a trainer but the last needs a number of steps, and the last takes what is left")

    @property
    def starts(self) -> tuple[int, ...]:
        """The first step of each phase after the first."""
        return tuple(accumulate(phase.steps or 0 for phase in self.phases[:-1]))

    def at(self, step: int) -> Phase:
        """The phase that training step ``step`` belongs to."""
        return self.phases[sum(start <= step for start in self.starts)]

    def origin(self, step: int) -> int | None:
        """The step whose checkpoint the phase of the update before ``step`` began from; None: the model of the run."""
        return max((start for start in self.starts if start < step), default=None)
