"""What the learner eats: samples (one token sequence with its credit) in mini-batches. Training only.

Axis legend used across trainers/: B rows, T positions, N sampled tokens of a row, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.types import Ids, Trajectory

if TYPE_CHECKING:
    from trainers.objectives.base import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The sampled tokens of a row among other contexts: all ids, and which of them were sampled."""

    ids: Ids
    mask: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row: ids under the *target* view, which of them were sampled, and what each sampled token earns.

    ``behaviour`` and ``advantages`` have one value per True in ``mask`` (N); position 0 is never sampled. ``teacher``: the view in which a
    teacher looks at the same tokens, for objectives that have one.
    """

    attempt_id: str
    group_id: str
    ids: Ids
    mask: tuple[bool, ...]
    behaviour: tuple[float, ...]
    advantages: tuple[float, ...]
    guided: bool = False
    version: int = 0
    teacher: View | None = None

    def __post_init__(self) -> None:
        n = sum(self.mask)
        if len(self.ids) != len(self.mask) or self.mask[:1] == (True,):
            raise HarnessError(f"sample {self.attempt_id}: mask must align with ids and start False")
        if not n == len(self.behaviour) == len(self.advantages):
            raise HarnessError(
                f"sample {self.attempt_id}: {n} sampled tokens, {len(self.behaviour)} behaviour log-probabilities, "
                f"{len(self.advantages)} advantages; they must align"
            )
        if self.teacher is not None and _sampled(self.teacher.ids, self.teacher.mask) != _sampled(self.ids, self.mask):
            raise HarnessError(f"sample {self.attempt_id}: its teacher's view must hold the same sampled tokens")

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        *,
        attempt_id: str,
        group_id: str,
        advantage: float,
        guided: bool = False,
        teacher: Trajectory | None = None,
    ) -> Sample:
        """A row from a trajectory already in its target view, the advantage spread over its sampled tokens."""
        n = trajectory.sampled_tokens
        return cls(
            attempt_id=attempt_id,
            group_id=group_id,
            ids=trajectory.ids(),
            mask=trajectory.sampled_mask(),
            behaviour=trajectory.behaviour_logprobs(),
            advantages=(advantage,) * n,
            guided=guided,
            version=trajectory.spans[0].version,
            teacher=None if teacher is None else View(ids=teacher.ids(), mask=teacher.sampled_mask()),
        )

    @property
    def width(self) -> int:
        """Tokens of its longest view, which is what a forward must hold."""
        return max(len(self.ids), 0 if self.teacher is None else len(self.teacher.ids))


def _sampled(ids: Ids, mask: tuple[bool, ...]) -> list[int]:
    return [token for token, sampled in zip(ids, mask, strict=True) if sampled]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One training step: mini-batches in order, one optimiser update each, under one objective and sampling temperature."""

    minibatches: tuple[tuple[Sample, ...], ...]
    objective: Objective
    temperature: float = 1.0
