"""Builds the board page from the standings; it chooses words and places, never numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from urllib.parse import quote, quote_plus, urlencode

from leaderboard.calibrations import calibrate_command
from leaderboard.reported import ReportedRow, reported
from leaderboard.snapshot import Snapshot
from leaderboard.standings import BASE, Board, Cell, Column, Entry, Measurement
from leaderboard.stats import Comparison
from leaderboard.web.charts import Tick, nice_top, span
from leaderboard.web.findings import findings
from leaderboard.web.pages.board import BoardCell, BoardColumn, BoardGroup, BoardPage, BoardRow, BoardSpan, Delta
from leaderboard.web.pages.shared import Choice, Link
from leaderboard.web.query import VIEWS, BoardQuery, column_id
from leaderboard.words import (
    CORRECTION_TITLES,
    column_title,
    comparison_sentence,
    delta_words,
    gap_words,
    method_title,
    percent,
    points,
    seeds_words,
)

VIEW_WORDS = {"table": "Table", "forest": "Forest plot"}
MOST_FINDINGS = 4
RUNGS = ("easy", "medium", "hard")
USUAL_TAGS = ("level", "difficulty_level", "difficulty", "hops")  # what a benchmark is unfolded by where the address names no tag


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A board with the query that asked for it, and the end of the scale that its intervals share."""

    board: Board
    query: BoardQuery
    columns: tuple[Column, ...]
    tags: Mapping[str, tuple[str, ...]]
    top: float
    bases: Mapping[tuple[str, Column], Measurement]  # the first run behind each model's base, by column


def board_page(snapshot: Snapshot, query: BoardQuery, calibrated: Collection[str] = ()) -> BoardPage:
    """The board as the query wants it; ``calibrated`` are the judges that were checked against known answers."""
    board, tags = asked_board(snapshot, query)
    return shown_page(board, query, snapshot.measurements, tags, calibrated)


def shown_page(
    board: Board,
    query: BoardQuery,
    measurements: Sequence[Measurement],
    tags: Mapping[str, tuple[str, ...]],
    calibrated: Collection[str] = (),
) -> BoardPage:
    """The page of a board; ``measurements`` fill the filters, ``tags`` say what could unfold each benchmark."""
    entries = tuple(e for e in board.entries if query.model in ("", e.model) and query.method in ("", e.method))
    board = replace(board, entries=entries)
    top = nice_top(max((c.score.high or c.score.value for e in entries for c in e.cells.values()), default=1.0))
    columns = _paper_order([c for c in board.columns if any(c in e.cells for e in entries)])
    bases = {(e.model, column): cell.runs[0] for e in reversed(entries) if e.method == BASE for column, cell in e.cells.items()}
    shown = _Shown(board=board, query=query, columns=columns, tags=tags, top=top, bases=bases)
    by = next((c for c in board.columns if column_id(c) == query.sort.removeprefix("-")), None)
    groups = _by_model(shown) if by is None else _by_column(shown, by)
    judges = {m.judge for e in entries for c in e.cells.values() for m in c.runs}
    return BoardPage(
        spans=tuple(_spans(shown)),
        columns=tuple(_heading(shown, c) for c in shown.columns),
        groups=groups,
        findings=tuple(findings(board)[:MOST_FINDINGS]),
        views=tuple(Link(words=VIEW_WORDS[v], href=query.address(view=v), current=v == query.view) for v in VIEWS),
        view=query.view,
        choices=_choices(measurements, query),
        hidden=tuple(_hidden(query)),
        reset=BoardQuery(view=query.view).address() if (query.model, query.method, query.benchmark, query.sort) != ("",) * 4 else None,
        unsorted=query.address(sort="") if by is not None else None,
        scale=tuple(Tick(at=25.0 * i, label=f"{100 * top * i / 4:g}") for i in range(5)),
        has_any=bool(measurements or entries),
        without_reported=query.address(reported=False),
        unchecked=tuple((judge, calibrate_command(judge)) for judge in sorted(judges - {*calibrated})),
        has_reported=any(row.reported for group in groups for row in group.rows),
    )


