"""Diagnostics of a run as cards with server-drawn charts. What they mean is said by the command that made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leaderboard.records import DiagnosticInfo
from leaderboard.web.charts import BarChart, LineChart, bar_chart, line_chart
from leaderboard.web.pages.run import DiagnosticCard


def card(info: DiagnosticInfo) -> DiagnosticCard:
    """The card of one diagnostic; a chart without any point is left out."""
    drawn = (_chart(plain) for plain in info.charts)
    charts = tuple(chart for chart in drawn if chart is not None)
    return DiagnosticCard(name=info.name, title=info.title, step=info.step, summary=info.summary, charts=charts, file=info.file)


def _chart(plain: Mapping[str, Any]) -> LineChart | BarChart | None:
    if plain["kind"] == "lines":
        series = [(s["name"], [(x, y) for x, y in s["points"]]) for s in plain["series"]]
        return line_chart(plain["title"], plain["y"], series, x=plain["x"])
    counts = [y for _, y in plain["series"][0]["points"]]
    return bar_chart(plain["title"], f"{plain['y']} by {plain['x']}", plain["labels"], counts, [0] * len(counts)) if counts else None
