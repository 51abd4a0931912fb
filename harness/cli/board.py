"""Runs onto the board: the one place that knows which database is in use."""

from __future__ import annotations

from pathlib import Path


def put_on_board(run_dir: Path) -> None:
    """Ingest a run's log into the leaderboard's database; idempotent, so it may be called again at any time."""
    from harness.config import home
    from leaderboard.database import database_url
    from leaderboard.ingest import ingest

    ingest(run_dir, database_url(home()))
