"""One judged, recorded attempt: the single path through which training and evaluation sample.

Same prompts, parser, budgets and judge for both, so a score in training means what it means at evaluation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from harness.budget import Budget
from harness.chat import Chat
from harness.config import Section, operational
from harness.engines.base import ChatEngine, Engine
from harness.envs.base import Env
from harness.episode import AgentConfig, Draw, run_episode
from harness.events import Kind
from harness.records import attempt_blob, attempt_record, judgement_record
from harness.types import Attempt, Member, ScoreStatus, Status, Task
from judges.base import Judge, score_attempt

T = TypeVar("T")


class OutageConfig(Section):
    """What happens when a tool or a judge is down. Nothing that an outage cut short is ever scored."""

    retries: int = operational(3, ge=0)
    """How often an episode or a judgement that met an outage is tried again."""
    pause: float = operational(10.0, ge=0)
    """Seconds before the first retry; each further pause is twice as long."""
    tolerate: float = operational(0.25, ge=0, le=1)
    """Share of a training step's attempts that may stay unscored after all retries; beyond it the run saves itself and stops."""


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
    outages: OutageConfig = field(default_factory=lambda: OutageConfig(retries=0))
    notice: Callable[[str], None] = lambda words: None
    """Told when something is down and will be tried again."""
    budget: Budget | None = None
    """What all episodes of an evaluation may spend together."""

    async def attempt(self, draw: Draw, *, temperature: float, evaluation_id: str | None = None) -> Member:
        """Run, judge and record one attempt. The record is complete before the member is returned."""
        async with self.gate:
            began = time.perf_counter()

            def episode() -> Awaitable[Attempt]:
                return run_episode(
                    draw,
                    env=self.env(draw.task),  # single use
                    engine=self.engine,
                    chat=self.chat,
                    config=self.agent,
                    temperature=temperature,
                    budget=self.budget,
                )

            attempt = await self._patiently(episode, lambda a: a.detail if a.status is Status.TOOL_OUTAGE else None)
        score = await self._patiently(
            lambda: score_attempt(self.judge, attempt), lambda s: s.detail if s.status is ScoreStatus.TRANSPORT_ERROR else None
        )
        blob = None
        if self.chat is not None:  # an endpoint's turns are text, and the event holds all of it
            blob = self.log.blob(attempt_blob(attempt, [self.chat.pieces(z.ids) for z in attempt.trajectory.spans]))
        seconds = time.perf_counter() - began
        record = attempt_record(attempt, seconds=seconds, hint=draw.guide.words(), evaluation_id=evaluation_id, blob=blob)
        self.log.record(Kind.ATTEMPT, record)
        self.log.record(Kind.JUDGEMENT, judgement_record(attempt.id, self.judge.name, score))
        return Member(attempt=attempt, score=score)

    async def _patiently(self, call: Callable[[], Awaitable[T]], outage: Callable[[T], str | None]) -> T:
        """Call until ``outage`` finds none, as often and with such pauses as are set; the last result stands, whatever it is."""
        for number in range(self.outages.retries):
            result = await call()
            if (why := outage(result)) is None:
                return result
            pause = self.outages.pause * 2**number
            self.notice(f"outage: {why or 'a back end is down'}; trying again in {pause:g} s")
            await asyncio.sleep(pause)
        return await call()


def lost_to_outage(member: Member) -> bool:
    """Whether a member has no score because a tool, the engine or the judge was down."""
    return member.score.status in (ScoreStatus.OUTAGE, ScoreStatus.TRANSPORT_ERROR)
