"""Endings by their own names, bounds around missing verdicts, repeated attempts, calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.events import Kind, Recorder
from harness.metrics import calibration_error
from harness.records import attempt_record, judgement_record
from harness.types import Attempt, Purpose, Score, ScoreStatus, Status, Task, Trajectory
from leaderboard.database import default_url, open_database
from leaderboard.ingest import ingest
from leaderboard.outcomes import bounds, outcome
from leaderboard.scoring import Question, aggregate
from leaderboard.standings import Measurement, build, differing_parts
from leaderboard.store import Store

MEASURED: dict[str, object] = {
    "run_id": "r",
    "evaluation_id": "e",
    "model": "m",
    "method": "base",
    "recipe": "r",
    "seed": 0,
    "step": 0,
    "benchmark": "xbench",
    "split": "test",
    "n": 4,
    "judge": "exact",
    "comparability": "c",
    "at": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("status", "verdict", "value", "name"),
    [
        ("answered", "judged", 1.0, "right"),
        ("answered", "judged", 0.0, "wrong"),
        ("truncated", "judged", 0.0, "truncated"),
        ("turn_limit", "judged", 0.0, "turn_limit"),
        ("no_answer", "judged", 0.0, "no_answer"),
        ("tool_outage", "outage", None, "tool_outage"),
        ("engine_error", "outage", None, "engine_error"),
        ("answered", "undecided", None, "undecided"),
        ("answered", "parse_error", None, "parse_error"),
        ("answered", "transport_error", None, "transport_error"),
        ("answered", "refused", None, "refused"),
        ("answered", None, None, "unjudged"),
    ],
)
def test_only_a_judged_wrong_answer_is_wrong(status: str, verdict: str | None, value: float | None, name: str) -> None:
    assert outcome(status, verdict, value) == name


def test_bounds_are_all_missing_wrong_and_all_missing_right() -> None:
    assert bounds(0.5, 0.8) == (pytest.approx(0.4), pytest.approx(0.6))
    assert bounds(0.25, 1.0) == (0.25, 0.25)


def test_a_truncated_answer_counts_as_wrong_and_is_open_upwards() -> None:
    assert bounds(0.5, 0.8, truncated=0.1) == (pytest.approx(0.4), pytest.approx(0.7))
    cut = MEASURED | {"verdicts": {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}, "truncated": 1.0}
    ((cell,),) = [entry.cells.values() for entry in build([Measurement(**cut)]).entries]  # type: ignore[arg-type]
    assert "1 question with a truncated answer, counted as wrong; with them the score lies between 25.0% and 50.0%" in cell.notes


def question(n: int, *rewards: float | None, confidences: tuple[float | None, ...] = (), **tags: str) -> Question:
    return Question(task_id=f"q{n}", tags=tags, rewards=rewards, confidences=confidences or (None,) * len(rewards))


def values(questions: list[Question], expected: int | None = None) -> dict[tuple[str, str], tuple[float, float]]:
    rows = aggregate(questions, expected or len(questions))
    return {(row["metric"], row["part"]): (round(row["score"], 6), round(row["coverage"], 6)) for row in rows}


def test_repeated_attempts_give_avg_pass_and_reliability_at_k() -> None:
    found = values([question(0, 1.0, 0.0, 0.0, 0.0), question(1, 1.0, 1.0, 1.0, 1.0)])
    assert found["pass@1", ""] == found["avg@4", ""] == (0.625, 1.0)
    assert found["pass@2", ""][0] == 0.75  # (1 - C(3,2)/C(4,2) + 1) / 2
    assert (found["pass@4", ""][0], found["pass^2", ""][0], found["pass^4", ""][0]) == (1.0, 0.5, 0.5)


def test_one_attempt_a_question_has_no_k() -> None:
    assert {metric for metric, _ in values([question(0, 1.0), question(1, 0.0)])} == {"pass@1"}


def test_scores_are_broken_down_by_every_tag_that_varies() -> None:
    questions = [question(0, 1.0, level="1", language="zh"), question(1, 0.0, level="2", language="zh"), question(2, None, level="2")]
    found = values([*questions[:2], question(2, None, level="2", language="en")])
    assert found["pass@1", "level=1"] == (1.0, 1.0) and found["pass@1", "level=2"] == (0.0, 0.5)
    assert found["pass@1", "language=zh"] == (0.5, 1.0) and ("pass@1", "language=en") not in found
    assert found["pass@1", ""] == (0.5, round(2 / 3, 6))


def test_calibration_error_is_the_share_weighted_gap_of_five_bins() -> None:
    assert calibration_error([0.9, 0.9, 0.1], [1.0, 0.0, 0.0]) == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.1)
    assert calibration_error([1.0, 1.0], [1.0, 1.0]) == 0.0
    assert calibration_error([0.2, 0.19], [1.0, 0.0]) == pytest.approx(0.5 * 0.8 + 0.5 * 0.19)  # 20% opens the second bin
    with pytest.raises(HarnessError, match="no answer stated"):
        calibration_error([], [])


def test_only_stated_confidences_of_judged_answers_count() -> None:
    questions = [
        question(0, 1.0, confidences=(0.9,)),
        question(1, 0.0, confidences=(0.7,)),
        question(2, 1.0, confidences=(None,)),
        question(3, None, confidences=(1.0,)),
    ]
    found = values(questions)
    assert found["calibration_error", ""] == (pytest.approx(0.5 * 0.1 + 0.5 * 0.7), round(2 / 4, 6))
    assert ("calibration_error", "") not in values([question(0, 1.0)])


def test_a_cell_below_full_coverage_says_between_which_scores_it_lies() -> None:
    board = build([Measurement(**MEASURED, verdicts={"a": 1.0, "b": 0.0})])  # type: ignore[arg-type]
    ((cell,),) = [entry.cells.values() for entry in board.entries]
    assert any("coverage 50%" in note and "between 25.0% and 75.0%" in note for note in cell.notes)


def test_unlike_codes_name_the_setting_in_which_they_differ() -> None:
    here = Measurement(
        **MEASURED, code_parts={"limits": {"agent": {"max_turns": 30}, "sample_seconds": None}, "tools": {"web": "corpus:a"}}
    )  # type: ignore[arg-type]
    there = replace(here, code_parts={"limits": {"agent": {"max_turns": 4}, "sample_seconds": 60.0}, "tools": {"web": "corpus:b"}})
    assert differing_parts(here, there) == [
        "limits.agent.max_turns 30, there 4",
        "limits.sample_seconds unset, there 60.0",
        "tools.web corpus:a, there corpus:b",
    ]


def test_bounds_of_the_whole_and_of_its_parts_leave_truncated_attempts_open(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    who = {"run_id": "r", "command": "eval", "model": "m", "method": "base", "seed": 0, "config": {"model": "m"}, "error": None}
    head = {"evaluation_id": "e", "benchmark": "b", "split": "test", "step": 0, "n": 2, "judge": "exact", "seed": 0, "model": "m"}
    head |= {"method": "base", "comparability": "c"}
    ends = {
        (0, 0): (Status.TRUNCATED, 0.0),
        (0, 1): (Status.ANSWERED, 1.0),
        (1, 0): (Status.ANSWERED, 0.0),
        (1, 1): (Status.TURN_LIMIT, 0.0),
    }
    with Recorder(folder) as log:
        log.record(Kind.RUN, {**who, "phase": "started", "provenance": {}, "parent": None})
        for (number, epoch), (status, value) in ends.items():
            task = Task(id=f"q{number}", question="?", gold=("x",), tags={"level": str(number + 1)})
            empty: dict[str, Any] = {"trajectory": Trajectory(contexts=(), spans=()), "target": (), "turns": (), "answer": None}
            attempt = Attempt(id=f"{number}/{epoch}", task=task, purpose=Purpose.EVAL, status=status, index=epoch, **empty)
            log.record(Kind.ATTEMPT, attempt_record(attempt, seconds=0.0, evaluation_id="e"))
            score = Score(value=value, status=ScoreStatus.JUDGED, layer="exact")
            log.record(Kind.JUDGEMENT, judgement_record(attempt.id, "exact", score))
        log.record(Kind.EVALUATION, {"phase": "finished", **head})
    ingest(folder)
    engine = open_database(default_url(tmp_path))
    rows = {row["part"]: (row["score"], row["bounds"]) for row in Store(engine).scores() if row["metric"] == "pass@1"}
    assert rows == {"": (0.25, [0.25, 0.5]), "level=1": (0.5, [0.5, 1.0]), "level=2": (0.0, [0.0, 0.0])}
    engine.dispose()
