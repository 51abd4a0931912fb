"""Figures as data: what a diagnostic found, drawn as a PNG by ``harness.plots`` and as SVG by the run's page. Pure, no plotting here.

The plain form (``to_plain``) travels in the run log, so that the page shows what the command showed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from harness.errors import HarnessError


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One named line, or one set of bars, as (x, y) points in the order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One panel. ``bars`` may hold one series; bins of a histogram stand at their index with ``labels`` naming them.

    >>> chart = Chart(title="Pass@32", x="turn", y="share of tasks", series=(Series(name="pass@32", points=((0, .25), (1, 1.0))),))
    >>> chart.to_plain()["series"]
    [{'name': 'pass@32', 'points': [[0, 0.25], [1, 1.0]]}]
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    kind: Literal["lines", "bars"] = "lines"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "bars" and (len(self.series) != 1 or len(self.labels) != len(self.series[0].points)):
            raise HarnessError(f"chart {self.title!r}: bars need one series with one label each")

    def to_plain(self) -> dict[str, Any]:
        """JSON data; points that are not finite are left out."""
        series = [{"name": s.name, "points": [[x, y] for x, y in s.points if isfinite(x) and isfinite(y)]} for s in self.series]
        return {"title": self.title, "x": self.x, "y": self.y, "kind": self.kind, "labels": list(self.labels), "series": series}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one diagnostic: words for a terminal, charts for the eye, ``data`` for programs.

    ``step`` counts the training steps behind the weights that were diagnosed.
    """

    name: str
    title: str
    step: int
    summary: tuple[str, ...]
    charts: tuple[Chart, ...]
    data: Mapping[str, Any]

    def event(self, file: str) -> dict[str, Any]:
        """Payload of the run log's ``diagnostic`` event; ``file`` is where ``data`` lies, below the run directory."""
        return {
            "name": self.name,
            "title": self.title,
            "step": self.step,
            "summary": list(self.summary),
            "charts": [chart.to_plain() for chart in self.charts],
            "file": file,
        }


def bars(title: str, x: str, y: str, counts: Sequence[tuple[str, float]]) -> Chart:
    """One labelled bar a category or bin."""
    points = tuple((float(i), float(count)) for i, (_, count) in enumerate(counts))
    return Chart(title=title, x=x, y=y, kind="bars", series=(Series(name=y, points=points),), labels=tuple(label for label, _ in counts))
