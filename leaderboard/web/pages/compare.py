"""Two runs question by question, and two attempts turn by turn."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.web.pages.sample import TurnCard
from leaderboard.web.pages.shared import Choice, Link, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How a pair of runs did on the questions of one tag value, or on all."""

    name: str
    n: int
    a: str
    b: str
    wins: int
    losses: int
    ties: int
    delta: str
    p: str
    adjusted: str  # p corrected over the parts, empty for the whole


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLine:
    """One question that both runs answered."""

    task_id: str
    question: str
    tags: str
    a: Verdict
    b: Verdict
    answer_a: str
    answer_b: str
    href_a: str
    href_b: str
    diff: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePage:
    """Is A better than B, and on which questions?"""

    choices: tuple[Choice, ...]
    a: Link | None
    b: Link | None
    where: str
    headline: str
    sentence: str
    caution: str
    bar: tuple[tuple[str, float, int], ...]  # wins, ties, losses: kind, width in percent, count
    tallies: tuple[Tally, ...]
    filters: tuple[Link, ...]
    lines: tuple[PairLine, ...]
    counted: str
    earlier: str | None
    later: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffSide:
    """One of two attempts: where it is, how it was judged."""

    title: str
    href: str
    verdict: Verdict
    answer: str
    hint: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffTurn:
    """One turn of both attempts side by side, None where one had ended. ``kind``: same, first (they part here) or after."""

    number: int
    kind: str
    a: TurnCard | None
    b: TurnCard | None
    shared: str  # how the sampled text of both begins, in the turn where they part


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPage:
    """Where do two attempts at one task part?"""

    task_id: str
    question: str
    same_task: bool
    a: DiffSide
    b: DiffSide
    parting: str
    turns: tuple[DiffTurn, ...]
    missing: str
