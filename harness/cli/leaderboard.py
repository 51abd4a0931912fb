"""``harness leaderboard``: print, export or serve the board, rebuild its database from the run logs.

Heavy imports live inside the commands, so that ``harness --help`` stays fast.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import bundle
from harness.config import home
from harness.errors import UsageError, nearest
from harness.wording import plural

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from leaderboard.standings import Board
    from leaderboard.store import Store


@click.group()
def leaderboard() -> None:
    """Results of all runs: print or export them, serve them as pages, rebuild them from the run logs."""


FORMATS = ("json", "csv", "markdown", "latex", "html")
CORRECTIONS = ("holm", "bh")  # those of ``leaderboard.ranks``


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What ``show`` and ``export`` are asked for; None leaves a criterion open. ``correction``: as in the address of the board."""

    model: str | None
    method: str | None
    run: str | None
    benchmark: str | None
    parts: bool
    correction: str

    @property
    def names(self) -> dict[str, str]:
        """The criteria that are given."""
        given = {"model": self.model, "method": self.method, "run": self.run, "benchmark": self.benchmark}
        return {kind: name for kind, name in given.items() if name is not None}


def _asked(command: click.decorators.FC) -> click.decorators.FC:
    """The options of ``Asked``."""
    options = (
        click.option("--model", help="Only this model."),
        click.option("--method", help="Only this method, e.g. base, zero-rl, actguide."),
        click.option("--run", help="Only this run."),
        click.option("--benchmark", help="Only this benchmark."),
        click.option("--parts", is_flag=True, help="Also the scores by tag, such as hops=3."),
        click.option(
            "--correction",
            type=click.Choice(CORRECTIONS),
            default="holm",
            show_default=True,
            help="How p-values are corrected for their number: holm holds the risk of any false finding, bh the share of false findings.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


for _command in (bundle.bundle, bundle.submit, bundle.token, bundle.key):
    leaderboard.add_command(_command)


@leaderboard.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", *FORMATS]),
    default="table",
    show_default=True,
    help="A table for people; json: rows for programs, one a run; the others as `export` writes them.",
)
@_asked
def show(form: str, **options: Any) -> None:
    """Print scores with their 95% intervals (json: fractions, one row a run, split and metric)."""
    from leaderboard.report import print_board
    from leaderboard.store import Store
    from leaderboard.unfinished import lines, unfinished
    from leaderboard.words import EMPTY

    asked = Asked(**options)
    if form == "json" and asked.correction != "holm":
        raise UsageError("--correction changes tests, and the rows of `show --format json` hold none; use `export --format json`")
    engine = _database()
    store = Store(engine)
    empty = _what_is_missing(store, asked)
    if form == "json":
        rows = store.scores(model=asked.model, method=asked.method, run=asked.run, benchmark=asked.benchmark)
        click.echo(json.dumps([row for row in rows if asked.parts or not row["part"]], indent=2))
        return
    board = _board(store, asked)
    if form == "table":
        left = lines(unfinished(engine), model=asked.model, method=asked.method, run=asked.run, benchmark=asked.benchmark)
        print_board(board, left, empty or EMPTY)
    else:
        click.echo(_rendered(board, form), nl=False)


@leaderboard.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="html",
    show_default=True,
    help="What to write; html is one file that needs no other.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: standard output]")
@_asked
def export(form: str, out: Path | None, **options: Any) -> None:
    """Write the board, a row a model and method: scores, intervals, deltas, tests and ranks, the same numbers in every format."""
    from leaderboard.store import Store

    store, asked = Store(_database()), Asked(**options)
    _what_is_missing(store, asked)
    text = _rendered(_board(store, asked), form)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {str(out)!r} cannot be written ({error.strerror}); name a file in a folder that exists") from error
    click.echo(f"Wrote {out}.", err=True)


@leaderboard.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; anything but loopback shows the pages to the network."
)
@click.option("--show-gated", is_flag=True, help="Show questions of gated sets, too, which must not become public.")
@click.option("--accept-submissions", is_flag=True, help="Take result bundles from holders of a token (`harness leaderboard token`).")
def serve(port: int, host: str, show_gated: bool, accept_submissions: bool) -> None:
    """Serve the pages; they follow runs that are still going on."""
    from leaderboard.submissions import Inbox
    from leaderboard.web.app import Site, create_app
    from leaderboard.web.server import listen, serve_forever

    sock = listen(host, port)
    engine = _database()
    inbox = Inbox(engine=engine, home=home()) if accept_submissions else None
    app = create_app(Site(engine=engine, runs_dir=home() / "runs", hosts=(host,), show_gated=show_gated, inbox=inbox))
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"The leaderboard is at http://{shown}:{sock.getsockname()[1]}/  (stop with Ctrl-C)")
    serve_forever(app, sock)


@leaderboard.command()
def rebuild() -> None:
    """Drop every row and read all run logs again."""
    from leaderboard import ingest

    runs_dir = home() / "runs"
    reading = ingest.rebuild(_database(fresh=False), runs_dir)
    _report(reading.problems)
    click.echo(f"Rebuilt from {reading.events} {plural(reading.events, 'event')} under {runs_dir}.")
    if reading.problems:
        sys.exit(1)


def _board(store: Store, asked: Asked) -> Board:
    """The standings of a model and benchmark; ``method`` and ``run`` narrow the rows after deltas and ranks were taken."""
    from leaderboard.export import narrowed
    from leaderboard.standings import build, column_cells

    chosen = [m for m in store.measurements() if asked.benchmark in (None, m.benchmark) and asked.model in (None, m.model)]
    benchmarks = sorted({m.benchmark for m in chosen}) if asked.parts else []
    unfolded = {c: v for b in benchmarks for c, v in store.parts(chosen, b).items()}
    board = build(chosen, unfolded, partial(column_cells, correction=asked.correction))
    keep = [e for e in board.entries if asked.method in (None, e.method) and (asked.run is None or asked.run in e.runs)]
    return narrowed(board, keep)


def _what_is_missing(store: Store, asked: Asked) -> str:
    """What to say where no row has all the names that are asked for; empty where there are no rows at all, or no name is asked for.

    Raises ``UsageError`` for a name that no row has.
    """
    rows = store.names() if asked.names else []
    for kind, name in asked.names.items():
        known = {row[kind] for row in rows}
        if known and name not in known:
            raise UsageError(f"no evaluation has the {kind} {name!r}.{nearest(name, known)} `harness leaderboard show` lists all.")
    words = ", ".join(f"{kind} {name!r}" for kind, name in asked.names.items())
    return f"No finished evaluation has {words}. `harness leaderboard show` lists all." if rows else ""


def _rendered(board: Board, form: str) -> str:
    if form == "html":
        from leaderboard.web.standalone import board_file

        return board_file(board, f"Made by harness leaderboard export on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.")
    from leaderboard.export import FORMATS as WRITERS

    return WRITERS[form](board)


def _report(problems: Sequence[str]) -> None:
    for problem in problems:
        click.echo(f"harness: a run log was not read to its end: {problem}", err=True)


def _database(fresh: bool = True) -> Engine:
    """The opened database, by default after reading what the run logs hold beyond it."""
    from leaderboard.database import database_url, open_database
    from leaderboard.ingest import ingest_all

    engine = open_database(database_url(home()))
    if fresh:
        _report(ingest_all(engine, home() / "runs").problems)
    return engine
