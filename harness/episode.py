"""One episode as one coroutine: render, generate, parse, act, until an answer or a budget ends it.

Every turn is rendered for all views at once: the behaviour view (what the policy saw, with its guidance if there is any) and the
target view (the same messages without it). Nothing here knows why guidance is given, who trains on the result, or how it is scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.chat import Chat, call_text, parse_turn
from harness.config import Section, identity
from harness.engines.base import Engine, Request, request_seed
from harness.envs.base import Env
from harness.errors import EngineError, HarnessError, OutageError
from harness.guide import UNGUIDED, Guide, with_hint
from harness.types import Attempt, FinishReason, Ids, Purpose, Span, Status, Task, Trajectory, Turn


class AgentConfig(Section):
    """Budgets of an episode (paper, Table 6) and how it treats a call that cannot be read."""

    max_turns: int = identity(30, ge=1)
    """Assistant turns before the episode ends without an answer."""
    response_tokens: int = identity(40_960, ge=1)
    """Tokens after the prompt, sampled and observed together."""
    context_tokens: int = identity(49_152, ge=2)
    """The model's context: prompt and response of the longest view must fit."""
    temperature: float = identity(1.0, ge=0.0)
    """Sampling temperature of training rollouts; evaluation uses its own."""
    malformed: Literal["observe", "end"] = identity("observe")
    """A call that cannot be read: show the complaint to the model, or end the episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which sample this is. The seed of every request follows from it and nothing else."""

    task: Task
    run_seed: int
    purpose: Purpose
    step: int = 0
    level: int = 0
    index: int = 0
    guide: Guide = UNGUIDED

    def __post_init__(self) -> None:
        if self.purpose is Purpose.EVAL and (self.level or self.guide):
            words = f"guidance (level {self.level}, {self.guide.words()!r})"
            raise HarnessError(f"{self.attempt_id}: {words}; evaluation is always unguided")

    @property
    def attempt_id(self) -> str:
        return f"{self.purpose}/{self.step}/{self.task.id}/k{self.level}/{self.index}"

    def seed(self, turn: int) -> int:
        return request_seed(self.run_seed, self.purpose, self.step, self.task.id, self.level, self.index, turn)


@dataclass(slots=True)
class _Transcript:
    """What has happened so far; the only mutable state of an episode."""

    behaviour: list[Ids]
    target: list[Ids]
    spans: list[Span] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def used(self) -> tuple[int, int]:
        """(response tokens so far, length of the longest view)."""
        sampled = sum(len(z.ids) for z in self.spans)
        response = sampled + sum(len(c) for c in self.target[1:])
        return response, sampled + max(sum(map(len, self.behaviour)), sum(map(len, self.target)))

    def ids(self) -> Ids:
        pending = self.behaviour[len(self.spans) :]
        done = tuple(i for c, z in zip(self.behaviour, self.spans, strict=False) for i in (*c, *z.ids))
        return done + tuple(i for c in pending for i in c)


async def run_episode(draw: Draw, *, env: Env, engine: Engine, chat: Chat, config: AgentConfig, temperature: float) -> Attempt:
    """Run one episode to its end. Outages become a status, never an exception: one bad rollout is data, not a crash."""
    transcript = _Transcript(behaviour=[], target=[])
    answer: str | None = None
    detail = ""
    try:
        await _open(draw, transcript, env=env, chat=chat)
        status, answer = await _converse(draw, transcript, env=env, engine=engine, chat=chat, config=config, temperature=temperature)
    except EngineError as error:
        status, detail = Status.ENGINE_ERROR, str(error)
    except OutageError as error:
        status, detail = Status.TOOL_OUTAGE, str(error)
    finally:
        await env.close()
    n = len(transcript.spans)
    return Attempt(
        id=draw.attempt_id,
        task=draw.task,
        purpose=draw.purpose,
        trajectory=Trajectory(contexts=tuple(transcript.behaviour[:n]), spans=tuple(transcript.spans)),
        target=tuple(transcript.target[:n]),
        turns=tuple(transcript.turns),
        status=status,
        answer=answer,
        level=draw.level,
        step=draw.step,
        index=draw.index,
        detail=detail,
    )


async def _open(draw: Draw, transcript: _Transcript, *, env: Env, chat: Chat) -> None:
    """The first context of both views: the prompt, and behind it what the guide gives."""
    opening, guide = await env.start(draw.task.public()), draw.guide
    plain = chat.prompt(opening.messages, opening.tools)
    seen = chat.prompt(with_hint(opening.messages, guide.hint(0)), opening.tools, prefix=guide.prefix)
    replayed: Ids = ()
    for action in guide.replay:
        (result,) = await env.step((action,))
        replayed += chat.turn(call_text(action)) + chat.observation((result.text,))
    transcript.behaviour.append(seen + replayed)
    transcript.target.append(plain + replayed if guide.keep_replay else plain)


async def _converse(
    draw: Draw, transcript: _Transcript, *, env: Env, engine: Engine, chat: Chat, config: AgentConfig, temperature: float
) -> tuple[Status, str | None]:
    for number in range(config.max_turns):
        response, longest = transcript.used()
        room = min(config.response_tokens - response, config.context_tokens - longest)
        if room < 1:
            return Status.TRUNCATED, None
        request = Request(
            ids=transcript.ids(),
            max_tokens=room,
            temperature=temperature,
            seed=draw.seed(number),
            session=f"{draw.run_seed}/{draw.attempt_id}",
        )
        span = await engine.generate(request)
        transcript.spans.append(span)
        text = chat.decode(span.ids)
        turn = parse_turn(text)
        if span.finish is FinishReason.LENGTH or turn.answer is not None or not (turn.actions or turn.malformed):
            transcript.turns.append(Turn(text=text))
            if span.finish is FinishReason.LENGTH:
                return Status.TRUNCATED, None
            return (Status.ANSWERED, turn.answer) if turn.answer is not None else (Status.NO_ANSWER, None)
        if turn.malformed and config.malformed == "end":
            transcript.turns.append(Turn(text=text, actions=turn.actions, tool_errors=len(turn.malformed)))
            return Status.MALFORMED, None
        results = await env.step(turn.actions)
        shown = (*(o.text for o in results), *(f"Error: {complaint}" for complaint in turn.malformed))
        errors = sum(o.error for o in results) + len(turn.malformed)
        transcript.turns.append(Turn(text=text, actions=turn.actions, observations=shown, tool_errors=errors))
        hint = draw.guide.hint(number + 1)
        transcript.target.append(chat.observation(shown))
        transcript.behaviour.append(chat.observation((*shown[:-1], shown[-1] + hint)))
    return Status.TURN_LIMIT, None
