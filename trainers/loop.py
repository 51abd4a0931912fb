"""The training loop: collect, credit, update, sync, record. It names no algorithm, no engine and no rank.

One step:
    tasks -> algorithm.collect (rollouts with the current weights) -> groups
    groups -> algorithm.credit -> samples, in mini-batches of whole tasks
    learner.update -> new weights -> engine.sync
Only the orchestrating process runs this file. Blocking learner calls live on one thread of their own, so that the event loop never
waits for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from harness.engines.base import Capability, Engine
from harness.errors import HarnessError, OutageError
from harness.events import Kind
from harness.records import group_record
from harness.types import Group, Ids, Task, Trajectory
from judges.attempts import Sampler, lost_to_outage, too_much_lost
from trainers.checkpoints import Best, Checkpoints
from trainers.learner.base import Learner, TrainingDiverged, UpdateReport
from trainers.objectives.base import Stream
from trainers.phases import Material, Phase, Timeline
from trainers.report import Spent, credit_record, step_record
from trainers.rollouts import StepRollouts
from trainers.sample import Batch, Sample
from trainers.state import RunState, tasks_of_step

T = TypeVar("T")


class Log(Protocol):
    def record(self, kind: Kind, payload: Mapping[str, Any]) -> object: ...

    def blob(self, data: Mapping[str, Any]) -> Mapping[str, Any]: ...

    def sync(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long, how much at a time, and when to stop and look. ``evaluate_every`` 0 evaluates only at the end."""

    steps: int
    tasks_per_step: int
    minibatch_tasks: int
    checkpoint_every: int
    evaluate_every: int = 0
    token_budget: int | None = None
    seed: int = 0

    def ended(self, state: RunState) -> bool:
        """All steps are done, or the budget of generated tokens (probes counted) is spent."""
        return state.step >= self.steps or (self.token_budget is not None and state.generated_tokens >= self.token_budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The parts of one run, already built."""

    timeline: Timeline
    tasks: Mapping[Material, Sequence[Task]]
    sampler: Sampler
    learner: Learner
    engine: Engine
    context: int  # longest sequence that the engine takes, in tokens
    log: Log
    schedule: Schedule
    checkpoints: Checkpoints
    evaluate: Callable[[RunState], Awaitable[float | None]]
    """Evaluates the weights that the engine holds; returns the score on validation tasks, None where there are none."""
    progress: Callable[[RunState, Mapping[str, float]], None]
    denominator: Literal["engine", "learner"] = "engine"
    """Whose log-probabilities the ratio is taken against: those of sampling, or the learner's, recomputed before the update."""


async def train(run: Training, state: RunState) -> RunState:
    """Run from ``state`` to the end of the schedule; a last checkpoint and a last evaluation are always made."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="learner") as thread:
        stepper = _Stepper(run, thread)
        await stepper.sync()
        while not run.schedule.ended(state):
            if state.step in run.timeline.starts:
                await stepper.begin_phase(state)
            state = await stepper.step(state)
            last = run.schedule.ended(state)
            if last or state.step % run.schedule.checkpoint_every == 0 or state.step in run.timeline.starts:
                await stepper.checkpoint(state)
            if last or (run.schedule.evaluate_every and state.step % run.schedule.evaluate_every == 0):
                await stepper.keep_if_best(state, await run.evaluate(state))
    return state


class _Stepper:
    """One run's parts with the thread that its learner lives on."""

    def __init__(self, run: Training, thread: ThreadPoolExecutor) -> None:
        self._run = run
        self._thread = thread

    async def _on_learner(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def sync(self) -> None:
        """Hand the learner's weights to the engine and check that they arrived, byte for byte."""
        learner, engine = self._run.learner, self._run.engine
        sent = await self._on_learner(learner.checksum)
        weights = await self._on_learner(lambda: list(learner.weights()))
        if not all(bool(tensor.isfinite().all()) for _, tensor in weights):
            raise TrainingDiverged(f"update {learner.version} left weights that are not finite; {self._kept()}")
        loaded = await engine.sync(weights, learner.version)
        if loaded != sent:
            raise HarnessError(f"the engine holds other weights than the learner after sync {learner.version} ({loaded} against {sent})")

    async def begin_phase(self, state: RunState) -> None:
        """Start over from the checkpoint of this very step, which the last step of the phase before has made."""
        folder, phase = self._run.checkpoints.path(state.step) / "hf", self._run.timeline.at(state.step)
        await self._on_learner(lambda: self._run.learner.restart(folder, phase.lr))
        await self.sync()

    async def step(self, state: RunState) -> RunState:
        run, schedule = self._run, self._run.schedule
        phase = run.timeline.at(state.step)
        began = time.perf_counter()
        tasks = tasks_of_step(run.tasks[phase.material], schedule.seed, state.step, schedule.tasks_per_step)
        try:
            groups = await self._collect(phase, tasks, state.step)
        except HarnessError as error:  # a judge's key was withdrawn, say: no other attempt would fare better
            raise HarnessError(f"step {state.step + 1}: {error}. {await self._save(state)}") from error
        await self._stop_at_outage(state, groups)
        self._refuse_stale(groups)
        rolled = time.perf_counter()
        samples, objective = phase.algorithm.credit(groups), phase.algorithm.objective()
        mismatch = await self._mismatch(groups)
        if run.denominator == "learner" and Stream.BEHAVIOUR in objective.streams:
            samples = await self._recomputed(samples, groups)
        batch = Batch(
            minibatches=_minibatches(samples, tasks, schedule.minibatch_tasks),
            objective=objective,
            temperature=run.sampler.agent.temperature,
        )
        report = await self._update(batch) if batch.minibatches else None
        updated = time.perf_counter()
        if report is not None:
            await self.sync()
            mismatch += await self._rescored(samples)
        spent = Spent(rollout=rolled - began, update=updated - rolled, sync=time.perf_counter() - updated)
        return self._record(state, groups, samples, report, mismatch, spent)

    async def checkpoint(self, state: RunState) -> None:
        entry = await self._on_learner(lambda: self._run.checkpoints.save(state, self._run.learner))
        self._run.log.record(Kind.CHECKPOINT, entry)
        self._run.log.sync()

    async def keep_if_best(self, state: RunState, score: float | None) -> None:
        """Keep these weights if no earlier ones did better on validation tasks (of equals, the earliest); a benchmark has no say in it."""
        checkpoints = self._run.checkpoints
        best = checkpoints.best()
        if score is None or (best is not None and score <= best.score):
            return
        if checkpoints.path(state.step) not in checkpoints.complete():
            await self.checkpoint(state)
        checkpoints.mark_best(Best(step=state.step, score=score))
        self._run.log.record(Kind.BEST, {"step": state.step, "score": score})

    async def _collect(self, phase: Phase, tasks: Sequence[Task], step: int) -> list[Group]:
        rollouts = StepRollouts(sampler=self._run.sampler, run_seed=self._run.schedule.seed, step=step)
        found = {group.task.id: group async for group in phase.algorithm.collect(tasks, rollouts)}
        return [found[task.id] for task in tasks if task.id in found]  # the order of arrival must not reach the update

    async def _stop_at_outage(self, state: RunState, groups: Sequence[Group]) -> None:
        """End the run, saved as it stood before this step, where too much of the step was lost to an outage."""
        drawn = [m for g in groups for m in (*g.members, *g.discarded)]
        lost = [why for m in drawn if (why := lost_to_outage(m.attempt.status, m.score)) is not None]
        words = too_much_lost(lost, len(drawn), f"step {state.step + 1}", self._run.sampler.outages)
        if words is None:
            return
        raise OutageError(f"{words}; nothing was trained on them. {await self._save(state)}")

    def _refuse_stale(self, groups: Sequence[Group]) -> None:
        """Every span must be of the weights that the last sync brought; those of an engine that fell behind would be trained as fresh."""
        drawn = [m.attempt for g in groups for m in (*g.members, *g.discarded)]
        stale = {a.id: z.version for a in drawn for z in a.trajectory.spans if z.version != self._run.learner.version}
        if stale:
            attempt, version = next(iter(stale.items()))
            raise HarnessError(
                f"{len(stale)} of {len(drawn)} attempts hold tokens of other weights than the {self._run.learner.version} updates made: "
                f"{attempt} has some of update {version}; the engine did not take up a sync"
            )

    async def _save(self, state: RunState) -> str:
        """Make a checkpoint of the state that the last whole step left, unless there is one; says how to go on."""
        found = self._run.checkpoints.latest()
        if found is None or found[1].step != state.step:
            await self.checkpoint(state)
        return "The run is saved as it stood before that step: mend what is down, then add --resume to the same command"

    async def _update(self, batch: Batch) -> UpdateReport:
        try:
            return await self._on_learner(lambda: self._run.learner.update(batch))
        except TrainingDiverged as error:
            raise TrainingDiverged(f"{error}; {self._kept()}") from error

    def _kept(self) -> str:
        found = self._run.checkpoints.latest()
        return f"the last good checkpoint is {found[0]}" if found else "no checkpoint had been made yet"

    async def _mismatch(self, groups: Sequence[Group], rows: int = 4) -> list[float]:
        """|engine - learner| log-probability of each sampled token of a few fresh trajectories, in the view they were sampled in."""
        attempts = [m.attempt for group in groups for m in group.members if m.attempt.trajectory.spans]
        chosen = [a.trajectory for a in attempts[:: max(1, len(attempts) // rows)][:rows]]
        if not chosen:
            return []
        learned = await self._learned(chosen)
        return [
            abs(theirs - ours)
            for trajectory, row in zip(chosen, learned, strict=True)
            for theirs, ours in zip(trajectory.behaviour_logprobs(), row, strict=True)
        ]

    async def _rescored(self, samples: Sequence[Sample], rows: int = 4, tokens: int = 1024) -> list[float]:
        """The same after a sync, at temperature 1, of a few rows just trained, which the engine scores.

        It covers the last sync, which no rollout follows, and phases that draw none. Few ``tokens`` in all: for each of them an engine may
        hold logits over its whole vocabulary.
        """
        engine, begun = self._run.engine, list[tuple[Ids, Sequence[bool]]]()
        if Capability.SCORE not in engine.capabilities:
            return []
        for sample in sorted(samples, key=lambda sample: len(sample.ids))[:rows]:
            cut = min(tokens, self._run.context - 1)  # vLLM wants room for one more token
            if cut < 2:
                break
            begun.append((sample.ids[:cut], sample.mask[1:cut]))
            tokens -= min(cut, len(sample.ids))
        if not begun:
            return []
        theirs = await engine.score([ids for ids, _ in begun])
        ours = await self._on_learner(lambda: self._run.learner.logprobs([ids for ids, _ in begun], 1.0))
        return [
            abs(a - b)
            for (_, mask), row, other in zip(begun, theirs, ours, strict=True)
            for a, b, sampled in zip(row, other, mask, strict=True)
            if sampled
        ]

    async def _recomputed(self, samples: Sequence[Sample], groups: Sequence[Group]) -> list[Sample]:
        """The samples with the learner's log-probabilities, in the view they were sampled in, for denominators."""
        sampled = {m.attempt.id: m.attempt.trajectory for group in groups for m in group.members}
        learned = await self._learned([sampled[sample.attempt_id] for sample in samples])
        return [replace(sample, behaviour=row) for sample, row in zip(samples, learned, strict=True)]

    async def _learned(self, trajectories: Sequence[Trajectory]) -> list[tuple[float, ...]]:
        """The learner's log-probability of each sampled token, in the view given."""
        temperature = self._run.sampler.agent.temperature
        rows = await self._on_learner(lambda: self._run.learner.logprobs([t.ids() for t in trajectories], temperature))
        return [
            tuple(p for p, sampled in zip(row, trajectory.sampled_mask()[1:], strict=True) if sampled)
            for trajectory, row in zip(trajectories, rows, strict=True)
        ]

    def _record(
        self, state: RunState, groups: list[Group], samples: list[Sample], report: UpdateReport | None, mismatch: list[float], spent: Spent
    ) -> RunState:
        groups = [group for group in groups if group.members]  # demonstrations were not drawn, and have no outcome
        for group in groups:
            self._run.log.record(Kind.GROUP, group_record(group))
        drawn = sum(m.attempt.trajectory.sampled_tokens for g in groups for m in (*g.members, *g.discarded))
        after = replace(
            state,
            step=state.step + 1,
            generated_tokens=state.generated_tokens + drawn,
            trained_tokens=state.trained_tokens + sum(len(s.behaviour) for s in samples),
        )
        self._run.log.record(Kind.CREDIT, credit_record(state.step, samples, report, self._run.log.blob))
        entry = step_record(state.step, groups, samples, report, mismatch, spent, after.generated_tokens)
        self._run.log.record(Kind.STEP, entry)
        self._run.progress(after, entry["metrics"])
        return after


def _minibatches(samples: Sequence[Sample], tasks: Sequence[Task], size: int) -> tuple[tuple[Sample, ...], ...]:
    """Samples of ``size`` tasks at a time, in the order of the tasks; a mini-batch without samples is no update."""
    chunk = {task.id: number // size for number, task in enumerate(tasks)}
    batches: dict[int, list[Sample]] = {}
    for sample in samples:
        batches.setdefault(chunk[sample.group_id], []).append(sample)
    return tuple(tuple(batches[number]) for number in sorted(batches))
