"""What each page shows, as documented dataclasses: the contract between the builders and the templates.

Values are ready to print, except text from models, tasks and judges, which is hostile and escaped by the templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    """A difference to the base. ``kind``: up, down, or unclear (a grey chip with words). ``gap``: what such a study would find."""

    points: str
    kind: str
    words: str
    gap: str  # in points, empty where nothing is known of it
    gap_words: str
    sentence: str
    href: str  # the comparison question by question, empty where there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardCell:
    """One score in percent with its interval on the board's common scale; ``n`` is None for a reported score."""

    score: str
    low: str
    high: str
    n: int | None
    method: str
    span: Span
    delta: Delta | None
    rank: str
    best: bool
    notes: tuple[str, ...]
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRow:
    """One model x method x recipe, or a row that a paper reports; ``cells`` follow the columns, None where nothing was measured."""

    name: str
    is_base: bool
    reported: bool
    detail: str
    href: str
    cells: tuple[BoardCell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardGroup:
    """Rows under one heading: a model, or a ranking."""

    title: str
    rows: tuple[BoardRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSpan:
    """A benchmark over ``width`` columns, with the links that unfold it by a tag or fold it again."""

    title: str
    width: int
    folds: tuple[Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardColumn:
    """One heading; ``sort`` is the address of the board sorted by it, ``order`` how it is sorted now."""

    title: str
    name: str
    is_part: bool
    order: str  # "none", "ascending" or "descending"
    sort: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardPage:
    """Who is better, by how much, and is that difference real?"""

    spans: tuple[BoardSpan, ...]
    columns: tuple[BoardColumn, ...]
    groups: tuple[BoardGroup, ...]
    findings: tuple[str, ...]
    views: tuple[Link, ...]
    view: str  # "table" or "forest"
    choices: tuple[Choice, ...]
    hidden: tuple[tuple[str, str], ...]  # the rest of the query, which the filter form keeps
    reset: str | None
    unsorted: str | None
    scale: tuple[Tick, ...]
    has_any: bool
    has_reported: bool
    without_reported: str
    unchecked: tuple[str, ...]  # judges behind these scores that were not calibrated


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedLine:
    """One row that a paper reports, a text a column."""

    model: str
    method: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedSheet:
    """One of the paper's tables."""

    table: str
    title: str
    spans: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: tuple[ReportedLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedPage:
    """What the paper reports, for reference."""

    source: str
    address: str
    note: str
    sheets: tuple[ReportedSheet, ...]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeLine:
    """One judge: how far it was checked against known answers, and what it did here."""

    name: str
    verdicts: str
    accepted: str
    undecided: str
    false_accepts: str
    false_rejects: str
    cases: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementLine:
    """Two judges on the same attempts."""

    a: str
    b: str
    n: int
    both_right: int
    both_wrong: int
    only_a: int
    only_b: int
    agreement: str
    kappa: str
    bar: tuple[tuple[str, float, int], ...]
    examples: tuple[Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgesPage:
    """Can the judges be believed?"""

    judges: tuple[JudgeLine, ...]
    agreements: tuple[AgreementLine, ...]


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
    """Runs, the latest first, one page of them."""

    runs: tuple[RunLine, ...]
    earlier: str | None
    later: str | None


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
    compare: str
    refresh: int | None  # seconds, only while the run is live
    events: str | None  # address of the server-sent events that follow the run, only while it is live
    log: tuple[str, ...]  # its last lines, the newest last


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
