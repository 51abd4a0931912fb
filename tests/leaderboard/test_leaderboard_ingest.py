"""Ingest: the same rows whatever the number of readings, interruptions, torn tails and rewinds."""

import itertools
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from leaderboard_logs import Episode, Recipe, build, evaluate, record_attempt, start
from sqlalchemy import Engine, create_engine, inspect, select, text

from harness.errors import HarnessError, RunLogError, UsageError
from harness.events import Kind, Recorder
from leaderboard.database import default_url, open_database, upgrade
from leaderboard.ingest import ingest, ingest_all, ingest_run, rebuild
from leaderboard.schema import Base, Judgement, JudgePair, JudgeTally
from leaderboard.store import Store

SMALL = Recipe(model="tiny", method="actguide", steps=4, groups=4, questions=8)


def dump(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    with engine.connect() as connection:
        tables = Base.metadata.sorted_tables
        return {t.name: sorted((tuple(map(repr, row)) for row in connection.execute(select(t))), key=repr) for t in tables}


def database(home: Path) -> Engine:
    return open_database(default_url(home))


def test_ingesting_twice_changes_nothing(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    ingest(run_dir)
    engine = database(tmp_path)
    once = dump(engine)
    assert len(once["attempts"]) == 8 + 4 * 2 * 4
    assert ingest_run(engine, run_dir) == 0
    assert dump(engine) == once


def test_a_disk_that_fills_up_under_the_database_is_said_in_words_and_the_rest_is_read_later(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    engine = database(tmp_path)
    with largest_file(200_000), pytest.raises(HarnessError, match=r"database cannot take in .*: .*(full|disk I/O).*make room"):
        ingest_run(engine, run_dir)
    ingest_run(engine, run_dir)
    assert len(dump(engine)["attempts"]) == 8 + 4 * 2 * 4


def test_reading_every_event_again_from_the_start_changes_nothing(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    engine = database(tmp_path)
    ingest_run(engine, run_dir)
    once = dump(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE runs SET cursor = NULL"))
    assert ingest_run(engine, run_dir) > 100
    assert dump(engine) == once


def test_piecewise_reading_equals_one_reading(tmp_path: Path) -> None:
    whole = build(tmp_path / "runs", SMALL)
    lines = next((whole / "events").glob("*.jsonl")).read_bytes().splitlines(keepends=True)
    piecewise = tmp_path / "other" / "runs" / whole.name
    (piecewise / "events").mkdir(parents=True)
    engine = open_database(f"sqlite:///{tmp_path / 'piecewise.sqlite'}")
    for start_line in range(0, len(lines), 17):
        with (piecewise / "events" / "main-0.jsonl").open("ab") as file:
            file.write(b"".join(lines[start_line : start_line + 17]))
        ingest_run(engine, piecewise)
    ingest(whole)
    pieces, at_once = dump(engine), dump(database(tmp_path))
    for name in ("attempts", "judgements", "credits", "groups", "steps", "histograms", "evaluations", "scores"):
        drop_place = [tuple(v for v in row if ".jsonl:" not in v) for row in pieces[name]]
        assert drop_place == [tuple(v for v in row if ".jsonl:" not in v) for row in at_once[name]], name


def test_a_torn_tail_waits_until_its_line_is_whole(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    log = next((run_dir / "events").glob("*.jsonl"))
    content = log.read_bytes()
    cut = content.rstrip(b"\n").rfind(b"\n") + 20
    log.write_bytes(content[:cut])
    engine = database(tmp_path)
    ingest_run(engine, run_dir)
    run = Store(engine).run(run_dir.name)
    assert run is not None and run.status == "started"
    log.write_bytes(content)
    assert ingest_run(engine, run_dir) == 1
    run = Store(engine).run(run_dir.name)
    assert run is not None and run.status == "finished"


def test_a_reader_killed_at_random_loses_and_doubles_nothing(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", Recipe(model="tiny", method="actguide", steps=30, questions=40))
    code = "import sys, pathlib, leaderboard.ingest as i; i.EVENTS_A_COMMIT = 100; i.ingest(pathlib.Path(sys.argv[1]))"
    rng = random.Random(0)
    for _ in range(3):
        reader = subprocess.Popen([sys.executable, "-c", code, str(run_dir)])
        time.sleep(0.5 + rng.random() * 0.4)
        reader.kill()
        reader.wait()
    ingest(run_dir)
    clean = open_database(f"sqlite:///{tmp_path / 'clean.sqlite'}")
    ingest_run(clean, run_dir)
    assert dump(database(tmp_path)) == dump(clean)


def test_a_rewind_takes_back_later_training_steps_and_what_was_measured_after_them(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    engine = database(tmp_path)
    ingest_run(engine, run_dir)
    with Recorder(run_dir) as log:
        log.record(Kind.REWIND, {"step": 2})
    ingest_run(engine, run_dir)
    rows = dump(engine)
    run = Store(engine).run(run_dir.name)
    assert run is not None
    assert {g.step for g in Store(engine).groups(run.key)} == {0, 1}
    assert {step for step, _ in Store(engine).series(run.key)["reward/mean"]} == {0, 1}
    assert len(rows["attempts"]) == len(rows["judgements"]) == 2 * 2 * 4
    assert rows["evaluations"] == rows["scores"] == rows["checkpoints"] == []


def test_a_rewind_keeps_the_evaluation_of_the_weights_it_returns_to(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    with Recorder(run_dir) as log:
        log.record(Kind.REWIND, {"step": SMALL.steps})
    ingest(run_dir)
    row = Store(database(tmp_path)).scores()[0]
    assert row["step"] == SMALL.steps and row["n"] == 8


def test_a_regrade_replaces_the_verdict_and_the_score(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "r"
    recipe = Recipe(model="tiny", method="base", questions=4)
    with Recorder(run_dir) as log:
        start(log, recipe)
        evaluation = evaluate(log, recipe, -1.0, random.Random(0))
    ingest(run_dir)
    assert Store(database(tmp_path)).scores()[0]["score"] == 0.0
    with Recorder(run_dir, writer="regrade") as log:
        again = {
            "attempt_id": f"{evaluation}/test-000/k0/0",
            "judge": "llm",
            "value": 1.0,
            "status": "judged",
            "layer": "llm",
            "detail": "",
        }
        log.record(Kind.JUDGEMENT, again)
    ingest(run_dir)
    assert Store(database(tmp_path)).scores()[0]["score"] == 0.25


def slow_tallies(engine: Engine) -> dict[tuple[int, str], list[int]]:
    """Accepted, refused and undecided verdicts by run and judge, counted one by one."""
    found: dict[tuple[int, str], list[int]] = {}
    with engine.connect() as connection:
        for run, judge, value in connection.execute(select(Judgement.run, Judgement.judge, Judgement.value)):
            found.setdefault((run, judge), [0, 0, 0])[2 if value is None else int(value <= 0.5)] += 1
    return found


def slow_pairs(engine: Engine) -> dict[tuple[int, str, str], list[int]]:
    """Both right, both wrong, only a, only b; a is the retired verdict, or the first by name of two retired ones."""
    by_attempt: dict[tuple[int, str], list[tuple[bool, str, float]]] = {}
    columns = (Judgement.run, Judgement.attempt_id, Judgement.current, Judgement.judge, Judgement.value)
    with engine.connect() as connection:
        for run, attempt, current, judge, value in connection.execute(select(*columns)):
            if value is not None:
                by_attempt.setdefault((run, attempt), []).append((current, judge, value))
    found: dict[tuple[int, str, str], list[int]] = {}
    for (run, _), verdicts in by_attempt.items():
        for (_, a, x), (_, b, y) in itertools.combinations(sorted(verdicts), 2):
            cell = {(True, True): 0, (False, False): 1, (True, False): 2, (False, True): 3}[x > 0.5, y > 0.5]
            found.setdefault((run, a, b), [0, 0, 0, 0])[cell] += 1
    return found


def quick_counts(engine: Engine) -> tuple[dict[tuple[int, str], list[int]], dict[tuple[int, str, str], list[int]]]:
    with engine.connect() as connection:
        tallies, pairs = (connection.execute(select(table.__table__)).all() for table in (JudgeTally, JudgePair))
    return {(row[0], row[1]): list(row[2:]) for row in tallies}, {(row[0], row[1], row[2]): list(row[3:]) for row in pairs}


def before_counts(engine: Engine) -> None:
    """Take away what revisions 0005 and 0006 added: the rows are then as the version before left them."""
    exchanged = ("DROP INDEX runs_by_model", "DROP INDEX attempts_by_verdict", "DROP INDEX attempts_by_evaluation")
    exchanged += ("CREATE INDEX attempts_by_evaluation ON attempts (run, evaluation_id)", "ALTER TABLE attempts DROP COLUMN passed")
    added = ("CREATE INDEX judgements_by_judge ON judgements (judge, value)", *exchanged)
    added += ("DROP TABLE judge_tallies", "DROP TABLE judge_pairs")
    added += ("ALTER TABLE evaluations DROP COLUMN outcomes", "ALTER TABLE evaluations DROP COLUMN truncated")
    with engine.begin() as connection:
        for one in (*added, "UPDATE alembic_version SET version_num = '0004'"):
            connection.execute(text(one))


def test_endings_and_cut_answers_are_counted_with_the_evaluation_and_by_an_upgrade(tmp_path: Path) -> None:
    rng, head = random.Random(0), {"evaluation_id": "e", "benchmark": "miniweb", "split": "test", "step": 0, "n": 3, "judge": "exact"}
    head |= {"model": "tiny", "method": "base", "seed": 0, "comparability": "c"}
    tried = (("t0", True, "answered"), ("t0", True, "answered"), ("t1", False, "truncated"), ("t1", True, "answered"), ("t2", None, ""))
    with Recorder(tmp_path / "runs" / "r") as log:
        start(log, Recipe(model="tiny", method="base"))
        log.record(Kind.EVALUATION, {"phase": "started", **head})
        for index, (task, right, status) in enumerate(tried):
            hops, place = 2 + (task == "t1"), index % 2
            episode = Episode(
                task_id=task, question="?", hops=hops, right=right, purpose="eval", evaluation="e", index=place, status=status
            )
            record_attempt(log, episode, rng)
        log.record(Kind.EVALUATION, {"phase": "finished", **head})
    ingest(tmp_path / "runs" / "r")
    engine = database(tmp_path)
    found = dump(engine)["evaluations"]
    (whole,) = (row for row in Store(engine).scores() if (row["metric"], row["part"]) == ("pass@1", ""))
    assert whole["outcomes"] == {"right": 3, "tool_outage": 1, "truncated": 1}
    assert whole["score"] == 0.75 and whole["bounds"] == pytest.approx([0.5, 1.0])  # t2 is open, and half of t1
    (cut,) = (row for row in Store(engine).scores() if (row["metric"], row["part"]) == ("pass@1", "hops=3"))
    assert cut["score"] == 0.5 and cut["bounds"] == pytest.approx([0.5, 1.0])
    before_counts(engine)
    upgrade(engine)
    assert dump(engine)["evaluations"] == found


def test_counted_verdicts_are_those_of_a_slow_count_after_regrades_rewinds_and_an_upgrade(tmp_path: Path) -> None:
    run_dir, rng = build(tmp_path / "runs", SMALL), random.Random(0)
    build(tmp_path / "runs", Recipe(model="tiny", method="base", questions=4))
    engine = database(tmp_path)
    ingest_all(engine, tmp_path / "runs")
    attempts = [row[1].strip("'") for row in dump(engine)["attempts"] if SMALL.run_id in row[1] or "train" in row[4]]
    with Recorder(run_dir, writer="regrade") as log:
        for judge in ("llm:b", "llm:a", "llm:b"):
            for attempt in rng.sample(attempts, 12):
                value = rng.choice([0.0, 1.0, None])
                verdict = {"attempt_id": attempt, "judge": judge, "value": value, "layer": "llm", "detail": ""}
                log.record(Kind.JUDGEMENT, verdict | {"status": "judged" if value is not None else "undecided"})
    ingest_all(engine, tmp_path / "runs")
    tallies, pairs = quick_counts(engine)
    assert len(pairs) >= 3 and sum(tallies[next(key for key in tallies if key[1] == "llm:a")]) == 12
    assert (tallies, pairs) == (slow_tallies(engine), slow_pairs(engine))
    before_counts(engine)
    upgrade(engine)
    assert quick_counts(engine) == (tallies, pairs)
    with Recorder(run_dir, writer="regrade") as log:
        log.record(Kind.REWIND, {"step": 2})
    ingest_all(engine, tmp_path / "runs")
    assert quick_counts(engine) == (slow_tallies(engine), slow_pairs(engine)) != (tallies, pairs)
    rebuild(engine, tmp_path / "runs")
    assert quick_counts(engine) == (slow_tallies(engine), slow_pairs(engine))


def test_an_outage_lowers_coverage_and_never_counts_as_wrong(tmp_path: Path) -> None:
    run_dir, rng = tmp_path / "runs" / "r", random.Random(0)
    head = {"evaluation_id": "e", "benchmark": "miniweb", "split": "test", "step": 0, "n": 4, "judge": "exact"}
    head |= {"model": "tiny", "method": "base", "seed": 0, "comparability": "c"}
    with Recorder(run_dir) as log:
        start(log, Recipe(model="tiny", method="base"))
        log.record(Kind.EVALUATION, {"phase": "started", **head})
        for i, right in enumerate((True, False, None, None)):
            record_attempt(log, Episode(task_id=f"t{i}", question="?", hops=2, right=right, purpose="eval", evaluation="e"), rng)
        log.record(Kind.EVALUATION, {"phase": "finished", **head})
    ingest(run_dir)
    (row,) = Store(database(tmp_path)).scores()
    assert (row["score"], row["n"], row["coverage"]) == (0.5, 2, 0.5)


def test_an_unfinished_evaluation_has_no_score(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    log = next((run_dir / "events").glob("*.jsonl"))
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-2]))
    ingest(run_dir)
    assert Store(database(tmp_path)).scores() == []


def test_a_rebuild_gives_the_rows_of_the_live_reading(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    engine = database(tmp_path)
    ingest_run(engine, run_dir)
    live = dump(engine)
    reading = rebuild(engine, tmp_path / "runs")
    rebuilt = dump(engine)
    assert reading.events > 100 and reading.problems == ()
    assert {k: len(v) for k, v in rebuilt.items()} == {k: len(v) for k, v in live.items()}
    assert rebuilt["scores"] == live["scores"]


def test_a_run_outside_the_runs_folder_is_followed_and_rebuilt_too(tmp_path: Path) -> None:
    elsewhere = build(tmp_path / "elsewhere", SMALL).rename(tmp_path / "elsewhere" / "out")
    engine = database(tmp_path)
    ingest_run(engine, elsewhere)
    with Recorder(elsewhere) as log:
        log.record(Kind.RUN, {"phase": "failed", "run_id": SMALL.run_id, "error": "x"})
    assert ingest_all(engine, tmp_path / "runs").events == 1
    assert rebuild(engine, tmp_path / "runs").events > 100
    assert [r.run_id for r in Store(engine).runs()] == [SMALL.run_id]


def test_a_moved_run_is_found_again_and_a_copied_one_refused(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    engine = database(tmp_path)
    ingest_run(engine, run_dir)
    moved = run_dir.rename(run_dir.with_name("moved"))
    assert ingest_run(engine, moved) == 0
    (run,) = Store(engine).runs()
    assert run.folder == str(moved)
    shutil.copytree(moved, run_dir)
    with pytest.raises(RunLogError, match="already read from"):
        ingest_run(engine, run_dir)


def test_an_event_without_its_fields_is_named_and_spares_other_runs(tmp_path: Path) -> None:
    with Recorder(tmp_path / "runs" / "a") as log:
        log.record(Kind.JUDGEMENT, {"attempt_id": "x"})
    build(tmp_path / "runs", SMALL)
    engine = database(tmp_path)
    reading = ingest_all(engine, tmp_path / "runs")
    assert len(reading.problems) == 1 and "judgement event without" in reading.problems[0]
    assert [r.run_id for r in Store(engine).runs()] == [SMALL.run_id]


def test_several_processes_may_create_and_fill_one_database_at_once(tmp_path: Path) -> None:
    runs = [build(tmp_path / "runs", Recipe(model=f"m{i}", method="base", questions=30)) for i in range(2)]
    code = "import sys, pathlib, leaderboard.ingest as i; i.EVENTS_A_COMMIT = 7; i.ingest(pathlib.Path(sys.argv[1]))"
    readers = [subprocess.Popen([sys.executable, "-c", code, str(runs[i % 2])]) for i in range(6)]
    assert [r.wait() for r in readers] == [0] * 6
    clean = open_database(f"sqlite:///{tmp_path / 'clean.sqlite'}")
    ingest_all(clean, tmp_path / "runs")
    found, expected = dump(database(tmp_path)), dump(clean)
    assert {k: len(v) for k, v in found.items()} == {k: len(v) for k, v in expected.items()}
    assert [row[2:] for row in found["scores"]] == [row[2:] for row in expected["scores"]]


def test_a_closing_event_that_leaves_settings_out_keeps_them(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", SMALL)
    with Recorder(run_dir) as log:
        log.record(Kind.RUN, {"phase": "finished", "run_id": SMALL.run_id, "config": {}, "provenance": {}, "model": "", "seed": 0})
    ingest(run_dir)
    run = Store(database(tmp_path)).run(SMALL.run_id)
    assert run is not None and run.model == "tiny" and run.seed == 0 and run.recipe
    assert run.config["model"] == "tiny" and run.provenance["git_sha"] == "b781aeb"


def test_only_runs_whose_log_grew_are_read_again(tmp_path: Path) -> None:
    build(tmp_path / "runs", SMALL)
    engine = database(tmp_path)
    assert ingest_all(engine, tmp_path / "runs").events > 0
    assert ingest_all(engine, tmp_path / "runs").events == 0


def test_the_migrations_build_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'm.sqlite'}")
    upgrade(engine)
    upgrade(engine)
    plain = create_engine("sqlite://")
    Base.metadata.create_all(plain)
    shapes = []
    for one in (engine, plain):
        view = inspect(one)
        names = sorted(set(view.get_table_names()) - {"alembic_version"})
        columns = {n: [(c["name"], str(c["type"]), c["nullable"]) for c in view.get_columns(n)] for n in names}
        indexes = {n: sorted((i["name"], tuple(i["column_names"])) for i in view.get_indexes(n)) for n in names}
        keys = {n: view.get_pk_constraint(n)["constrained_columns"] for n in names}
        shapes.append((columns, indexes, keys))
    assert shapes[0] == shapes[1]


def test_the_database_waits_instead_of_failing_when_busy_and_uses_wal(tmp_path: Path) -> None:
    with database(tmp_path).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_a_folder_without_events_is_refused_with_what_a_run_directory_is(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"no events/ folder"):
        ingest_run(database(tmp_path), tmp_path)


def test_a_malformed_database_url_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="HARNESS_DATABASE_URL"):
        open_database("not a url")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.sqlite").write_text("hello " * 1000)
    with pytest.raises(HarnessError, match="leaderboard.sqlite"):
        database(tmp_path)
