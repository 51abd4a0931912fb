"""The nouns of the harness: tasks, actions, token-exact trajectories and their views, scores and groups.

A trajectory alternates contexts and sampled spans, ``c0 z0 c1 z1 ... c_{n-1} z_{n-1}``. Spans are the ids that the engine
sampled, with the log-probability that the behaviour policy gave them; nothing here ever re-tokenises text. A ``View`` is
a complete list of contexts for the same spans:

>>> t = Trajectory(contexts=((1, 2, 9), (5,)), spans=(Span(ids=(7, 8), logprobs=(-.1, -.2)), Span(ids=(3,), logprobs=(-.5,))))
>>> t.ids()
(1, 2, 9, 7, 8, 5, 3)
>>> t.with_prompt((1, 2)).ids()      # the unguided target view of a rollout whose prompt carried a plan (id 9)
(1, 2, 7, 8, 5, 3)
>>> t.sampled_mask()
(False, False, False, True, True, False, True)

This module deliberately imports nothing but the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from harness.errors import HarnessError

Ids = tuple[int, ...]
Message = Mapping[str, Any]
"""One chat message in the template's own form: ``{"role": "user" | "system" | "assistant" | "tool", "content": str}``."""


class FinishReason(StrEnum):
    """Why the engine stopped a span."""

    STOP = "stop"  # the model ended its turn
    LENGTH = "length"  # the token limit of this request was reached: the span is truncated


class Status(StrEnum):
    """How an episode ended. The last three say nothing of the answer: their score is None, never 0."""

    ANSWERED = "answered"
    NO_ANSWER = "no_answer"  # the model ended a turn with neither a call nor an answer
    TRUNCATED = "truncated"  # the response budget ran out inside a turn
    TURN_LIMIT = "turn_limit"
    MALFORMED = "malformed"  # a malformed call, where the agent is set to end the episode on one
    TOOL_OUTAGE = "tool_outage"
    ENGINE_ERROR = "engine_error"
    LIMIT = "limit"  # a time, token or cost limit of the evaluation ended it

    @property
    def is_outage(self) -> bool:
        """Whether the episode ended for a reason outside the agent; such an episode is run again when its evaluation is resumed."""
        return self in (Status.TOOL_OUTAGE, Status.ENGINE_ERROR, Status.LIMIT)


class ScoreStatus(StrEnum):
    """Whether a judge reached a verdict; anything but JUDGED has no value."""

    JUDGED = "judged"
    UNDECIDED = "undecided"
    PARSE_ERROR = "parse_error"
    TRANSPORT_ERROR = "transport_error"
    REFUSED = "refused"
    OUTAGE = "outage"  # the episode itself ended in an outage, nothing was judged


class Purpose(StrEnum):
    """Why an attempt was made. Guidance is legal only in PROBE (and its reuse in training)."""

    TRAIN = "train"
    PROBE = "probe"
    EVAL = "eval"


