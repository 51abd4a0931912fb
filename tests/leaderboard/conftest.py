"""One filled board, shared by the tests that only read it; and databases of both kinds."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from leaderboard_logs import build_board
from postgres_server import new_database, postgres, postgres_programs

from leaderboard.database import default_url, open_database
from leaderboard.ingest import ingest_all


@pytest.fixture(scope="session")
def board_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("board")
    build_board(home)
    ingest_all(open_database(default_url(home)), home / "runs")
    return home


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[Callable[[], str]]:
    """A function that makes an empty database on a real server and returns its URL."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'actguide-harness[postgres]'")
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server on this machine: install the package postgresql")
    numbers = itertools.count()
    with postgres(programs) as url:
        yield lambda: new_database(url, f"board{next(numbers)}")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'board.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")()
    return url
