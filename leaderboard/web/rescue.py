"""The rescue map: what became of every training group, steps across.

Two arrangements of the same cells. By task: one row a task, so that one sees a task move from failed through guided to solved;
between its visits a thin line carries its last outcome on. Stacked: each step's groups ordered by outcome, for task sets in which few
tasks come back. Outcomes differ in height as well as in colour.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from harness.wording import plural
from leaderboard.records import GroupInfo

SHADES = 5
MOST_COLUMNS = 160
MOST_ROWS = 240
MOST_CELLS = 3000  # a browser scrolls through so many without effort; further steps are left out evenly
ORDER = {"solved": 0, "rescued": 1, "failed": 2, "unscorable": 3}
HEIGHT = {"solved": 0.9, "rescued": 0.62, "failed": 0.24, "unscorable": 0.5}


class MapCell(NamedTuple):
    """One group: its CSS class, words, the list of its samples, and its outline as an SVG path in map units.

    There are thousands on a page, so a cell is cheap: four texts that are ready to be written.
    """

    kind: str
    words: str
    href: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTrails:
    """Outcomes of one kind carried on until the task's next visit, all in one SVG path."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueMap:
    """One map with the counts behind it, a row a step."""

    name: str
    arrangement: str  # "tasks" or "stacked"
    width: float
    height: float
    cells: tuple[MapCell, ...]
    trails: tuple[MapTrails, ...]
    first_step: int
    last_step: int
    row_words: str
    summary: str
    note: str
    rows: tuple[tuple[str, ...], ...]


def rescue_map(
    run_id: str, name: str, groups: Sequence[GroupInfo], arrangement: str | None = None, like: Sequence[GroupInfo] = ()
) -> RescueMap | None:
    """The map of these groups; None without any. ``arrangement`` None picks the one that can be read.

    With the groups of another run as ``like``, tasks stand in the rows that they have there.
    """
    if not groups:
        return None
    chosen = arrangement if arrangement in ("tasks", "stacked") else _readable(groups)
    steps = sorted({g.step for g in groups})
    stride = max(ceil(len(steps) / MOST_COLUMNS), ceil(len(groups) / MOST_CELLS))
    column = {step: i for i, step in enumerate(steps[::stride])}
    shown = [g for g in groups if g.step in column]
    rows = _task_rows(shown, like or shown) if chosen == "tasks" else _stacked_rows(shown)
    hidden = len({g.task_id for g in shown if id(g) not in rows})
    shown = [g for g in shown if id(g) in rows]
    count = max(rows.values(), default=0) + 1
    unit_x, unit_y = max(9.0, min(26.0, 520 / len(column))), max(5.0, min(14.0, 460 / count))
    places = ((g, column[g.step] * unit_x, rows[id(g)] * unit_y) for g in shown)
    cells = tuple(_cells(f"/runs/{quote(run_id)}/samples", places, unit_x, unit_y))
    tasks = len({g.task_id for g in groups})
    return RescueMap(
        name=name,
        arrangement=chosen,
        width=len(column) * unit_x,
        height=count * unit_y,
        cells=cells,
        trails=tuple(_trails(shown, rows, column, (unit_x, unit_y))) if chosen == "tasks" else (),
        first_step=steps[0],
        last_step=steps[-1],
        row_words=_row_words(chosen, tasks, bool(like)),
        summary=_summary(groups, steps),
        note=_note(stride, hidden),
        rows=tuple(_table(groups, steps)),
    )


def shade(level: int | None, max_level: int) -> int:
    """1 (little guidance) to 5 (the whole plan), from k / K."""
    return max(1, min(SHADES, ceil(SHADES * (level or 0) / max(max_level, 1))))


def outcome_words(group: GroupInfo) -> str:
    """An outcome in words."""
    return f"rescued at level {group.level} of {group.max_level}" if group.outcome == "rescued" else group.outcome


def _readable(groups: Sequence[GroupInfo]) -> str:
    tasks = len({g.task_id for g in groups})
    return "tasks" if tasks <= MOST_ROWS and len(groups) >= 2 * tasks else "stacked"


def _task_rows(groups: Sequence[GroupInfo], like: Sequence[GroupInfo]) -> dict[int, int]:
    """Row of each group: tasks by the step of their first solution, then of their first rescue, in ``like``; the rest below."""
    first: dict[tuple[str, str], int] = {}
    for group in like:
        first.setdefault((group.task_id, group.outcome), group.step)

    def order(task: str) -> tuple[object, ...]:
        return *(first.get((task, outcome), 10**9) for outcome in ("solved", "rescued", "failed")), task

    ordered = sorted({g.task_id for g in [*groups, *like]}, key=order)[:MOST_ROWS]
    row = {task: i for i, task in enumerate(ordered)}
    return {id(g): row[g.task_id] for g in groups if g.task_id in row}


