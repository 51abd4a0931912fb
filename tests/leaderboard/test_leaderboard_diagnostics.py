"""Diagnostics travel from the run log to the run's page."""

from __future__ import annotations

from pathlib import Path

from leaderboard_logs import Recipe, build
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from harness.events import Kind, Recorder, current_events
from harness.figures import Chart, Finding, Series, bars
from leaderboard.database import default_url, open_database
from leaderboard.ingest import ingest_run
from leaderboard.store import Store
from leaderboard.web.app import Site, create_app

RECIPE = Recipe(model="tiny", method="actguide", steps=4, groups=4, questions=4)


def finding(step: int, words: str = "barrier at turn 2") -> Finding:
    curve = Chart(title="Pass@32", x="turn", y="share of tasks", series=(Series(name="pass@32", points=((0, 0.0), (1, 0.5))),))
    counts = bars("Actions", "actions", "tasks", [(str(n), n) for n in range(1, 13)])
    empty = Chart(title="Nothing", x="turn", y="y", series=(Series(name="none", points=()),))
    return Finding(name="prefix-pass", title="Prefix Pass@K", step=step, summary=(words,), charts=(curve, counts, empty), data={})


def record(run_dir: Path, *findings: Finding) -> None:
    with Recorder(run_dir, writer="diagnose") as log:
        for each in findings:
            log.record(Kind.DIAGNOSTIC, each.event(f"diagnostics/{each.name}.json"))


def test_the_run_page_shows_the_diagnostic_of_the_latest_weights_with_its_charts_and_tables(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", RECIPE)
    record(run_dir, finding(2, "old words"), finding(4, "<script>alert(1)</script>"))
    site = Site(engine=open_database(default_url(tmp_path)), runs_dir=tmp_path / "runs")
    page = TestClient(create_app(site), base_url="http://127.0.0.1").get(f"/runs/{RECIPE.run_id}").text
    assert "Prefix Pass@K" in page and "old words" not in page and "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page and "weights after 4 training steps" in page and "diagnostics/prefix-pass.json" in page
    assert "turn 0</text>" in page and "Nothing" not in page
    card = page.partition("Prefix Pass@K")[2]
    assert ">0.5</td>" in card and ">12</th>" in card, "each chart has its table"
    assert page.count("<figure") == page.count("<summary>Table</summary>")


def test_a_rewind_forgets_the_diagnostics_of_weights_that_are_gone(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", RECIPE)
    record(run_dir, finding(2), finding(4))
    with Recorder(run_dir) as log:
        log.record(Kind.REWIND, {"step": 2})
    engine = open_database(default_url(tmp_path))
    ingest_run(engine, run_dir)
    run = Store(engine).run(RECIPE.run_id)
    assert run is not None
    assert [d.step for d in Store(engine).diagnostics(run.key)] == [2]
    assert [e.data["step"] for e in current_events(run_dir) if e.kind is Kind.DIAGNOSTIC] == [2]


def test_a_database_of_the_revision_before_gets_the_table_and_keeps_its_rows(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    import leaderboard

    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    config = Config()
    config.set_main_option("script_location", str(Path(leaderboard.__file__).parent / "migrations"))
    with create_engine(url).connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO tasks (key, task_id, question, web, tags) VALUES ('k', 't', 'q', 'w', '{}')"))
        connection.commit()
    with open_database(url).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM diagnostics")).scalar() == 0
        assert connection.execute(text("SELECT task_id FROM tasks")).scalar() == "t"
