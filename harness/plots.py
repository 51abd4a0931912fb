"""Charts as PNG files; the only door to matplotlib, which is imported when something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MissingDependencyError
from harness.figures import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0a6b5d", "#b3541e", "#4a5fa5", "#777777", "#8a3a73")
_PANEL = (4.2, 3.3)  # inches


def draw(charts: Sequence[Chart], path: Path, heading: str = "") -> None:
    """Write the charts side by side, three in a row. Raises ``MissingDependencyError`` without matplotlib."""
    figure, axes = panels(len(charts))
    for axis, chart in zip(axes, charts, strict=False):
        _draw(axis, chart)
    if heading:
        figure.suptitle(heading, fontsize=11)
    save(figure, path)


def panels(count: int) -> tuple[Any, list[Axes]]:
    """An empty figure with ``count`` panels, three in a row; hand it to ``save``."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError("plots need matplotlib; run `make setup` or `pip install matplotlib`") from error
    columns = min(3, max(1, count))
    rows = -(-max(1, count) // columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)  # no display, and no global state: charts may be drawn on any thread
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[:count]


def save(figure: Any, path: Path) -> None:
    """Write the figure whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, dpi=150, format="png")
    partial.replace(path)


def _draw(axis: Axes, chart: Chart) -> None:
    axis.set_title(chart.title, fontsize=10)
    axis.set_xlabel(chart.x)
    axis.set_ylabel(chart.y)
    if chart.kind == "bars":
        places, heights = [x for x, _ in chart.series[0].points], [y for _, y in chart.series[0].points]
        axis.bar(places, heights, color=COLOURS[0], width=0.84)
        stride = max(1, -(-len(places) // 8))
        axis.set_xticks(places[::stride], chart.labels[::stride], fontsize=8)
        return
    for series, colour in zip(chart.series, COLOURS * (1 + len(chart.series) // len(COLOURS)), strict=False):
        axis.plot([x for x, _ in series.points], [y for _, y in series.points], color=colour, marker=".", label=series.name)
    if len(chart.series) > 1:
        axis.legend(frameon=False, fontsize=8)
