"""What each page shows, as documented dataclasses: the contract between the builders (board, run, sample) and the templates.

Values are ready to print, except text from models, tasks and judges, which is hostile and escaped by the templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leaderboard.transcripts import Token
from leaderboard.web.charts import BarChart, LineChart, Span, Tick
from leaderboard.web.rescue import RescueMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Words, their address, and whether that is where one stands."""

    words: str
    href: str
    current: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A difference to the base. ``kind``: up, down, or unclear (a grey chip with words)."""

    points: str
    kind: str
    words: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardCell:
    """One score in percent with its interval on the board's common scale."""

    score: str
    low: str
    high: str
    n: int
    method: str
    span: Span
    delta: Delta | None
    rank: str
    notes: tuple[str, ...]
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRow:
    """One model x method x recipe; ``cells`` follow the columns, None where nothing was measured."""

    name: str
    is_base: bool
    detail: str
    href: str
    cells: tuple[BoardCell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardGroup:
    """All rows of one model."""

    model: str
    rows: tuple[BoardRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardColumn:
    """One heading; ``fold`` unfolds the benchmark by tags or folds it again, None for a part."""

    title: str
    is_part: bool
    fold: Link | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardPage:
    """Who is better, by how much, and is that difference real?"""

    columns: tuple[BoardColumn, ...]
    groups: tuple[BoardGroup, ...]
    findings: tuple[str, ...]
    views: tuple[Link, ...]
    view: str  # "table" or "forest"
    scale: tuple[Tick, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How a run stands. ``kind``: live, finished, failed or silent; ``words`` say it, ``advice`` what to do, if anything."""

    kind: str
    words: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """A run in the list."""

    run_id: str
    href: str
    model: str
    method: str
    seed: str
    status: RunStatus
    started: str
    took: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsPage:
    """All runs, the latest first."""

    runs: tuple[RunLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that matters, above the fold."""

    title: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationLine:
    """One evaluation of a run."""

    title: str
    step: str
    score: str
    interval: str
    n: int
    judge: str
    comparability: str
    tokens: str
    right: str  # addresses of the filtered sample lists
    wrong: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting; ``default`` is None where the run did not say what its default was."""

    name: str
    value: str
    default: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosticCard:
    """One diagnostic: its title, what it found in words, its charts, and where its data lie in the run directory."""

    name: str
    title: str
    step: int
    summary: tuple[str, ...]
    charts: tuple[LineChart | BarChart, ...]
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Is it learning, and from which tasks?"""

    run_id: str
    title: str
    subtitle: str
    status: RunStatus
    error: str
    figures: tuple[Figure, ...]
    maps: tuple[RescueMap, ...]
    arrangements: tuple[Link, ...]
    charts: tuple[LineChart | BarChart, ...]
    more_charts: tuple[LineChart, ...]
    diagnostics: tuple[DiagnosticCard, ...]
    evaluations: tuple[EvaluationLine, ...]
    changed: tuple[Setting, ...]
    settings: tuple[Setting, ...]
    provenance: tuple[Setting, ...]
    samples: str
    refresh: int | None  # seconds, only while the run is live


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judgement in words. ``kind``: right, wrong, part or none."""

    kind: str
    words: str


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
class Choice:
    """A select of the filter form: its options as (value, words)."""

    name: str
    title: str
    value: str
    options: tuple[tuple[str, str], ...]


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
class TurnCard:
    """One assistant turn: thought, words, calls, and what the tools returned."""

    number: int
    thought: str
    text: str
    calls: tuple[tuple[str, str], ...]  # tool name, arguments
    results: tuple[str, ...]
    tool_errors: int
    tokens: tuple[Token, ...]
    tint: str  # CSS class of its tokens: sign and size of the advantage, size of the ratio; empty where untrained
    tokens_words: str


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
