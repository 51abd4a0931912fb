"""Lists of attempts: the filters find what a slow look finds, and read the rows that are shown, no others."""

import itertools
import random
from pathlib import Path

import pytest
from leaderboard_logs import Recipe, build
from sqlalchemy import Engine, event, select, text
from test_leaderboard_ingest import before_counts

from harness.events import Kind, Recorder
from leaderboard.database import default_url, open_database, upgrade
from leaderboard.ingest import ingest_all, rebuild
from leaderboard.records import SampleFilter, SampleInfo
from leaderboard.schema import Attempt, Judgement
from leaderboard.store import Store

RECIPE = Recipe(model="tiny", method="actguide", steps=4, groups=4, questions=8)


def judged(engine: Engine) -> dict[str, bool | None]:
    """What the current verdicts say, by attempt."""
    with engine.connect() as connection:
        said = {row.attempt_id: row.value for row in connection.execute(select(Judgement).where(Judgement.current))}
        return {a: None if said.get(a) is None else said[a] > 0.5 for a in connection.scalars(select(Attempt.attempt_id))}


def marked(engine: Engine) -> dict[str, bool | None]:
    """What the attempts repeat of it."""
    with engine.connect() as connection:
        return {row.attempt_id: row.passed for row in connection.execute(select(Attempt.attempt_id, Attempt.passed))}


def test_attempts_repeat_their_current_verdict_after_regrades_rewinds_and_an_upgrade(tmp_path: Path) -> None:
    run_dir, rng = build(tmp_path / "runs", RECIPE), random.Random(0)
    engine = open_database(default_url(tmp_path))
    ingest_all(engine, tmp_path / "runs")
    first = marked(engine)
    assert first == judged(engine) and {True, False} <= {*first.values()}
    with Recorder(run_dir, writer="regrade") as log:
        for attempt in rng.sample(sorted(first), 30):
            value = rng.choice([0.0, 1.0, None])
            verdict = {"attempt_id": attempt, "judge": "llm:b", "value": value, "layer": "llm", "detail": ""}
            log.record(Kind.JUDGEMENT, verdict | {"status": "judged" if value is not None else "undecided"})
    ingest_all(engine, tmp_path / "runs")
    second = marked(engine)
    assert second == judged(engine) != first and None in second.values()
    before_counts(engine)
    upgrade(engine)
    assert marked(engine) == second
    with Recorder(run_dir, writer="regrade") as log:
        log.record(Kind.REWIND, {"step": 2})
    ingest_all(engine, tmp_path / "runs")
    assert marked(engine) == judged(engine) != second
    rebuild(engine, tmp_path / "runs")
    assert marked(engine) == judged(engine)


def test_an_upgrade_brings_the_statistics_of_an_analyzed_database_up_to_date(tmp_path: Path) -> None:
    build(tmp_path / "runs", RECIPE)
    engine = open_database(default_url(tmp_path))
    ingest_all(engine, tmp_path / "runs")
    for analyzed in (False, True):
        before_counts(engine)
        if analyzed:
            with engine.begin() as connection:
                connection.execute(text("ANALYZE"))
        upgrade(engine)
        with engine.connect() as connection:
            if analyzed:
                assert connection.scalar(text("SELECT count(*) FROM sqlite_stat1 WHERE idx = 'attempts_by_verdict'")) == 1
            else:
                assert connection.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'")) == 0


def test_every_filter_finds_what_a_slow_look_finds(board_home: Path) -> None:
    store = Store(open_database(default_url(board_home)))
    run = next(run for run in store.runs() if run.method == "actguide")
    everything, _ = store.samples.page(run.key, SampleFilter(), limit=10**6)
    evaluation = next(s.evaluation_id for s in everything if s.evaluation_id)
    axes = ((None, "train", "probe", "eval"), (None, evaluation), (None, 1), (None, 0, 1), (None, "right", "wrong", "none"))
    found = 0
    for purpose, of, step, level, verdict in itertools.product(*axes):
        wanted = SampleFilter(purpose=purpose, evaluation=of, step=step, level=level, verdict=verdict)
        expected = [s.attempt_id for s in everything if passes(s, wanted)]
        shown, total = store.samples.page(run.key, wanted, limit=7, offset=3)
        assert total == len(expected) and {s.attempt_id for s in shown} <= {*expected}
        assert len(shown) == max(0, min(7, total - 3))
        if of is None:  # lists of an evaluation are in the order of its questions
            assert [s.attempt_id for s in shown] == expected[3:10]
        found += total > 10
    assert found > 10


def passes(sample: SampleInfo, wanted: SampleFilter) -> bool:
    says = "none" if sample.value is None else "right" if sample.value > 0.5 else "wrong"
    pairs = ((wanted.purpose, sample.purpose), (wanted.evaluation, sample.evaluation_id), (wanted.verdict, says))
    return all(w in (None, has) for w, has in (*pairs, (wanted.step, sample.step), (wanted.level, sample.level)))


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize(
    "wanted",
    [
        SampleFilter(),
        SampleFilter(purpose="probe"),
        SampleFilter(verdict="right"),
        SampleFilter(verdict="none"),
        SampleFilter(purpose="train", step=1, verdict="wrong"),
        SampleFilter(evaluation="e"),
        SampleFilter(evaluation="e", verdict="wrong"),
    ],
)
def test_a_page_of_a_list_is_settled_on_an_index_without_sorting_the_run(board_home: Path, wanted: SampleFilter, analyzed: bool) -> None:
    engine = open_database(default_url(board_home))
    store, plans = Store(engine), []
    run = next(run for run in store.runs() if run.method == "actguide")
    with engine.connect() as connection:  # rolled back: what is known of the tables must not matter
        if analyzed:
            connection.execute(text("ANALYZE"))

        def explain(raw: object, cursor: object, statement: str, parameters: tuple[object, ...], *rest: object) -> None:
            if "ORDER BY" in statement:
                plans.append([row[3] for row in connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)])

        event.listen(engine, "before_cursor_execute", explain)
        store.samples.page(run.key, wanted, limit=50)
    ((plan,),) = plans
    assert plan.startswith("SEARCH attempts USING COVERING INDEX attempts_by_")
