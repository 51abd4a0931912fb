"""One judged, recorded attempt: the single path through which training and evaluation sample.

Same prompts, parser, budgets and judge for both, so a score in training means what it means at evaluation.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from harness.budget import Budget
from harness.chat import Chat
from harness.config import Section, operational
from harness.engines.base import ChatEngine, Engine
from harness.envs.base import Env
from harness.episode import AgentConfig, Draw, run_episode
from harness.errors import OutageError
from harness.events import Kind
from harness.records import attempt_blob, attempt_record, judgement_record
from harness.types import Attempt, Member, Score, ScoreStatus, Status, Task
from harness.wording import plural
from judges.base import Judge, score_attempt

T = TypeVar("T")

WINDOW = 32
"""Finished samples over which an evaluation looks back for an outage."""


class OutageConfig(Section):
    """What happens when a tool or a judge is down. Nothing that an outage cut short is ever scored."""

    retries: int = operational(3, ge=0)
    """How often an episode or a judgement that met an outage is tried again, beyond what the client of the back end tries by itself (that
    of a judge behind a URL for 5 minutes; of a model: endpoint.retries and endpoint.patience, and then its episode is not tried again)."""
    pause: float = operational(10.0, ge=0)
    """Seconds before the first retry; each further pause is twice as long."""
    tolerate: float = operational(0.25, ge=0, le=1)
    """Share of the attempts of a training step, or of the last 32 samples of an evaluation (or a regrading), that an outage may leave
    unscored after all retries; beyond it the run saves itself and stops."""


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
    outages: OutageConfig = field(default_factory=lambda: OutageConfig(retries=0, tolerate=1.0))
    notice: Callable[[str], None] = lambda words: None
    """Told when something is down and will be tried again."""
    budget: Budget | None = None
    """What all episodes of an evaluation may spend together."""

    async def attempt(self, draw: Draw, *, temperature: float, evaluation_id: str | None = None) -> Member:
        """Run, record and judge one attempt; a judge that fails takes no episode away. All is recorded before the member is returned."""
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

            attempt = await patiently(episode, lambda a: a.detail if a.status is Status.TOOL_OUTAGE else None, self.outages, self.notice)
            seconds = time.perf_counter() - began
        blob = None
        if self.chat is not None:  # an endpoint's turns are text, and the event holds all of it
            blob = self.log.blob(attempt_blob(attempt, [self.chat.pieces(z.ids) for z in attempt.trajectory.spans]))
        record = attempt_record(attempt, seconds=seconds, hint=draw.guide.words(), evaluation_id=evaluation_id, blob=blob)
        self.log.record(Kind.ATTEMPT, record)
        return Member(attempt=attempt, score=await self.judged(attempt))

    async def judged(self, attempt: Attempt) -> Score:
        """Judge and record the judgement."""
        score = await judged_patiently(lambda: score_attempt(self.judge, attempt), self.outages, self.notice)
        self.log.record(Kind.JUDGEMENT, judgement_record(attempt.id, self.judge.name, score))
        return score


async def judged_patiently(ask: Callable[[], Awaitable[Score]], config: OutageConfig, notice: Callable[[str], None]) -> Score:
    """A judge's score, asked for again while the judge is down."""
    return await patiently(ask, lambda score: score.detail if score.status is ScoreStatus.TRANSPORT_ERROR else None, config, notice)


async def patiently(
    call: Callable[[], Awaitable[T]], outage: Callable[[T], str | None], config: OutageConfig, notice: Callable[[str], None]
) -> T:
    """Call until ``outage`` finds none, as often and with such pauses as are set; the last result stands, whatever it is."""
    for number in range(config.retries):
        result = await call()
        if (why := outage(result)) is None:
            return result
        pause = config.pause * 2**number
        notice(f"outage: {why or 'a back end is down'}; trying again in {pause:g} s")
        await asyncio.sleep(pause)
    return await call()


@dataclass(slots=True, kw_only=True)
class OutageWatch:
    """Ends an evaluation where an outage takes too many of the last ``WINDOW`` finished samples, or of all where there are fewer."""

    config: OutageConfig
    saved: str = "Everything that was finished is saved"
    """What the one who is told of the stop need not fear for."""
    _recent: deque[str | None] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def saw(self, lost: str | None) -> None:
        """A sample is finished; ``lost`` says which outage took its score, None if none did. Raises ``OutageError``."""
        self._recent.append(lost)
        if len(self._recent) == WINDOW:
            self.check()

    def check(self) -> None:
        """Raises ``OutageError`` if too much was lost; for the end, when no more samples come."""
        words = too_much_lost([why for why in self._recent if why is not None], len(self._recent), "the last samples", self.config)
        if words:
            raise OutageError(
                f"{words}. {self.saved}: mend what is down, then give the same command again "
                "(to `harness run` add --resume), or accept such losses with --set outage.tolerate=1"
            )


def too_much_lost(lost: Sequence[str], drawn: int, what: str, config: OutageConfig) -> str | None:
    """In words that outages took more of ``drawn`` attempts than is tolerated, None if they did not. ``lost`` holds the reasons."""
    if not lost or len(lost) <= config.tolerate * drawn:
        return None
    return f"{len(lost)} of {drawn} {plural(drawn, 'attempt')} of {what} met an outage that outlasted all retries ({lost[0]})"


def lost_to_outage(status: Status, score: Score) -> str | None:
    """Why an attempt has no score, where a tool, the engine or the judge was down; None where it has one, or a limit ended it."""
    down = status in (Status.TOOL_OUTAGE, Status.ENGINE_ERROR) or score.status is ScoreStatus.TRANSPORT_ERROR
    return (score.detail or score.layer) if down else None
