"""One judged, recorded attempt: the single path through which training and evaluation sample.

Same prompts, parser, budgets and judge for both, so a score in training means what it means at evaluation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.budget import Budget
from harness.chat import Chat
from harness.engines.base import ChatEngine, Engine
from harness.envs.base import Env
from harness.episode import AgentConfig, Draw, run_episode
from harness.events import Kind
from harness.records import attempt_blob, attempt_record, judgement_record
from harness.types import Member, Task
from judges.base import Judge, score_attempt


class Log(Protocol):
    """The part of the recorder that is needed here."""

    def record(self, kind: Kind, payload: Mapping[str, Any]) -> object: ...

    def blob(self, data: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Runs episodes of one run: its engine, environment, judge and log."""

    engine: Engine | ChatEngine
    chat: Chat | None  # None where the engine takes messages
    env: Callable[[Task], Env]
    judge: Judge
    agent: AgentConfig
    log: Log
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1024))
    """How many episodes may be open at once; as many as the engine has slots keeps every open episode's cache."""
    budget: Budget | None = None
    """What all episodes of an evaluation may spend together."""

    async def attempt(self, draw: Draw, *, temperature: float, evaluation_id: str | None = None) -> Member:
        """Run, judge and record one attempt. The record is complete before the member is returned."""
        async with self.gate:
            began = time.perf_counter()
            attempt = await run_episode(
                draw,
                env=self.env(draw.task),
                engine=self.engine,
                chat=self.chat,
                config=self.agent,
                temperature=temperature,
                budget=self.budget,
            )
        score = await score_attempt(self.judge, attempt)
        blob = None
        if self.chat is not None:  # an endpoint's turns are text, and the event holds all of it
            blob = self.log.blob(attempt_blob(attempt, [self.chat.pieces(z.ids) for z in attempt.trajectory.spans]))
        seconds = time.perf_counter() - began
        record = attempt_record(attempt, seconds=seconds, hint=draw.guide.words(), evaluation_id=evaluation_id, blob=blob)
        self.log.record(Kind.ATTEMPT, record)
        self.log.record(Kind.JUDGEMENT, judgement_record(attempt.id, self.judge.name, score))
        return Member(attempt=attempt, score=score)