def asked_board(snapshot: Snapshot, query: BoardQuery) -> tuple[Board, dict[str, tuple[str, ...]]]:
    """The standings of the asked benchmarks with their unfolded parts, and the tags that could unfold each."""
    benchmarks = sorted({m.benchmark for m in snapshot.measurements if query.benchmark in ("", m.benchmark)})
    parts: dict[Column, Mapping[str, str]] = {}
    tags: dict[str, tuple[str, ...]] = {}
    for benchmark in benchmarks:
        found = snapshot.parts(benchmark)
        tags[benchmark] = tuple(sorted({c.part.partition("=")[0] for c in found}))
        wanted = query.unfolded_by(benchmark)
        tag = wanted or next((t for t in (*USUAL_TAGS, *tags[benchmark]) if t in tags[benchmark]), "") if wanted is not None else None
        parts |= {c: by_task for c, by_task in found.items() if c.part.partition("=")[0] == tag}
    return snapshot.board(benchmarks, parts, query.correction), tags


def delta_chip(comparison: Comparison, href: str = "") -> Delta:
    """A signed chip; grey, with words, where the test cannot tell it from zero."""
    kind = "unclear" if not comparison.distinguishable else "up" if comparison.delta > 0 else "down"
    return Delta(
        points=points(comparison.delta),
        kind=kind,
        words=delta_words(comparison),
        gap="" if comparison.gap is None else percent(comparison.gap),
        gap_words=gap_words(comparison),
        sentence=comparison_sentence(comparison),
        href=href,
    )


