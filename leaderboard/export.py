"""The board as a file: JSON, CSV, Markdown or LaTeX (booktabs). The HTML file is ``leaderboard.web.standalone``.

Every format is made from the same records, so no number differs between them: fractions in full where programs read (JSON, CSV),
percentages with one decimal where people do.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from leaderboard.standings import Board, Cell, Column, Entry
from leaderboard.words import column_title, method_title, percent, points, seeds_words

MINUS = "\N{MINUS SIGN}"
LAST_LATIN = 0x17F  # pdflatex sets the letters up to here without further packages


def records(board: Board) -> list[dict[str, Any]]:
    """One flat record a cell; absent values are None. Scores, bounds, deltas and gaps are fractions."""
    return [_record(e, c, e.cells[c]) for e in board.entries for c in board.columns if c in e.cells]


def to_json(board: Board) -> str:
    return json.dumps(records(board), indent=2, ensure_ascii=False) + "\n"


def to_csv(board: Board) -> str:
    """One line a cell; lists are joined by spaces, absent values empty."""
    found = records(board)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(found[0]) if found else list(_FIELDS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()} for row in found)
    return out.getvalue()


def to_markdown(board: Board) -> str:
    """A GitHub table: score with its interval, delta to the base (in italics where no test tells it from zero), rank."""
    head = ["Model", "Method", *(column_title(c) for c in board.columns)]
    rows = [[_markdown(e.model), _markdown(_name(e)), *(_markdown_cell(e.cells.get(c)) for c in board.columns)] for e in board.entries]
    lines = [head, ["---", "---", *("---:" for _ in board.columns)], *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{_LEGEND} Deltas in italics cannot be told from zero.\n"


def to_latex(board: Board) -> str:
    """A ``tabular`` in booktabs style, a ``\\midrule`` between models; needs only the booktabs package."""
    columns = "ll" + "r" * len(board.columns)
    head = " & ".join(["Model", "Method", *(_latex(column_title(c)) for c in board.columns)])
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head + r" \\"]
    for model, entries in groupby(board.entries, key=lambda e: e.model):
        lines.append("\\midrule")
        for i, entry in enumerate(entries):
            cells = [_latex_cell(entry.cells.get(c)) for c in board.columns]
            lines.append(" & ".join([_latex(model) if i == 0 else "", _latex(_name(entry)), *cells]) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    table = "\n".join(lines)
    fonts = "" if all(ord(c) <= LAST_LATIN for c in table) else "% Names in other scripts: compile with lualatex or xelatex.\n"
    return f"% {_LEGEND} Grey of the pages is italics here.\n% \\usepackage{{booktabs}}\n{fonts}{table}\n"


FORMATS: Mapping[str, Callable[[Board], str]] = {"json": to_json, "csv": to_csv, "markdown": to_markdown, "latex": to_latex}

_LEGEND = "% of questions right without guidance (pass@1) with 95% intervals; deltas to the base in points."
_FIELDS = (
    *("model", "method", "settings", "seeds", "runs", "benchmark", "split", "part", "score", "low", "high", "n", "interval"),
    *("delta", "delta_low", "delta_high", "p", "p_adjusted", "correction", "smallest_gap", "wins", "losses", "ties", "test"),
    *("rank_low", "rank_high", "ranked", "comparability", "judge", "notes"),
)


def _record(entry: Entry, column: Column, cell: Cell) -> dict[str, Any]:
    delta, rank, score = cell.to_base, cell.rank, cell.score
    values = (
        *(entry.model, entry.method, entry.label, list(entry.seeds), [m.run_id for m in cell.runs]),
        *(column.benchmark, column.split, column.part, score.value, score.low, score.high, score.n, score.method),
        *((delta.delta, delta.low, delta.high, delta.p, delta.adjusted, delta.correction or None, delta.gap) if delta else (None,) * 7),
        *((delta.wins, delta.losses, delta.ties, delta.method) if delta else (None,) * 4),
        *((rank.low, rank.high, rank.of) if rank else (None,) * 3),
        *(cell.code, cell.runs[0].judge, list(cell.notes)),
    )
    return dict(zip(_FIELDS, values, strict=True))


def _name(entry: Entry) -> str:
    extra = [entry.label, seeds_words(entry.seeds) if len(entry.seeds) > 1 else ""]
    return ", ".join([method_title(entry.method), *(e for e in extra if e)])


def _parts(cell: Cell) -> Iterator[str]:
    """Score, interval and signed delta as text, empty where absent."""
    score = cell.score
    yield percent(score.value)
    yield "" if score.low is None or score.high is None else f"[{percent(score.low)}, {percent(score.high)}]"
    yield "" if cell.to_base is None else points(cell.to_base.delta)


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    score, interval, delta = _parts(cell)
    real = cell.to_base is not None and cell.to_base.distinguishable
    said = [f"**{score}**" if cell.best else score, interval, delta if real or not delta else f"*{delta}*"]
    return " ".join(part for part in said if part)


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    score, interval, delta = _parts(cell)
    delta = delta.replace(MINUS, "$-$").replace("+", "$+$").replace("\N{PLUS-MINUS SIGN}", r"$\pm$")
    real = cell.to_base is not None and cell.to_base.distinguishable
    said = [rf"\textbf{{{score}}}" if cell.best else score, rf"{{\scriptsize {interval}}}" if interval else ""]
    return " ".join(part for part in (*said, delta if real or not delta else rf"\textit{{{delta}}}") if part)


def _markdown(text: str) -> str:
    """Text that a table cell shows as it is: names come from logs."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!" else " " if c in "\r\n" else c for c in text)


_LATEX: Mapping[str, str] = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\n": " ",
    "\r": " ",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def narrowed(board: Board, keep: Sequence[Entry]) -> Board:
    """The board with only these rows, and the columns that they fill; deltas and ranks stay those of the whole."""
    columns = tuple(c for c in board.columns if any(c in e.cells for e in keep))
    return Board(columns=columns, entries=tuple(keep))
