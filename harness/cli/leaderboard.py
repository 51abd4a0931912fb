"""``harness leaderboard``: print the board, serve its pages, rebuild its database from the run logs.

Heavy imports live inside the commands, so that ``harness --help`` stays fast.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.cli import bundle
from harness.config import home

if TYPE_CHECKING:
    from sqlalchemy import Engine


@click.group()
def leaderboard() -> None:
    """Results of all runs: print them, serve them as pages, rebuild them from the run logs."""


for _command in (bundle.bundle, bundle.submit, bundle.token, bundle.key):
    leaderboard.add_command(_command)


@leaderboard.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people or rows for programs.",
)
@click.option("--model", help="Only this model.")
@click.option("--method", help="Only this method, e.g. base, zero-rl, actguide.")
@click.option("--run", "run_id", help="Only this run.")
@click.option("--benchmark", help="Only this benchmark.")
@click.option("--parts", is_flag=True, help="Also the scores by tag, such as hops=3.")
def show(form: str, model: str | None, method: str | None, run_id: str | None, benchmark: str | None, parts: bool) -> None:
    """Print scores with their 95% intervals (json: fractions, one row a run, split and metric)."""
    from leaderboard.report import print_board
    from leaderboard.store import Store

    store = Store(_database())
    if form == "json":
        rows = store.scores(model=model, method=method, run=run_id, benchmark=benchmark)
        click.echo(json.dumps([row for row in rows if parts or not row["part"]], indent=2))
        return
    chosen = [m for m in store.measurements() if benchmark in (None, m.benchmark) and model in (None, m.model)]
    unfolded = {c: v for b in sorted({m.benchmark for m in chosen}) for c, v in store.parts(b).items()} if parts else {}
    print_board(chosen, unfolded, method=method, run_id=run_id)


@leaderboard.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; anything but loopback shows the pages to the network."
)
@click.option("--accept-submissions", is_flag=True, help="Take result bundles from holders of a token (`harness leaderboard token`).")
def serve(port: int, host: str, accept_submissions: bool) -> None:
    """Serve the pages; they follow runs that are still going on."""
    from leaderboard.submissions import Inbox
    from leaderboard.web.app import Site, create_app
    from leaderboard.web.server import listen, serve_forever

    sock = listen(host, port)
    engine = _database()
    inbox = Inbox(engine=engine, home=home()) if accept_submissions else None
    app = create_app(Site(engine=engine, runs_dir=home() / "runs", hosts=(host,), inbox=inbox))
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
    click.echo(f"Rebuilt from {reading.events} events under {runs_dir}.")
    if reading.problems:
        sys.exit(1)


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