def _paper_order(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Parts of a benchmark first, then the whole: levels, then the average."""
    return tuple(
        c
        for _, group in groupby(columns, key=lambda c: (c.benchmark, c.split))
        for c in sorted(group, key=lambda c: (not c.part, *_rung(c)))
    )


def _rung(column: Column) -> tuple[int, str]:
    """Where a part stands among its siblings: easy before medium before hard, level 2 before level 10."""
    value = column.part.partition("=")[2]
    return (RUNGS.index(value) if value in RUNGS else int(value) if value.isdecimal() else len(RUNGS)), value


def _spans(shown: _Shown) -> list[BoardSpan]:
    """The upper row of headings: a benchmark over its parts, with the links that unfold it."""
    spans = []
    for (benchmark, split), group in groupby(shown.columns, key=lambda c: (c.benchmark, c.split)):
        columns = list(group)
        now = {c.part.partition("=")[0] for c in columns if c.part}
        folds = [
            Link(words=f"fold {tag}" if tag in now else f"by {tag.replace('_', ' ')}", href=_fold(shown.query, benchmark, tag, now))
            for tag in shown.tags.get(benchmark, ())
        ]
        spans.append(BoardSpan(title=f"{benchmark} {split}".strip(), width=len(columns), folds=tuple(folds)))
    return spans


def _fold(query: BoardQuery, benchmark: str, tag: str, now: set[str]) -> str:
    rest = tuple(pair for pair in query.unfold if pair[0] != benchmark)
    return query.address(unfold=rest if tag in now else (*rest, (benchmark, tag)))


def _heading(shown: _Shown, column: Column) -> BoardColumn:
    query, name = shown.query, column_id(column)
    order = "descending" if query.sort == name else "ascending" if query.sort == f"-{name}" else "none"
    has_parts = any(c.part for c in shown.columns if (c.benchmark, c.split) == (column.benchmark, column.split))
    tag, _, value = column.part.partition("=")
    title = (f"{tag} {value}" if value.isdecimal() else value) if column.part else "all" if has_parts else "score"
    href = query.address(sort=f"-{name}" if order == "descending" else name)
    return BoardColumn(title=title, name=column_title(column), is_part=bool(column.part), order=order, sort=href)


def _by_model(shown: _Shown) -> tuple[BoardGroup, ...]:
    groups = []
    for model, entries in groupby(shown.board.entries, key=lambda e: e.model):
        rows = [_row(shown, entry) for entry in entries]
        if shown.query.reported:
            rows += _reported_rows(shown, model)
        groups.append(BoardGroup(title=model, rows=tuple(rows)))
    return tuple(groups)


def _by_column(shown: _Shown, column: Column) -> tuple[BoardGroup, ...]:
    """Best first; entries measured under an unlike code follow apart, a section a code, because no order holds between codes."""
    lowest_first = shown.query.sort.startswith("-")
    measured = [(e, e.cells[column]) for e in shown.board.entries if column in e.cells]
    ordered = sorted(measured, key=lambda pair: pair[1].score.value, reverse=not lowest_first)
    groups = []
    for code in dict.fromkeys(c.code for _, c in sorted(ordered, key=lambda pair: not pair[1].usual)):
        like = [e for e, c in ordered if c.code == code]
        usual = any(c.usual for _, c in ordered if c.code == code)
        order = "lowest" if lowest_first else "highest"
        title = f"{column_title(column)}, {order} first" if usual else f"Measured under other settings, code {code}: a ranking of its own"
        groups.append(BoardGroup(title=title, rows=tuple(_row(shown, e, with_model=True) for e in like)))
    rest = [_row(shown, e, with_model=True) for e in shown.board.entries if column not in e.cells]
    return (*groups, *([BoardGroup(title="Not measured there", rows=tuple(rest))] if rest else []))


def _row(shown: _Shown, entry: Entry, with_model: bool = False) -> BoardRow:
    runs = [m.run_id for cell in entry.cells.values() for m in cell.runs]
    many = len(set(runs)) > 1
    words = [entry.label, seeds_words(entry.seeds) if entry.seeds and (entry.method != BASE or len(entry.seeds) > 1) else ""]
    query = urlencode({"model": entry.model, "method": entry.method})
    return BoardRow(
        name=f"{entry.model} {method_title(entry.method)}" if with_model else method_title(entry.method),
        is_base=entry.method == BASE,
        reported=False,
        detail=", ".join(w for w in words if w),
        href=f"/runs?{query}" if many else f"/runs/{quote(runs[0])}",
        cells=tuple(_cell(shown, entry, c) for c in shown.columns),
    )


def _cell(shown: _Shown, entry: Entry, column: Column) -> BoardCell | None:
    cell = entry.cells.get(column)
    if cell is None:
        return None
    score, run = cell.score, cell.runs[0]
    return BoardCell(
        score=percent(score.value),
        low="" if score.low is None else percent(score.low),
        high="" if score.high is None else percent(score.high),
        n=score.n,
        method=score.method,
        span=span(score.value, score.low, score.high, shown.top),
        delta=None if cell.to_base is None else delta_chip(cell.to_base, _comparison(shown, entry, cell, column)),
        rank=cell.rank_words,
        best=cell.best,
        notes=cell.notes,
        href=f"/runs/{quote(run.run_id)}/samples?evaluation={quote_plus(run.evaluation_id)}",
    )


def _comparison(shown: _Shown, entry: Entry, cell: Cell, column: Column) -> str:
    """The address that compares this cell's first run with its base, question by question."""
    base = shown.bases.get((entry.model, column))
    if base is None or base.comparability != cell.code:  # the delta is then to an earlier measurement of the base
        return ""
    a, b, benchmark, split = map(quote_plus, (cell.runs[0].run_id, base.run_id, column.benchmark, column.split))
    return f"/compare?a={a}&b={b}&benchmark={benchmark}&split={split}"


def _reported_rows(shown: _Shown, model: str) -> list[BoardRow]:
    rows = []
    for row in reported().tables[0].rows:
        if row.key != model or shown.query.method not in ("", row.method):
            continue
        cells = tuple(_reported_cell(shown, row, c) for c in shown.columns)
        if any(cells):
            words = "reported by the paper"
            rows.append(
                BoardRow(
                    name=method_title(row.method), is_base=row.method == BASE, reported=True, detail=words, href="/reported", cells=cells
                )
            )
    return rows


def _reported_cell(shown: _Shown, row: ReportedRow, column: Column) -> BoardCell | None:
    value = row.scores.get(column.benchmark, {}).get(column.part)
    if value is None:
        return None
    place = span(value / 100, None, None, shown.top)
    return BoardCell(
        score=f"{value:.1f}",
        low="",
        high="",
        n=None,
        method="",
        span=place,
        delta=None,
        rank="",
        best=False,
        notes=(),
        href="/reported",
    )


def _choices(measurements: Sequence[Measurement], query: BoardQuery) -> tuple[Choice, ...]:
    def options(values: set[str], everything: str) -> tuple[tuple[str, str], ...]:
        return (("", everything), *((v, v) for v in sorted(values)))

    methods = sorted({m.method for m in measurements})
    return (
        Choice(name="model", title="Model", value=query.model, options=options({m.model for m in measurements}, "all models")),
        Choice(
            name="method",
            title="Method",
            value=query.method,
            options=(("", "all methods"), *((m, method_title(m).lstrip("+ ")) for m in methods)),
        ),
        Choice(
            name="benchmark",
            title="Benchmark",
            value=query.benchmark,
            options=options({m.benchmark for m in measurements}, "all benchmarks"),
        ),
        Choice(name="correction", title="Many tests", value=query.correction, options=tuple(CORRECTION_TITLES.items())),
    )


def _hidden(query: BoardQuery) -> list[tuple[str, str]]:
    pairs = [("view", query.view), ("sort", query.sort), *(("unfold", f"{b}:{t}" if t else b) for b, t in query.unfold)]
    return [(k, v) for k, v in pairs if v and v != VIEWS[0]] + ([] if query.reported else [("reported", "0")])
