"""One episode's talk with a model, as the episode sees it: open, reply, observe. Two kinds, one per kind of engine.

``TokenConversation`` keeps every id: its record is a trajectory that can be trained on. ``TextConversation`` talks to an endpoint that
takes and gives messages: its record holds only the usage that the endpoint reported. Neither knows tools, tasks or answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from harness.chat import Chat, call_text, hermes_frame
from harness.engines.base import ChatEngine, ChatRequest, Engine, Priced, Request
from harness.envs.base import Opening
from harness.errors import ContextOverflowError, HarnessError
from harness.guide import UNGUIDED, Guide, with_hint
from harness.types import Action, FinishReason, Ids, Message, Span, Trajectory, Usage

if TYPE_CHECKING:
    from harness.episode import AgentConfig

_MARK = re.compile(r"<(?=\|[\w ]+\|>|/?(?:tool_call|tool_response|think|answer|s)>)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One assistant turn. ``cost`` is in the currency of the endpoint's prices."""

    text: str
    finish: FinishReason
    generated: int
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What remains of a conversation. ``target`` holds the contexts of the unguided view, ``teacher`` those of a teacher's, where one was
    declared; ``usage`` is what an endpoint counted or, where it takes token ids, what they cost (None without prices)."""

    trajectory: Trajectory
    target: tuple[Ids, ...]
    teacher: tuple[Ids, ...] | None = None
    usage: Usage | None = None


class Conversation(Protocol):
    """Single use; one turn at a time."""

    def open(self, opening: Opening, guide: Guide, replayed: Sequence[tuple[Action, str]]) -> None:
        """The first messages, and the tool turns that the guide had executed, with their results."""
        ...

    async def reply(self, seed: int) -> Said | None:
        """The next assistant turn, or None when the budgets leave no room for one. Raises ``EngineError``."""
        ...

    def observe(self, texts: Sequence[str], hint: str = "") -> None:
        """What the environment answers to the last turn; the hint stands behind it in the behaviour view only."""
        ...

    def spoken(self) -> Spoken: ...


def converse(
    engine: Engine | ChatEngine, chat: Chat | None, *, config: AgentConfig, temperature: float, session: str, teacher: Guide = UNGUIDED
) -> Conversation:
    """The conversation that suits an engine; those that continue token ids need the model's chat format.

    ``teacher`` declares one more view of it: what its hints would have looked like to somebody who reads along.
    """
    if isinstance(engine, ChatEngine):
        if teacher:
            raise HarnessError("an endpoint's turns are text and cannot be trained on, so nobody teaches it; use --engine hf or vllm")
        return TextConversation(engine=engine, config=config, temperature=temperature, session=session)
    if chat is None:
        raise HarnessError("an engine that continues token ids needs the model's chat format; pass chat=Chat.load(directory)")
    return TokenConversation(engine=engine, chat=chat, config=config, temperature=temperature, session=session, teacher=teacher)


@dataclass(slots=True, kw_only=True)
class TokenConversation:
    """Renders with the model's own tokenizer, for all views at once."""

    engine: Engine
    chat: Chat
    config: AgentConfig
    temperature: float
    session: str
    teacher: Guide = UNGUIDED
    _behaviour: list[Ids] = field(default_factory=list)
    _target: list[Ids] = field(default_factory=list)
    _teacher: list[Ids] = field(default_factory=list)
    _spans: list[Span] = field(default_factory=list)
    _usage: Usage | None = None

    def open(self, opening: Opening, guide: Guide, replayed: Sequence[tuple[Action, str]]) -> None:
        plain = self.chat.prompt(opening.messages, opening.tools)
        seen = self.chat.prompt(with_hint(opening.messages, guide.hint(0)), opening.tools, prefix=guide.prefix)
        given = tuple(i for action, result in replayed for i in (*self.chat.turn(call_text(action)), *self.chat.observation((result,))))
        self._behaviour.append(seen + given)
        self._target.append(plain + given if guide.keep_replay else plain)
        if self.teacher:
            self._teacher.append(self.chat.prompt(with_hint(opening.messages, self.teacher.hint(0)), opening.tools))

    async def reply(self, seed: int) -> Said | None:
        response, longest = self._used()
        room = min(self.config.response_tokens - response, self.config.context_tokens - longest)
        if room < 1:
            return None
        request = Request(ids=self._ids(), max_tokens=room, temperature=self.temperature, seed=seed, session=self.session)
        span = await self.engine.generate(request)
        self._spans.append(span)
        prompt, generated = len(request.ids), len(span.ids)
        cost = self.engine.cost(prompt, generated) if isinstance(self.engine, Priced) else None
        if cost is not None:
            usage = Usage(prompt=prompt, billed_prompt=prompt, generated=generated, retries=None, cost=cost)
            self._usage = self._usage.then(usage) if self._usage else usage
        return Said(text=self.chat.decode(span.ids), finish=span.finish, generated=generated, cost=cost or 0.0)

    def observe(self, texts: Sequence[str], hint: str = "") -> None:
        if self.teacher:
            self._teacher.append(self.chat.observation((*texts[:-1], texts[-1] + self.teacher.hint(len(self._teacher)))))
        self._target.append(self.chat.observation(texts))
        self._behaviour.append(self.chat.observation((*texts[:-1], texts[-1] + hint)))

    def spoken(self) -> Spoken:
        n = len(self._spans)
        return Spoken(
            trajectory=Trajectory(contexts=tuple(self._behaviour[:n]), spans=tuple(self._spans)),
            target=tuple(self._target[:n]),
            teacher=tuple(self._teacher[:n]) if self.teacher else None,
            usage=self._usage,
        )

    def _used(self) -> tuple[int, int]:
        """(response tokens so far, length of the longest view)."""
        sampled = sum(len(z.ids) for z in self._spans)
        response = sampled + sum(len(c) for c in self._target[1:])
        return response, sampled + max(sum(map(len, view)) for view in (self._behaviour, self._target, self._teacher))

    def _ids(self) -> Ids:
        pending = self._behaviour[len(self._spans) :]
        done = tuple(i for c, z in zip(self._behaviour, self._spans, strict=False) for i in (*c, *z.ids))
        return done + tuple(i for c in pending for i in c)


