"""SQLite and PostgreSQL alike: upgrades with data in them, the same rows, pages, and several writers at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from leaderboard_logs import Recipe, build
from soak import soak
from sqlalchemy import Engine, MetaData, Table, create_engine, select, text
from sqlalchemy.types import JSON, Boolean, Float, Integer, LargeBinary
from starlette.testclient import TestClient
from test_leaderboard_ingest import SMALL, dump

from leaderboard.database import HEAD, MIGRATIONS, open_database
from leaderboard.ingest import ingest_all, rebuild
from leaderboard.schema import Base
from leaderboard.store import Store
from leaderboard.web.app import Site, create_app


def script_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def revisions() -> list[str]:
    """From the oldest to the newest."""
    return [script.revision for script in reversed(list(ScriptDirectory.from_config(script_config()).walk_revisions()))]


def at_revision(url: str, revision: str) -> Engine:
    """A database as an earlier version of the harness left it, with two rows in every table."""
    engine, config = create_engine(url), script_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    for table in old_tables(engine):
        with engine.begin() as connection:
            connection.execute(table.insert(), [row_of(table, 1), row_of(table, 2)])
    return engine


def old_tables(engine: Engine) -> list[Table]:
    found = MetaData()
    found.reflect(engine)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def row_of(table: Table, number: int) -> dict[str, Any]:
    def value(column: Any) -> Any:
        kind = column.type
        if isinstance(kind, JSON):
            return {"n": number}
        if isinstance(kind, Boolean):
            return True
        if isinstance(kind, LargeBinary):
            return b"packed"
        return number if isinstance(kind, Integer) else number / 2 if isinstance(kind, Float) else f"text {number}"

    return {column.name: value(column) for column in table.columns}


def contents(engine: Engine, table: Table) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return sorted((tuple(row) for row in connection.execute(select(table))), key=repr)


def test_the_revisions_are_one_line_that_ends_where_the_code_expects() -> None:
    script = ScriptDirectory.from_config(script_config())
    assert script.get_heads() == [HEAD] and script.get_bases() == ["0001"]


@pytest.mark.parametrize("revision", revisions()[:-1])
def test_an_upgrade_keeps_every_row_of_an_earlier_revision(database_url: str, revision: str) -> None:
    engine = at_revision(database_url, revision)
    before = {table.name: (table, contents(engine, table)) for table in old_tables(engine)}
    open_database(database_url)
    for name, (table, rows) in before.items():
        if name == "runs":  # an upgrade may ask for the logs to be read again
            kept = [c for c in table.columns if c.name not in ("cursor", "log_bytes")]
            with engine.connect() as connection:
                assert len(connection.execute(select(*kept)).all()) == 2
        else:
            assert contents(engine, table) == rows, name
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD


@pytest.mark.parametrize("revision", revisions()[:-1])
def test_after_an_upgrade_the_logs_fill_what_is_new(tmp_path: Path, database_url: str, revision: str) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    at_revision(database_url, revision)
    engine = open_database(database_url)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):  # the made-up rows
            connection.execute(table.delete())
        known = "INSERT INTO runs (run_id, folder, log_bytes, command, model, method, recipe, status, config, provenance) "
        values = "VALUES (:run, :folder, 0, '', '', '', '', 'started', '{}', '{}')"
        connection.execute(text(known + values), {"run": SMALL.run_id, "folder": str(run_dir)})
    ingest_all(engine, tmp_path / "runs")
    rows = dump(engine)
    assert [row[1:3] for row in rows["provenance"]] == [("'b781aeb'", rows["provenance"][0][2])]
    assert rows["models"] == [("'tiny'", "'tiny'")] and rows["methods"][0][1] == "'actguide'"
    assert rows["benchmark_versions"] == [("'miniweb'", "'test'", "''", "8")]
    assert len(rows["turns"]) > len(rows["attempts"])


def test_both_databases_hold_the_same_rows_and_serve_the_same_pages(tmp_path: Path, database_url: str) -> None:
    for method in ("base", "actguide"):
        build(tmp_path / "runs", Recipe(model="tiny", method=method, steps=3, groups=3, questions=6))
    engine, plain = open_database(database_url), open_database(f"sqlite:///{tmp_path / 'plain.sqlite'}")
    for one in (engine, plain):
        ingest_all(one, tmp_path / "runs")
        rebuild(one, tmp_path / "runs")
    found, expected = dump(engine), dump(plain)
    for name in found.keys() - {"runs", "tokens", "submissions"}:  # keys of runs differ: deleted ones are not given again
        assert len(found[name]) == len(expected[name]) and (found[name] or name in ("diagnostics", "judge_pairs")), name
    assert Store(engine).scores() == Store(plain).scores()
    pages = TestClient(create_app(Site(engine=engine)), base_url="http://127.0.0.1")
    same = TestClient(create_app(Site(engine=plain)), base_url="http://127.0.0.1")
    run = "/runs/tiny-actguide-s0"
    for address in ("/", "/?unfold=miniweb", "/runs", run, f"{run}/samples", f"{run}/samples?purpose=train&verdict=wrong"):
        answer = pages.get(address)
        assert answer.status_code == 200 and answer.text == same.get(address).text, address


@pytest.mark.slow
def test_eight_writers_killed_at_random_lose_and_double_nothing(tmp_path: Path, database_url: str) -> None:
    result = soak(tmp_path, database_url, seconds=10, writers=8)
    assert result.kills >= 4 and result.acknowledged > 0
    assert result.problems == []


@pytest.mark.slow
def test_tables_made_on_postgresql_are_those_of_the_schema(postgres_url: Callable[[], str]) -> None:
    engine = open_database(postgres_url())
    assert {table.name for table in old_tables(engine)} == {table.name for table in Base.metadata.sorted_tables}
