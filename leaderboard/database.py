"""Opening the leaderboard's database: URL, SQLite settings, migrations, and the portable upsert.

It does not query; ``leaderboard.store`` reads and ``leaderboard.ingest`` writes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from harness.errors import HarnessError, UsageError
from leaderboard.schema import Base

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = max(path.name for path in (MIGRATIONS / "versions").glob("0*.py")).partition("_")[0]  # without loading Alembic
BUSY_SECONDS = 30
UPGRADE_LOCK = 7_201_977  # any constant: the PostgreSQL advisory lock that lets one process migrate at a time


def default_url(home: Path) -> str:
    """``$HARNESS_HOME/leaderboard.sqlite`` as a SQLAlchemy URL."""
    return f"sqlite:///{home / 'leaderboard.sqlite'}"


def database_url(home: Path) -> str:
    """``HARNESS_DATABASE_URL`` where it is set, else the file in ``home``."""
    return os.environ.get("HARNESS_DATABASE_URL") or default_url(home)


def open_database(url: str) -> Engine:
    """Connect, create or migrate the schema, and return the engine; raises HarnessError where the server or file refuses."""
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            current = _revision(connection)
        if current != HEAD:
            upgrade(engine)
    except DBAPIError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise HarnessError(
            f"the leaderboard database {shown} cannot be used: {error.orig}. "
            "Check the path or server, or set HARNESS_DATABASE_URL; `harness leaderboard rebuild` refills an empty one."
        ) from error
    return engine


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision, one process at a time."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        _lock_for_upgrade(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise HarnessError(
                f"the leaderboard database is at a revision this version does not know ({error}); "
                "update the harness, or point HARNESS_DATABASE_URL to another database and run `harness leaderboard rebuild`"
            ) from error
        connection.commit()


def upsert(connection: Connection, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, or overwrite those whose key exists; the last of equal keys wins. Every row must name the same columns."""
    columns = table.__table__.columns
    keys = [c.name for c in columns if c.primary_key]
    latest = list({tuple(row[k] for k in keys): row for row in rows}.values())
    if not latest:
        return
    insert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)
    changed = {name: insert.excluded[name] for name in latest[0] if name not in keys}
    if changed:
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changed), latest)
    else:
        connection.execute(insert.on_conflict_do_nothing(index_elements=keys), latest)


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(
            f"HARNESS_DATABASE_URL {url!r} is no database URL ({error}); expected e.g. sqlite:////path/file.sqlite or postgresql+psycopg://host/name"
        ) from error
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, which {url.split(':', 1)[0]!r} needs: `pip install 'actguide-harness[postgres]'`"
        ) from error
    except OSError as error:
        raise HarnessError(f"the folder of {url!r} cannot be made: {error}. Set HARNESS_HOME to a writable folder.") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: sqlite3.Connection, record: object) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_SECONDS * 1000}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def _lock_for_upgrade(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})"))
