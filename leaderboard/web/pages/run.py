"""The list of runs, and one of them."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.web.charts import BarChart, LineChart
from leaderboard.web.pages.shared import Link
from leaderboard.web.rescue import RescueMap


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
    departs: str  # why no published result compares with it; empty where one does
    coverage: str
    bounds: str  # the score if every question without a verdict, and every truncated one, were wrong, and if it were right
    tokens: str
    right: str  # addresses of the filtered sample lists
    wrong: str
    none: str  # those without a verdict


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
    signed: tuple[str, str] | None  # by which key the bundle was signed that it came in, and the day; None for a run of this board's own
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
