"""Reward@1 with and without guidance: how well each way of giving the actions is followed (paper, Table 7).

The same tasks are tried at level 0 and with the expert's actions given by the injection that was set. Nothing is trained, and none of it
is an evaluation: what is sampled here is recorded nowhere, and no benchmark can hold it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from harness.figures import Finding, bars
from harness.types import Member
from trainers.diagnostics.lab import Lab

TITLE = "Reward with and without guidance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One task: the rewards of its rollouts on their own and guided; what could not be scored is left out."""

    task_id: str
    level: int
    unguided: tuple[float, ...]
    guided: tuple[float, ...]

    def to_plain(self) -> dict[str, Any]:
        return {"task_id": self.task_id, "level": self.level, "unguided": list(self.unguided), "guided": list(self.guided)}


async def diagnose(lab: Lab) -> Finding:
    """Mean reward of a single rollout, over the rollouts of a task and then over tasks."""
    drawn = await asyncio.gather(
        *(lab.draw(task, level, lab.amounts.samples) for task in lab.guided_tasks for level in (0, lab.level_of(task)))
    )
    tried = [
        Tried(task_id=task.id, level=lab.level_of(task), unguided=_rewards(alone), guided=_rewards(guided))
        for task, alone, guided in zip(lab.guided_tasks, drawn[::2], drawn[1::2], strict=True)
    ]
    means = {name: [fmean(found) for row in tried if (found := getattr(row, name))] for name in ("unguided", "guided")}
    unscored = sum(member.score.value is None for group in drawn for member in group)
    charts = (bars("Reward@1", "guidance", "mean reward", [(name, fmean(values)) for name, values in means.items() if values]),)
    return Finding(
        name="guided-reward",
        title=TITLE,
        step=lab.step,
        summary=tuple(_summary(means, lab.amounts.samples, unscored)),
        charts=charts,
        data={"tasks": [row.to_plain() for row in tried], "reward": {k: fmean(v) if v else None for k, v in means.items()}},
    )


def _rewards(members: Sequence[Member]) -> tuple[float, ...]:
    return tuple(m.score.value for m in members if m.score.value is not None)


def _summary(means: dict[str, list[float]], samples: int, unscored: int) -> list[str]:
    words = {"unguided": "without guidance", "guided": "with the actions given"}
    lines = [
        f"{words[name]}: "
        + (f"reward@1 {_share(values)} ({len(values)} tasks, {samples} rollouts each)" if values else "nothing was scored")
        for name, values in means.items()
    ]
    if unscored:
        lines.append(f"{unscored} rollouts could not be scored and count nowhere")
    return lines


def _share(values: Sequence[float]) -> str:
    """The mean over tasks, with its 95% interval by the normal approximation where they differ."""
    mean, half = fmean(values), 1.96 * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{mean:.1%}" + (f" [{max(0.0, mean - half):.1%}, {min(1.0, mean + half):.1%}]" if half else "")
