"""Evaluation: every task of a split once, unguided, through the same sampler that training uses.

Resumable: tasks whose attempt and judgement are already in the run log under the same evaluation are not run again. An
unscorable attempt counts as such and never as wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.comparability import Comparability, parts_of
from harness.config import to_json
from harness.envs.search import SYSTEM, TOOLS, SearchLimits
from harness.episode import AgentConfig, Draw
from harness.events import Kind, current_events
from harness.types import Purpose, Task
from judges.attempts import Sampler

TEMPERATURE = 0.0  # the paper evaluates greedily, one run per task


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is evaluated, and the training state that it describes."""

    id: str
    benchmark: str
    split: str
    model: str
    method: str
    seed: int
    step: int = 0
    generated_tokens_total: int | None = None
    comparability: Comparability = field(default_factory=lambda: Comparability(parts={}))

    def record(self, phase: str, tasks: int, judge: str) -> dict[str, object]:
        return {
            "phase": phase,
            "evaluation_id": self.id,
            "benchmark": self.benchmark,
            "split": self.split,
            "step": self.step,
            "n": tasks,
            "judge": judge,
            "model": self.model,
            "method": self.method,
            "seed": self.seed,
            "comparability": self.comparability.code,
            "comparability_parts": dict(self.comparability.parts),
            "generated_tokens_total": self.generated_tokens_total,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Scores by task id; None where the attempt could not be scored."""

    scores: Mapping[str, float | None]

    @property
    def mean(self) -> float | None:
        """Mean over scored tasks."""
        known = [s for s in self.scores.values() if s is not None]
        return sum(known) / len(known) if known else None

    @property
    def coverage(self) -> float:
        return sum(s is not None for s in self.scores.values()) / max(len(self.scores), 1)

    def words(self) -> str:
        """``12.5% of 40 tasks, unguided``, with what could not be scored."""
        score = "no score" if self.mean is None else f"{self.mean:.1%}"
        missing = sum(s is None for s in self.scores.values())
        return f"{score} of {len(self.scores)} tasks, unguided" + (f"; {missing} could not be scored" if missing else "")


async def evaluate(
    evaluation: Evaluation,
    tasks: Sequence[Task],
    sampler: Sampler,
    *,
    done: Mapping[str, float | None],
    progress: Callable[[int, int], None],
) -> Result:
    """Run what ``done`` lacks, as many at a time as the sampler's gate admits; ``progress(finished, total)`` after each."""
    scores: dict[str, float | None] = {t.id: done[t.id] for t in tasks if t.id in done}
    sampler.log.record(Kind.EVALUATION, evaluation.record("started", len(tasks), sampler.judge.name))

    async def one(task: Task) -> None:
        draw = Draw(task=task, run_seed=evaluation.seed, purpose=Purpose.EVAL, step=evaluation.step)
        member = await sampler.attempt(draw, temperature=TEMPERATURE, evaluation_id=evaluation.id)
        scores[task.id] = member.score.value
        progress(len(scores), len(tasks))

    await asyncio.gather(*(one(task) for task in tasks if task.id not in done))
    sampler.log.record(Kind.EVALUATION, evaluation.record("finished", len(tasks), sampler.judge.name))
    return Result(scores={task.id: scores[task.id] for task in tasks})


def recorded_scores(run_dir: Path, evaluation_id: str) -> dict[str, float | None]:
    """Scores by task id that the run log already holds for an evaluation; an outage is not kept, so it is tried again."""
    task_of: dict[str, str] = {}
    scores: dict[str, float | None] = {}
    for event in current_events(run_dir):
        if event.kind is Kind.ATTEMPT and event.data["evaluation_id"] == evaluation_id:
            task_of[event.data["attempt_id"]] = event.data["task_id"]
        elif event.kind is Kind.JUDGEMENT and event.data["attempt_id"] in task_of and event.data["value"] is not None:
            scores[task_of[event.data["attempt_id"]]] = event.data["value"]
    return scores


def comparability(fingerprint: str, judge: str, agent: AgentConfig, limits: SearchLimits, limit: int | None) -> Comparability:
    """What a result of the search agent may be compared with: same data, prompt, tools, budgets, judge and extraction."""
    return parts_of(
        data=[fingerprint, limit],
        prompt=SYSTEM,
        tools=TOOLS,
        limits=[{**to_json(agent), "temperature": TEMPERATURE}, to_json(limits)],
        judge=judge,
    )
