"""Runs onto the board: the one place that knows which database is in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import HarnessError


def put_on_board(run_dir: Path) -> None:
    """Ingest a run's log into the leaderboard's database; idempotent, so it may be called again at any time."""
    from harness.config import home
    from leaderboard.database import database_url
    from leaderboard.ingest import ingest

    ingest(run_dir, database_url(home()))


@contextmanager
def on_board(run_dir: Path) -> Iterator[None]:
    """The board knows a run from its first event, so that a killed one is found there, and has read all of it however it ends."""
    put_on_board(run_dir)
    try:
        yield
    except BaseException:  # an interrupted run too is found on the board; raised again
        with suppress(HarnessError):  # what stopped the run is what has to be told
            put_on_board(run_dir)
        raise
    put_on_board(run_dir)
