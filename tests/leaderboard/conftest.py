"""One filled board, shared by the tests that only read it."""

from pathlib import Path

import pytest
from leaderboard_logs import build_board

from leaderboard.database import default_url, open_database
from leaderboard.ingest import ingest_all


@pytest.fixture(scope="session")
def board_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("board")
    build_board(home)
    ingest_all(open_database(default_url(home)), home / "runs")
    return home
