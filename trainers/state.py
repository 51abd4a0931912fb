"""What a training run is between two steps, and which tasks a step sees.

The tasks of a step follow from (seed, step) alone, so a resumed run sees exactly the prompts it would have seen.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.errors import HarnessError, RunLogError
from harness.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """``step`` steps are done; the counters are over all of them."""

    step: int = 0
    generated_tokens: int = 0
    trained_tokens: int = 0

    def save(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> RunState:
        path = folder / "state.json"
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise RunLogError(f"{path}: not a run state ({error}); resume from an earlier checkpoint") from error


def tasks_of_step(tasks: Sequence[Task], seed: int, step: int, count: int) -> tuple[Task, ...]:
    """``count`` different tasks for a step: consecutive slices of one shuffled pass after another."""
    if not 1 <= count <= len(tasks):
        raise HarnessError(f"a step wants {count} different tasks, the set has {len(tasks)}; lower tasks_per_step to at most {len(tasks)}")
    per_pass = len(tasks) // count
    order = list(range(len(tasks)))
    random.Random(f"tasks {seed} {step // per_pass}").shuffle(order)
    at = (step % per_pass) * count
    return tuple(tasks[i] for i in order[at : at + count])


def with_foreign_plans(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Every task with the expert actions of another task of as many actions: the negative control of guidance.

    Tasks are rotated by one place among those of equal length, so no task keeps its own plan where there is a choice.
    """
    donors: dict[int, list[Task]] = {}
    for task in tasks:
        donors.setdefault(len(task.actions), []).append(task)
    rotated = {task.id: donor.actions for same in donors.values() for task, donor in zip(same, (*same[1:], same[0]), strict=True)}
    return tuple(replace(task, actions=rotated[task.id]) for task in tasks)
