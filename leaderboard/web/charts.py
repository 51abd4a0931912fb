"""Geometry of the server-drawn charts: lines and bars as positions in percent, so that they fit any width without a script.

Nothing here knows HTML; ``templates/charts.html`` draws these values. Lines live in a 1000 x 1000 box stretched to the plot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

BOX = 1000.0

Points = Sequence[tuple[float, float]]
MOST_ROWS = 200  # of a table: nobody reads more, and thirty charts of a thousand steps make a page slow
MOST_LABELS = 7  # more bars than this are labelled now and then, below the axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labelled place on an axis, in percent from the left or from the top."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series: an SVG path in the box, and where it ends."""

    name: str
    path: str
    end_x: float
    end_y: float
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """A chart of up to two series over training steps, or over whatever ``x`` names, with the table behind it.

    ``numbers`` are the points as JSON, a list a column of the table, null where a series has none. ``rows`` are the same as printed; of
    a long run every ``stride``-th and the last.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: str
    stride: int = 1
    x: str = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar, in percent of the plot; ``shade`` 0 to 5 picks its colour (0: the accent)."""

    x: float
    width: float
    height: float
    shade: int
    label: str
    count: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BarChart:
    """A histogram with the table behind it; ``edges`` label the bounds of bars, else every bar bears its own label."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    edges: tuple[Tick, ...]
    summary: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An interval with its estimate on a common scale, in percent from the left."""

    low: float | None
    high: float | None
    at: float


def line_chart(title: str, unit: str, series: Sequence[tuple[str, Points]], x: str = "step") -> LineChart | None:
    """A chart of the non-empty series among ``series``; None if all are empty."""
    filled = [(name, points) for name, points in series if points]
    if not filled:
        return None
    steps = sorted({s for _, points in filled for s, _ in points})
    values = [v for _, points in filled for _, v in points]
    low, high, marks = scale(min([0.0, *values]), max(values))
    first, last, stride = steps[0], steps[-1], ceil(len(steps) / MOST_ROWS)
    lines = tuple(_line(name, points, (first, last), (low, high)) for name, points in filled)
    by_name = [dict(points) for _, points in filled]
    columns = [[values.get(step) for step in steps] for values in by_name]
    listed = dict.fromkeys([*steps[::stride], last])
    return LineChart(
        title=title,
        unit=unit,
        lines=lines,
        x_ticks=_step_ticks(first, last),
        y_ticks=tuple(Tick(at=100 * (high - m) / (high - low), label=short(m)) for m in marks),
        summary=". ".join(
            f"{name}: {short(points[0][1])} at {x} {_place(points[0][0])}, {short(points[-1][1])} at {x} {_place(points[-1][0])}"
            for name, points in filled
        ),
        header=(x, *(name for name, _ in filled)),
        rows=tuple(zip(map(_place, listed), *([_cell(values.get(step)) for step in listed] for values in by_name), strict=True)),
        numbers=json.dumps([steps, *columns], separators=(",", ":")),
        stride=stride,
        x=x,
    )


def bar_chart(title: str, unit: str, labels: Sequence[str], counts: Sequence[float], shades: Sequence[int]) -> BarChart:
    """One labelled bar a category."""
    stride = -(-len(labels) // MOST_LABELS)
    marks = tuple(Tick(at=100 * (i + 0.5) / len(labels), label=label) for i, label in enumerate(labels) if i % stride == 0)
    return _bars(title, unit, labels, counts, shades, marks if stride > 1 else ())


def histogram(title: str, unit: str, edges: Sequence[float], counts: Sequence[float]) -> BarChart:
    """Bars between ``edges`` (one more than counts), drawn equally wide: edges may be logarithmic."""
    labels = [f"{short(a)} to {short(b)}" for a, b in pairwise(edges)]
    stride = max(1, (len(edges) - 1) // 5)
    marks = tuple(Tick(at=100 * i / len(counts), label=short(e)) for i, e in enumerate(edges) if i % stride == 0)
    return _bars(title, unit, labels, counts, [0] * len(counts), marks)


def span(value: float, low: float | None, high: float | None, top: float) -> Span:
    """An estimate and its interval on a scale from 0 to ``top``."""
    place = [None if v is None else 100 * max(0.0, min(v, top)) / top for v in (low, high, value)]
    return Span(low=place[0], high=place[1], at=place[2] or 0.0)


def nice_top(value: float) -> float:
    """The end of a common scale from 0 that holds fractions up to ``value`` and whose quarters are round."""
    return next((top for top in (0.1, 0.2, 0.4, 0.6, 0.8) if value <= top), 1.0)


def scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """Bounds and three to five round marks that cover ``low`` to ``high``."""
    if high <= low:
        low, high = (min(low, 0.0), max(high, 0.0)) if low != 0 else (0.0, 1.0)
    raw = (high - low) / 3
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = floor(low / step + 1e-9), -floor(-high / step + 1e-9)
    return first * step, last * step, [i * step for i in range(first, last + 1)]


def short(value: float) -> str:
    """A number for axes and tables: three significant digits, thousands separated, tiny ones as 4.1e-05."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:,.3g}M"
    if size >= 100:
        return f"{value:,.0f}"
    if size != 0 and size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3g}"


def _cell(value: float | None) -> str:
    return "" if value is None else short(value)


def _line(name: str, points: Points, steps: tuple[float, float], bounds: tuple[float, float]) -> Line:
    reach, height = (steps[1] - steps[0]) or 1.0, bounds[1] - bounds[0]
    places = [(BOX * (s - steps[0]) / reach, BOX * (bounds[1] - v) / height) for s, v in points]
    path = "M" + " L".join([f"{x:.1f} {y:.1f}" for x, y in places])
    return Line(name=name, path=path, end_x=places[-1][0] / 10, end_y=places[-1][1] / 10, last=short(points[-1][1]))


def _step_ticks(first: float, last: float) -> tuple[Tick, ...]:
    if first == last:
        return (Tick(at=0.0, label=_place(first)),)
    middle = (first + last) // 2
    inner = [middle] if first < middle < last else []
    return tuple(Tick(at=100 * (s - first) / (last - first), label=_place(s)) for s in (first, *inner, last))


def _place(x: float) -> str:
    return str(int(x)) if x == int(x) else short(x)


def _bars(
    title: str, unit: str, labels: Sequence[str], counts: Sequence[float], shades: Sequence[int], edges: tuple[Tick, ...]
) -> BarChart:
    top, total, width = max([*counts, 1.0]), sum(counts) or 1.0, 100 / max(len(counts), 1)
    bars = tuple(
        Bar(x=i * width + width * 0.08, width=width * 0.84, height=100 * c / top, shade=s, label=label, count=short(c))
        for i, (label, c, s) in enumerate(zip(labels, counts, shades, strict=True))
    )
    return BarChart(
        title=title,
        unit=unit,
        bars=bars,
        edges=edges,
        summary=", ".join(f"{label}: {short(c)}" for label, c in zip(labels, counts, strict=True)),
        header=(unit, "count", "share"),
        rows=tuple((label, short(c), f"{c / total:.1%}") for label, c in zip(labels, counts, strict=True)),
    )
