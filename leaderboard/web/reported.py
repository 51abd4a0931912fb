"""Builds the page of what the paper reports: its tables as printed, for reference."""

from __future__ import annotations

from itertools import groupby

from leaderboard.reported import ReportedRow, ReportedTable, reported
from leaderboard.web.pages.board import ReportedLine, ReportedPage, ReportedSheet
from leaderboard.words import METHOD_TITLES

ORDER = ("gaia", "webwalkerqa", "xbench", "browsecomp_zh", "gpqa_cot_zeroshot", "truthfulqa", "ifeval")


def reported_page() -> ReportedPage:
    """All tables of the shipped reference."""
    data = reported()
    return ReportedPage(source=data.source, address=data.address, note=data.note, sheets=tuple(_sheet(t) for t in data.tables))


def _sheet(table: ReportedTable) -> ReportedSheet:
    parts = {(benchmark, part) for row in table.rows for benchmark, scores in row.scores.items() for part in scores}
    columns = sorted(parts, key=lambda c: (ORDER.index(c[0]), not c[1], _difficulty(c[1])))
    return ReportedSheet(
        table=table.table,
        title=table.title,
        spans=tuple((benchmark.replace("_", " "), len(list(group))) for benchmark, group in groupby(columns, key=lambda c: c[0])),
        columns=tuple(_heading(part) for _, part in columns),
        rows=tuple(_line(row, columns) for row in table.rows),
    )


def _heading(part: str) -> str:
    tag, _, value = part.partition("=")
    return f"{tag} {value}" if value.isdecimal() else value or "all"


def _difficulty(part: str) -> int:
    """Easy before medium before hard, level 1 before 3: the order of the paper."""
    value = part.partition("=")[2]
    return ("easy", "medium", "hard").index(value) if value in ("easy", "medium", "hard") else int(value or 0)


def _line(row: ReportedRow, columns: list[tuple[str, str]]) -> ReportedLine:
    values = [row.scores.get(benchmark, {}).get(part) for benchmark, part in columns]
    return ReportedLine(
        model=row.model, method=METHOD_TITLES.get(row.method, row.method), cells=tuple("" if v is None else f"{v:.2f}" for v in values)
    )
