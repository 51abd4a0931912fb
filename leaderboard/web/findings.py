"""What a board says in words, above its table."""

from __future__ import annotations

from itertools import groupby

from leaderboard.standings import BASE, Board, Cell, Column, Entry
from leaderboard.words import column_title, method_title, p_value, percent, points


def findings(board: Board) -> list[str]:
    """One sentence a model: what its best method does on its first column."""
    found = []
    for model, group in groupby(board.entries, key=lambda e: e.model):
        entries = list(group)
        column = next((c for c in board.columns if any(c in e.cells and e.cells[c].to_base for e in entries)), None)
        if column is None:
            continue
        cells = [(e, e.cells[column]) for e in entries if column in e.cells]
        base = next((c for e, c in cells if e.method == BASE), None)
        trained = [(e, c) for e, c in cells if c.to_base is not None and base is not None and c.code == base.code]
        if base is not None and trained:
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
        f"({points(cell.to_base.delta)} points, {p_value(cell.to_base.decisive_p)})."
    )
