"""The board as a table in the terminal: models, methods inside, a column a benchmark, deltas in words where they are not real."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from leaderboard.standings import BASE, Board, Cell, Column, Entry
from leaderboard.words import EMPTY, column_title, delta_words, method_title, percent, points, seeds_words

CELL, GAP = 24, 2  # characters: the narrowest cell, and between columns
FINDS = "finds \N{GREATER-THAN OR EQUAL TO}"
NO_BREAK = "\N{NO-BREAK SPACE}"  # the pages' words keep "p < 0.001" together; a terminal's search should find it


def print_board(board: Board, below: Sequence[str] = (), empty: str = EMPTY) -> None:
    """Print the board and the lines ``below`` it; in place of one without rows ``empty``, by default which command fills it."""
    console = Console(soft_wrap=False)
    if board.entries:
        _print_entries(console, board)
    else:
        console.print(empty, markup=False, highlight=False)
    for line in below:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_entries(console: Console, board: Board) -> None:
    name = max(_name(entry).cell_len for entry in board.entries) + GAP
    at_once = max(1, (console.width - name) // (CELL + GAP))  # a column that does not fit would be left out in silence
    for first in range(0, len(board.columns), at_once):
        console.print(_table(board.columns[first : first + at_once], board.entries))
    gaps = any(cell.to_base is not None and cell.to_base.gap is not None for entry in board.entries for cell in entry.cells.values())
    console.print(
        "Scores in % of questions, 95% interval in brackets; deltas to the base in points. "
        "Grey: the paired test cannot tell the delta from zero."
        + (f" {FINDS} 12.3: the smallest delta that these questions find four times in five." if gaps else ""),
        style="dim",
        markup=False,
        highlight=False,
    )


def _table(columns: Sequence[Column], entries: Sequence[Entry]) -> Table:
    """The entries that have a cell in one of these columns."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    table.add_column("model / method", no_wrap=True)
    for column in columns:
        table.add_column(column_title(column), justify="left", min_width=CELL)
    model = None
    said: set[tuple[Column, str]] = set()
    for entry in (entry for entry in entries if any(c in entry.cells for c in columns)):
        if entry.model != model:
            model = entry.model
            table.add_row(Text(model, style="bold"))
        table.add_row(_name(entry), *(_cell(entry, entry.cells.get(c), _notes(entry, c, said)) for c in columns))
    return table


def _notes(entry: Entry, column: Column, said: set[tuple[Column, str]]) -> list[str]:
    """Of a cell; the reasons of one that stands in full above, in the same column, are not given again."""
    notes = entry.cells[column].notes if column in entry.cells else ()
    short = [note.partition(":")[0] + ", as above" if ":" in note and (column, note) in said else note for note in notes]
    said.update((column, note) for note in notes)
    return short


def _name(entry: Entry) -> Text:
    name = Text("  " + method_title(entry.method))
    for extra in (entry.label, seeds_words(entry.seeds) if len(entry.seeds) > 1 else ""):
        name.append(f" {extra}" if extra else "", style="dim")
    return name


def _cell(entry: Entry, cell: Cell | None, notes: Sequence[str]) -> Text:
    if cell is None:
        return Text("-", style="dim")
    text = Text(percent(cell.score.value), style="bold" if cell.best else "")
    if cell.score.low is not None and cell.score.high is not None:
        text.append(f" [{percent(cell.score.low)}, {percent(cell.score.high)}]", style="dim")
    text.append(f" n={cell.score.n}", style="dim")
    if entry.method != BASE and cell.to_base is not None:
        real = cell.to_base.distinguishable
        text.append(f"\n{points(cell.to_base.delta)}", style="green" if real and cell.to_base.delta > 0 else "red" if real else "dim")
        text.append(f" {delta_words(cell.to_base)}".replace(NO_BREAK, " "), style="dim")
        text.append("" if cell.to_base.gap is None else f", {FINDS} {percent(cell.to_base.gap)}", style="dim")
    if cell.rank_words:
        text.append(f"\n{cell.rank_words}", style="dim")
    for note in notes:
        text.append(f"\n! {note}", style="yellow")
    return text