@dataclass(slots=True, kw_only=True)
class TextConversation:
    """Sends messages. Budgets follow the endpoint's own counts, so an observation counts from the request that carries it."""

    engine: ChatEngine
    config: AgentConfig
    temperature: float
    session: str
    _messages: list[Message] = field(default_factory=list)
    _first: int = 0  # prompt tokens of the first request
    _length: int = 0  # prompt and reply of the last request
    _usage: Usage = field(default_factory=Usage)

    def open(self, opening: Opening, guide: Guide, replayed: Sequence[tuple[Action, str]]) -> None:
        if guide:
            raise HarnessError("an endpoint's turns are text and cannot be trained on, so it is never guided; use --engine hf or vllm")
        self._messages.extend(hermes_frame(opening.messages, opening.tools))

    async def reply(self, seed: int) -> Said | None:
        response = self.config.response_tokens - (self._length - self._first)
        context = self.config.context_tokens - self._length
        if min(response, context) < 1:
            return None
        request = ChatRequest(
            messages=tuple(self._messages),
            max_tokens=response if response < context else None,  # where the context ends is the endpoint's to say: it knows the prompt
            temperature=self.temperature,
            seed=seed,
            session=self.session,
        )
        try:
            answer = await self.engine.chat(request)
        except ContextOverflowError:
            return None
        self._messages.append({"role": "assistant", "content": answer.text})
        self._first = self._first or answer.usage.prompt
        self._length = answer.usage.prompt + answer.usage.generated
        self._usage = self._usage.then(answer.usage)
        return Said(text=answer.text, finish=answer.finish, generated=answer.usage.generated, cost=answer.usage.cost or 0.0)

    def observe(self, texts: Sequence[str], hint: str = "") -> None:
        self._messages.extend(hermes_frame([{"role": "tool", "content": _inert(text)} for text in texts], ()))

    def spoken(self) -> Spoken:
        return Spoken(trajectory=Trajectory(contexts=(), spans=()), target=(), usage=self._usage)


def _inert(text: str) -> str:
    """Tool output with marks broken up that could end a turn, forge another or pass for a call: the endpoint's tokenizer is not known."""
    return _MARK.sub("<\u200b", text)
