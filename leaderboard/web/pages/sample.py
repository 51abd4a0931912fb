"""The attempts of a run, and one of them turn by turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leaderboard.web.pages.shared import Choice, Link, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLine:
    """An attempt in the list."""

    href: str
    question: str
    task_id: str
    tags: str
    place: str
    answer: str
    gold: str
    verdict: Verdict
    turns: str
    tokens: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesPage:
    """The attempts of a run that pass a filter, one page of them."""

    run_id: str
    run_href: str
    title: str
    choices: tuple[Choice, ...]
    hidden: Mapping[str, str]  # further filters that the form keeps
    samples: tuple[SampleLine, ...]
    counted: str
    earlier: str | None
    later: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMark:
    """One sampled token as it is drawn: ``tint`` are its CSS classes (sign and size of the advantage, size of the ratio)."""

    id: int
    text: str
    logprob: str
    advantage: str
    ratio: str
    tint: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCard:
    """One assistant turn: thought, words, calls, and what the tools returned."""

    number: int
    thought: str
    text: str
    calls: tuple[tuple[str, str], ...]  # tool name, arguments
    results: tuple[str, ...]
    tool_errors: int
    tokens: tuple[TokenMark, ...]
    trained: bool
    tokens_words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherVerdict:
    """What another judge, or the same one before a regrade, said."""

    judge: str
    layer: str
    verdict: Verdict
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePage:
    """What did the agent do, and why was it judged so?"""

    run_id: str
    run_href: str
    list_href: str
    attempt_id: str
    question: str
    facts: tuple[tuple[str, str], ...]
    verdict: Verdict
    answer: str | None
    gold: tuple[str, ...] | None  # None: hidden
    layer: str
    judge: str
    judge_words: str
    status: str
    hint: str
    turns: tuple[TurnCard, ...]
    credit: str
    missing: str
    hidden: bool  # a gated set: no text of the question, the conversation, the answers or the judge
    others: tuple[OtherVerdict, ...]
    diffs: tuple[Link, ...]