class Outcome(StrEnum):
    """What became of a training group, one cell of the rescue map."""

    SOLVED = "solved"  # some unguided member succeeded
    RESCUED = "rescued"  # only guided members succeeded, and they are part of the group
    FAILED = "failed"
    UNSCORABLE = "unscorable"  # no member has a score


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One tool call: a name and JSON arguments."""

    name: str
    arguments: Mapping[str, Any]

    def to_json(self) -> str:
        """Hermes body of a call: ``{"name": ..., "arguments": {...}}`` in the key order of the wire format."""
        return json.dumps({"name": self.name, "arguments": dict(self.arguments)}, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicTask:
    """All that an environment and an agent may see of a task."""

    id: str
    question: str
    web: str = "default"  # which corpus answers the tools
    closing: str = ""  # said after the question: how the benchmark wants the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A question with its private part: accepted answers, the expert's actions, and (optionally) the expert's full messages."""

    id: str
    question: str
    gold: tuple[str, ...]
    actions: tuple[Action, ...] = ()
    demonstration: tuple[Message, ...] = ()
    web: str = "default"
    tags: Mapping[str, str] = field(default_factory=dict)  # e.g. {"hops": "3", "split": "test"}
    closing: str = ""  # public, said after the question; no judge sees it
    sealed: bool = False  # its publisher keeps it out of plain text: question and gold are written to the run log in cipher only

    def public(self) -> PublicTask:
        return PublicTask(id=self.id, question=self.question, web=self.web, closing=self.closing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Sampled ids of one assistant turn with the behaviour policy's log-probabilities (nats, at the sampling temperature).

    ``version`` is the number of weight updates behind the engine that sampled it.
    """

    ids: Ids
    logprobs: tuple[float, ...]
    version: int = 0
    finish: FinishReason = FinishReason.STOP

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.logprobs):
            raise HarnessError(f"a span has {len(self.ids)} ids but {len(self.logprobs)} log-probabilities; they must align")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Contexts and spans of one continuous token sequence; ``contexts`` are those the behaviour policy saw."""

    contexts: tuple[Ids, ...]
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        if len(self.contexts) != len(self.spans):
            raise HarnessError(f"a trajectory needs one context per span, got {len(self.contexts)} and {len(self.spans)}")

    def with_view(self, contexts: tuple[Ids, ...]) -> Trajectory:
        """The same spans under other contexts (target, teacher): spans and log-probabilities are untouched."""
        return replace(self, contexts=contexts)

    def with_prompt(self, prompt: Ids) -> Trajectory:
        """The view in which only the first context differs."""
        return replace(self, contexts=(prompt, *self.contexts[1:]))

    def ids(self) -> Ids:
        """The whole sequence, contexts and spans in order."""
        return tuple(i for c, z in zip(self.contexts, self.spans, strict=True) for i in (*c, *z.ids))

    def sampled_mask(self) -> tuple[bool, ...]:
        """Aligned with ``ids()``: True where the token was sampled, the only tokens that may be trained."""
        return tuple(
            flag for c, z in zip(self.contexts, self.spans, strict=True) for flag in (*((False,) * len(c)), *((True,) * len(z.ids)))
        )

    def behaviour_logprobs(self) -> tuple[float, ...]:
        """Log-probabilities of the sampled tokens, spans joined: length = number of True in ``sampled_mask()``."""
        return tuple(p for z in self.spans for p in z.logprobs)

    @property
    def sampled_tokens(self) -> int:
        return sum(len(z.ids) for z in self.spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One assistant turn as text, for people and for the log; training never reads it."""

    text: str
    actions: tuple[Action, ...] = ()
    observations: tuple[str, ...] = ()
    tool_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as an endpoint counted them (of a priced one that takes token ids: as these were counted), and what they cost (None without
    prices). ``reported`` is False where it did not say."""

    prompt: int = 0  # tokens of the context, each counted once
    billed_prompt: int = 0  # prompt tokens of all requests together
    generated: int = 0
    retries: int | None = 0  # requests that were sent again; None where that was not counted
    cost: float | None = None
    reported: bool = True

    def then(self, request: Usage) -> Usage:
        """This and the next request of the same conversation, whose prompt holds all that was said before."""
        costs = [c for c in (self.cost, request.cost) if c is not None]
        return Usage(
            prompt=max(request.prompt - self.generated, self.prompt),
            billed_prompt=self.billed_prompt + request.billed_prompt,
            generated=self.generated + request.generated,
            retries=None if self.retries is None or request.retries is None else self.retries + request.retries,
            cost=sum(costs) if costs else None,
            reported=self.reported and request.reported,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What one episode produced. ``target`` holds the contexts of the unguided view; it equals the behaviour's when level is 0.

    ``teacher``, where one was declared, holds the contexts in which a teacher looks at the same spans.
    """

    id: str
    task: Task
    purpose: Purpose
    trajectory: Trajectory
    target: tuple[Ids, ...]
    turns: tuple[Turn, ...]
    status: Status
    answer: str | None
    confidence: float | None = None  # in [0, 1], where the answer stated one
    level: int = 0  # guidance level k: how many expert actions the behaviour prompt carried
    step: int = 0
    index: int = 0  # place within its group of N
    detail: str = ""  # words for an outage or a truncation
    teacher: tuple[Ids, ...] | None = None
    usage: Usage | None = None  # what an endpoint counted; None where the trajectory holds every token

    def __post_init__(self) -> None:
        if self.level and self.purpose is Purpose.EVAL:
            raise HarnessError(f"attempt {self.id}: guidance level {self.level} at evaluation; evaluation is always unguided")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A verdict in [0, 1], or None with the reason; ``layer`` names what decided (e.g. ``exact:alias``).

    ``evidence`` is what the decision can be checked with later: the judging model, the hash of its prompt, its words.
    """

    value: float | None
    status: ScoreStatus
    layer: str
    detail: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.value is None) == (self.status is ScoreStatus.JUDGED):
            raise HarnessError(f"a score has a value exactly when it was judged, got {self.value!r} with {self.status}")
        if self.value is not None and not 0 <= self.value <= 1:  # also NaN, which must not reach a mean
            raise HarnessError(f"a score lies in [0, 1], got {self.value!r} from {self.layer}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One attempt of a group with its score."""

    attempt: Attempt
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All trajectories that share one baseline. ``probes`` counts every trajectory drawn at other levels on the way.

    ``demonstrations`` are an expert's, in the form of episodes: nobody sampled them, so they have no score, and NaN for log-probabilities.
    """

    task: Task
    step: int
    members: tuple[Member, ...]
    level: int | None = None  # k*, None where guidance was not used or no level sufficed
    probes: tuple[tuple[int, bool], ...] = ()  # (level, did it suffice), in the order tried
    discarded: tuple[Member, ...] = ()  # drawn, paid for, not trained: failed probe levels, replaced groups
    delta: float = 1.0
    demonstrations: tuple[Trajectory, ...] = ()

    def best(self, guided: bool) -> float | None:
        """Best reward among guided or unguided members; None if none of them has a score."""
        everyone = (*self.members, *self.discarded)
        values = [m.score.value for m in everyone if (m.attempt.level > 0) is guided and m.score.value is not None]
        return max(values, default=None)

    @property
    def outcome(self) -> Outcome:
        unguided, guided = self.best(guided=False), self.best(guided=True)
        if unguided is None and guided is None:
            return Outcome.UNSCORABLE
        if unguided is not None and unguided >= self.delta:
            return Outcome.SOLVED
        rescued = any(m.attempt.level > 0 and m.score.value is not None and m.score.value >= self.delta for m in self.members)
        return Outcome.RESCUED if rescued else Outcome.FAILED
