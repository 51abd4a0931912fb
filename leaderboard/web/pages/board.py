"""The board, and what papers report."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.web.charts import Span, Tick
from leaderboard.web.pages.shared import Choice, Link


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
    unchecked: tuple[tuple[str, str], ...]  # judges behind these scores that were not calibrated, and what would do it


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
