"""Builds the board page from the standings; it chooses words and places, never numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from urllib.parse import quote, urlencode

from leaderboard.standings import BASE, Board, Cell, Column, Entry, build
from leaderboard.stats import Comparison
from leaderboard.store import Store
from leaderboard.web.charts import Tick, nice_top, span
from leaderboard.web.pages import BoardCell, BoardColumn, BoardGroup, BoardPage, BoardRow, Delta, Link
from leaderboard.words import column_title, comparison_sentence, delta_words, method_title, p_value, percent, points, seeds_words


def board_page(store: Store, view: str, unfold: str) -> BoardPage:
    """The board as ``view`` ("table" or "forest"), with the benchmark ``unfold`` split by its tags."""
    measurements = store.measurements()
    known = {m.benchmark for m in measurements}
    board = build(measurements, store.parts(unfold) if unfold in known else {})
    top = nice_top(max((c.score.high or c.score.value for e in board.entries for c in e.cells.values()), default=1.0))
    groups = tuple(
        BoardGroup(model=model, rows=tuple(_row(entry, board.columns, top) for entry in entries))
        for model, entries in groupby(board.entries, key=lambda e: e.model)
    )
    return BoardPage(
        columns=tuple(_heading(c, view, unfold) for c in board.columns),
        groups=groups,
        findings=tuple(_findings(board)),
        views=tuple(Link(words=w, href=_address(v, unfold), current=v == view) for v, w in (("table", "Table"), ("forest", "Forest plot"))),
        view=view,
        scale=tuple(Tick(at=25.0 * i, label=f"{100 * top * i / 4:g}") for i in range(5)),
    )


def _address(view: str, unfold: str) -> str:
    query = {k: v for k, v in (("view", view if view != "table" else ""), ("unfold", unfold)) if v}
    return "/?" + urlencode(query) if query else "/"


def _heading(column: Column, view: str, unfold: str) -> BoardColumn:
    if column.part:
        return BoardColumn(title=column_title(column), is_part=True, fold=None)
    is_open = column.benchmark == unfold
    fold = Link(words="fold" if is_open else "unfold by tag", href=_address(view, "" if is_open else column.benchmark), current=is_open)
    return BoardColumn(title=column_title(column), is_part=False, fold=fold)


def _row(entry: Entry, columns: Sequence[Column], top: float) -> BoardRow:
    runs = [m.run_id for cell in entry.cells.values() for m in cell.runs]
    many = len(set(runs)) > 1
    words = [entry.label, seeds_words(entry.seeds) if entry.seeds and (entry.method != BASE or len(entry.seeds) > 1) else ""]
    query = urlencode({"model": entry.model, "method": entry.method})
    return BoardRow(
        name=method_title(entry.method),
        is_base=entry.method == BASE,
        detail=", ".join(w for w in words if w),
        href=f"/runs?{query}" if many else f"/runs/{quote(runs[0])}",
        cells=tuple(_cell(entry.cells.get(c), top) for c in columns),
    )


def _cell(cell: Cell | None, top: float) -> BoardCell | None:
    if cell is None:
        return None
    score, run = cell.score, cell.runs[0]
    query = urlencode({"evaluation": run.evaluation_id})
    return BoardCell(
        score=percent(score.value),
        low="" if score.low is None else percent(score.low),
        high="" if score.high is None else percent(score.high),
        n=score.n,
        method=score.method,
        span=span(score.value, score.low, score.high, top),
        delta=None if cell.to_base is None else delta_chip(cell.to_base),
        rank=cell.rank,
        notes=cell.notes,
        href=f"/runs/{quote(run.run_id)}/samples?{query}",
    )


def delta_chip(comparison: Comparison) -> Delta:
    """A signed chip; grey, with words, where the test cannot tell it from zero."""
    kind = "unclear" if not comparison.distinguishable else "up" if comparison.delta > 0 else "down"
    sentence = comparison_sentence(comparison)
    return Delta(points=points(comparison.delta), kind=kind, words=delta_words(comparison), sentence=sentence)


def _findings(board: Board) -> list[str]:
    """One sentence a model: what its best method does on the first column."""
    if not board.columns:
        return []
    column, found = board.columns[0], []
    for model, entries in groupby(board.entries, key=lambda e: e.model):
        cells = [(e, e.cells[column]) for e in entries if column in e.cells]
        base = next((c for e, c in cells if e.method == BASE), None)
        trained = [(e, c) for e, c in cells if c.to_base is not None]
        if base is None or not trained:
            continue
        entry, cell = max(trained, key=lambda pair: pair[1].score.value)
        found.append(_finding(model, entry, cell, base, column))
    return found


def _finding(model: str, entry: Entry, cell: Cell, base: Cell, column: Column) -> str:
    assert cell.to_base is not None
    where, name = column_title(column), method_title(entry.method).removeprefix("+ ")
    if not cell.to_base.distinguishable:
        return f"{model}: no method is distinguishable from the base on {where} yet; {name} stands at {points(cell.to_base.delta)} points."
    return (
        f"{model}: {name} reaches {percent(cell.score.value)}% on {where}, from {percent(base.score.value)}% for the base "
        f"({points(cell.to_base.delta)} points, {p_value(cell.to_base.p)})."
    )