def _stacked_rows(groups: Sequence[GroupInfo]) -> dict[int, int]:
    by_step: dict[int, list[GroupInfo]] = defaultdict(list)
    for group in groups:
        by_step[group.step].append(group)
    tallest = max(len(found) for found in by_step.values())
    rows: dict[int, int] = {}
    for found in by_step.values():
        ordered = sorted(found, key=lambda g: (ORDER.get(g.outcome, 9), (g.level or 0) / max(g.max_level, 1)))
        rows |= {id(g): tallest - 1 - i for i, g in enumerate(ordered)}
    return rows


def _cells(samples: str, places: Iterable[tuple[GroupInfo, float, float]], unit_x: float, unit_y: float) -> Iterator[MapCell]:
    """A cell a group from its corner; what groups of one outcome and level share is made once."""
    shared: dict[tuple[str, int | None, int], tuple[str, str, tuple[float, float, str]]] = {}
    for group, x, y in places:
        key = (group.outcome, group.level, group.max_level)
        if key not in shared:
            shared[key] = _kind(group), outcome_words(group), _outline(group.outcome, unit_x, unit_y)
        kind, words, (left, above, shape) = shared[key]
        step, task = group.step, group.task_id
        href = f"{samples}?task={quote_plus(task)}&step={step}"
        yield MapCell(kind, f"step {step}, {task}: {words}", href, f"M{x + left:.1f} {y + above:.1f}{shape}")


def _kind(group: GroupInfo) -> str:
    return f"rescued s{shade(group.level, group.max_level)}" if group.outcome == "rescued" else group.outcome


def _outline(outcome: str, unit_x: float, unit_y: float) -> tuple[float, float, str]:
    """Where in its unit a cell starts, and its SVG path from there: a box, narrow and low for a failure; a cross without a verdict."""
    narrow, height = 0.25 if outcome in ("failed", "unscorable") else 0.04, unit_y * HEIGHT.get(outcome, 0.5)
    wide, high = f"{unit_x * (1 - 2 * narrow):.1f}", f"{height:.1f}"
    shape = f"l{wide} {high}m0-{high}l-{wide} {high}" if outcome == "unscorable" else f"h{wide}v{high}h-{wide}z"
    return unit_x * narrow, (unit_y - height) / 2, shape


def _trails(groups: Sequence[GroupInfo], rows: Mapping[int, int], column: Mapping[int, int], unit: tuple[float, float]) -> list[MapTrails]:
    visits: dict[int, list[GroupInfo]] = defaultdict(list)
    for group in groups:
        visits[rows[id(group)]].append(group)
    pieces: dict[str, list[str]] = {"solved": [], "rescued": []}
    for row, found in visits.items():
        ends = [*(column[g.step] for g in found[1:]), len(column)]
        for group, end in zip(found, ends, strict=True):
            start = column[group.step] + 1
            if end > start and group.outcome in pieces:
                pieces[group.outcome].append(f"M{start * unit[0]:.1f} {(row + 0.5) * unit[1]:.1f}h{(end - start) * unit[0]:.1f}")
    return [MapTrails(kind=kind, path="".join(its)) for kind, its in pieces.items() if its]


def _note(stride: int, hidden: int) -> str:
    drawn = f"One step in {stride} is drawn. " if stride > 1 else ""
    return drawn + (f"{hidden} more {plural(hidden, 'task is', 'tasks are')} left out." if hidden else "")


def _row_words(arrangement: str, tasks: int, like: bool) -> str:
    if arrangement == "stacked":
        return "each step's groups, stacked by outcome"
    return "the same tasks in the same rows" if like else f"{tasks} {plural(tasks, 'task')} down, in the order of their first solution"


def _summary(groups: Sequence[GroupInfo], steps: Sequence[int]) -> str:
    def said(step: int) -> str:
        counts = Counter(g.outcome for g in groups if g.step == step)
        return f"{counts['solved']} solved, {counts['rescued']} rescued, {counts['failed']} failed"

    return f"Step {steps[0]}: {said(steps[0])}. Step {steps[-1]}: {said(steps[-1])}."


def _table(groups: Sequence[GroupInfo], steps: Sequence[int]) -> list[tuple[str, ...]]:
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    levels: dict[int, list[int]] = defaultdict(list)
    for group in groups:
        counts[group.step][group.outcome] += 1
        if group.level is not None:
            levels[group.step].append(group.level)
    return [(str(s), *(str(counts[s][o]) for o in ORDER), f"{sum(levels[s]) / len(levels[s]):.2f}" if levels[s] else "") for s in steps]
