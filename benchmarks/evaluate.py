"""Evaluation: every task of a split, ``epochs`` times, unguided, through the same sampler that training uses.

Several evaluations run as one: their samples share workers, so that the last slow ones of one benchmark do not keep the next waiting.
Resumable: what the run log holds decides sample by sample (``benchmarks.resume``). An unscorable attempt counts as such and never as wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.comparability import Comparability
from benchmarks.result import Outcome, Result
from benchmarks.resume import Fate, Kept, Key, Recorded, as_attempt, fate, recorded
from harness.episode import Draw
from harness.errors import HarnessError, UsageError
from harness.events import Kind
from harness.records import usage
from harness.types import Attempt, Purpose, Score, Task
from judges.attempts import OutageWatch, Sampler, lost_to_outage

TEMPERATURE = 0.0  # the paper evaluates greedily, one run per task


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is evaluated, and the training state that it describes. ``scope`` keeps attempts of equally named tasks apart in a run."""

    id: str
    benchmark: str
    split: str
    model: str
    method: str
    seed: int
    step: int = 0
    generated_tokens_total: int | None = None
    comparability: Comparability = field(default_factory=lambda: Comparability(parts={}))
    scope: str = ""
    data: str = ""  # fingerprint of the question set
    epochs: int = 1
    temperature: float = TEMPERATURE
    departs: tuple[str, ...] = ()
    """In what it departs from the published benchmark (``benchmarks.departures``)."""

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
            "data": self.data,
            "epochs": self.epochs,
            "temperature": self.temperature,
            "departs": list(self.departs),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One evaluation with all that it takes."""

    evaluation: Evaluation
    tasks: Sequence[Task]
    sampler: Sampler

    def samples(self) -> Iterator[tuple[Task, Key]]:
        """Every sample, epoch by epoch."""
        for epoch in range(self.evaluation.epochs):
            for task in self.tasks:
                yield task, (task.id, epoch)


async def evaluate(part: Part, run_dir: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Result:
    """One evaluation alone."""
    return (await evaluate_all([part], run_dir, progress))[0]


async def evaluate_all(
    parts: Sequence[Part],
    run_dir: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    at_once: int = 256,
    watch: OutageWatch | None = None,
) -> list[Result]:
    """Run what the log of ``run_dir`` lacks; ``progress(finished, total)`` after each sample that was run or judged.

    The samplers' gates bound the open episodes; ``at_once`` bounds the samples under way, those that wait for a judge included. Raises
    ``HarnessError`` for what no other sample would survive (a refused key), ``OutageError`` where too many are lost to an outage
    (``watch``; without one the samplers' own settings), ``UsageError`` where the log holds one of the evaluations under other conditions;
    what was recorded until then stays.
    """
    known = recorded(run_dir)
    for part in parts:
        refuse_other_conditions(known, part.evaluation.id, part.evaluation.comparability, run_dir)
    watch = watch or OutageWatch(config=parts[0].sampler.outages) if parts else None
    runs = [_Running(part=part, known=known, watch=watch) for part in parts]
    total = sum(len(run.part.tasks) * run.part.evaluation.epochs for run in runs)
    for run in runs:
        run.start()
    jobs = ((run, task, key) for run in runs for task, key in run.missing())
    finished = total - sum(run.left for run in runs)

    async def work() -> None:
        nonlocal finished
        for run, task, key in jobs:  # one iterator for all workers: 10,000 samples are never 10,000 tasks
            if await run.one(task, key):
                finished += 1
                progress(finished, total)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, sum(run.left for run in runs))):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise first_of(errors) from errors
    if watch is not None:
        watch.check()
    return [run.finish() for run in runs]


@dataclass(slots=True, kw_only=True)
class _Running:
    """One evaluation under way."""

    part: Part
    known: Recorded
    watch: OutageWatch | None
    outcomes: dict[Key, Outcome] = field(default_factory=dict)

    def start(self) -> None:
        part, evaluation = self.part, self.part.evaluation
        for _, key in part.samples():
            kept = self.kept(key)
            if kept is not None and self.fate(kept)[0] is Fate.REUSE:
                self.outcomes[key] = kept.outcome
        part.sampler.log.record(Kind.EVALUATION, evaluation.record("started", len(part.tasks), part.sampler.judge.name))

    @property
    def left(self) -> int:
        return len(self.part.tasks) * self.part.evaluation.epochs - len(self.outcomes)

    def kept(self, key: Key) -> Kept | None:
        return self.known.sample(self.part.evaluation.id, key)

    def fate(self, kept: Kept | None) -> tuple[Fate, str]:
        return fate(kept, judge=self.part.sampler.judge.name, data=self.part.evaluation.data)

    def missing(self) -> Iterator[tuple[Task, Key]]:
        yield from ((task, key) for task, key in self.part.samples() if key not in self.outcomes)

    async def one(self, task: Task, key: Key) -> bool:
        """Run or judge one sample; False once a limit of the evaluation is reached."""
        sampler, evaluation = self.part.sampler, self.part.evaluation
        kept = self.kept(key)
        if kept is not None and self.fate(kept)[0] is Fate.REGRADE:
            score = await sampler.judged(as_attempt(task, kept))
            self._finished(key, replace(kept.outcome, value=score.value, score=score.status), score)
            return True
        if sampler.budget is not None and sampler.budget.reached:
            return False
        draw = Draw(task=task, run_seed=evaluation.seed, purpose=Purpose.EVAL, step=evaluation.step, index=key[1], scope=evaluation.scope)
        member = await sampler.attempt(draw, temperature=evaluation.temperature, evaluation_id=evaluation.id)
        self._finished(key, _outcome(member.attempt, member.score), member.score)
        return True

    def _finished(self, key: Key, outcome: Outcome, score: Score) -> None:
        self.outcomes[key] = outcome
        if self.watch is not None:
            self.watch.saw(lost_to_outage(outcome.status, score))

    def finish(self) -> Result:
        part = self.part
        reached = part.sampler.budget.reached if part.sampler.budget else None
        result = Result(
            tasks=tuple(task.id for task in part.tasks), epochs=part.evaluation.epochs, outcomes=self.outcomes, stopped_by=reached
        )
        entry = part.evaluation.record("finished", len(part.tasks), part.sampler.judge.name)
        part.sampler.log.record(Kind.EVALUATION, {**entry, "usage": result.usage(), "statuses": result.statuses()})
        return result


def _outcome(attempt: Attempt, score: Score) -> Outcome:
    spent = usage(attempt, 0.0)
    counted = {k: spent[k] for k in Outcome.COUNTED if k in spent}
    return Outcome(value=score.value, status=attempt.status, score=score.status, usage=counted, confidence=attempt.confidence)


def refuse_other_conditions(known: Recorded, evaluation_id: str, now: Comparability, run_dir: Path) -> None:
    """Raise ``UsageError`` if the log holds this evaluation under another prompt, web or limit. Data and judge are looked at by sample."""
    before = known.conditions(evaluation_id)
    differing = set(before.differing(now)) - {"data", "judge"} if before.parts else set()
    if differing:
        words = "; ".join(f"{name} was {before.parts.get(name)}, is now {now.parts.get(name)}" for name in sorted(differing))
        raise UsageError(
            f"{run_dir} holds {evaluation_id} under other conditions: {words}. Leave them as they were, or choose another --out"
        )


def first_of(errors: ExceptionGroup[Any]) -> Exception:
    """The error to show: one of ours before a bug's."""
    ours, others = errors.split(HarnessError)
    group: Any = ours or others
    while isinstance(group, ExceptionGroup):
        group = group.exceptions[0]
    assert isinstance(group, Exception)
    return group


def recorded_scores(run_dir: Path, evaluation_id: str) -> dict[str, float | None]:
    """Scores of the first epoch by task id that the run log holds for an evaluation; what could not be scored is left out."""
    samples = recorded(run_dir).samples(evaluation_id)
    return {task: kept.value for (task, epoch), kept in samples.items() if epoch == 0 and kept.value is not None}
