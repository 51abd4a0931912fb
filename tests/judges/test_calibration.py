"""The shipped cases hold the exact judge to its promise, and the report counts what it says."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.judge import judge as command
from harness.errors import DataError
from harness.types import Score, ScoreStatus
from judges.calibration import Case, Report, calibrate, read_cases, wilson
from judges.exact import ExactJudge
from leaderboard.calibrations import calibrate_command, read_calibrations


class Fixed:
    """A judge with one verdict for everything."""

    name = "fixed"

    def __init__(self, score: Score) -> None:
        self._score = score

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        return self._score


def report_of(score: Score) -> Report:
    cases = [Case(question="q", gold=("g",), answer="a", correct=n % 4 == 0, kind="even" if n % 2 == 0 else "odd") for n in range(8)]
    return asyncio.run(calibrate(Fixed(score), cases))


def test_the_exact_judge_keeps_its_promise_on_the_shipped_cases() -> None:
    overall = asyncio.run(calibrate(ExactJudge(), read_cases())).overall
    assert overall.false_accepts.count == 0
    assert overall.decided >= 0.6 * overall.cases
    assert overall.false_rejects.count <= 0.02 * overall.decided


def test_a_closed_exact_judge_accepts_nothing_wrong_either() -> None:
    overall = asyncio.run(calibrate(ExactJudge(closed=True), read_cases())).overall
    assert (overall.false_accepts.count, overall.undecided.count) == (0, 0)


def test_the_shipped_cases_are_many_of_every_kind_distinct_and_in_two_languages() -> None:
    cases = read_cases()
    kinds = {case.kind for case in cases}
    assert len(cases) >= 200
    assert kinds == {"paraphrase", "near-miss", "hedge", "empty", "master-key", "injection", "zh", "units", "dates", "numbers", "lists"}
    assert all(sum(case.kind == kind for case in cases) >= 10 for kind in kinds)
    assert len({(case.question, case.gold, case.answer) for case in cases}) == len(cases)
    assert 0.3 < sum(case.correct for case in cases) / len(cases) < 0.7


def test_a_judge_that_accepts_everything_has_false_accepts_only() -> None:
    report = report_of(Score(value=1.0, status=ScoreStatus.JUDGED, layer="x"))
    assert (report.overall.false_accepts.count, report.overall.false_accepts.of) == (6, 6)
    assert (report.overall.false_rejects.count, report.overall.undecided.count) == (0, 0)
    assert (report.kinds["even"].cases, report.kinds["odd"].false_accepts.count, len(report.mistakes)) == (4, 4, 6)


def test_a_judge_that_refuses_everything_has_false_rejects_only() -> None:
    overall = report_of(Score(value=0.0, status=ScoreStatus.JUDGED, layer="x")).overall
    assert (overall.false_accepts.count, overall.false_rejects.count, overall.false_rejects.of) == (0, 2, 8)


def test_an_outage_is_undecided_with_its_reason_and_never_a_mistake() -> None:
    report = report_of(Score(value=None, status=ScoreStatus.TRANSPORT_ERROR, layer="x"))
    assert (report.overall.undecided.rate, report.overall.decided, report.mistakes) == (1.0, 0, ())
    assert report.statuses == {"transport_error": 8}


def test_wilson_intervals_have_their_known_values() -> None:
    none, half = wilson(0, 10), wilson(50, 100)
    assert [none.low, none.high, half.low, half.high] == pytest.approx([0.0, 0.27753, 0.40383, 0.59617], abs=1e-5)
    assert wilson(0, 0).rate is None


def test_a_malformed_case_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    good = {"question": "q", "gold": ["a", "b"], "answer": "", "correct": False, "kind": "k"}
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"correct": "yes"}))
    with pytest.raises(DataError, match=r"cases\.jsonl, row 2: 'correct' is a string .* expected true or false"):
        read_cases(path)


def test_the_command_prints_json_and_a_table(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"question": "How many?", "gold": "24", "answer": "24", "correct": false, "kind": "k"}\n')
    printed = CliRunner().invoke(
        command, ["calibrate", "--judge", "exact", "--cases", str(path), "--format", "json"], catch_exceptions=False
    )
    data = json.loads(printed.output)
    assert (data["judge"], data["false_accepts"]["count"], data["undecided"]["count"]) == ("exact", 1, 0)
    assert data["kinds"]["k"]["false_accepts"]["rate"] == 1.0
    table = CliRunner().invoke(command, ["calibrate", "--judge", "exact", "--cases", str(path)], catch_exceptions=False).output
    assert "WRONG [exact:alias]" in table


@pytest.mark.parametrize("judge", ["exact", "exact-closed"])
def test_the_command_that_a_page_names_calibrates_that_judge(judge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    words = shlex.split(calibrate_command(judge))
    done = CliRunner().invoke(command, [*words[2:], "--format", "json"])
    assert done.exit_code == 0 and set(read_calibrations(tmp_path)) == {judge}


def test_the_command_for_a_judging_model_names_the_model_and_asks_for_the_address() -> None:
    assert calibrate_command("llm:qwen/q3:8b@1f2e") == "harness judge calibrate --judge 'llm:URL#qwen/q3:8b'"
