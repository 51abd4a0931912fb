"""A finished run judged again: appended, resumable, on the board, sealed sets included; a dead judge changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from judge_server import JudgeServer, ScriptedServer, Step, completion

from benchmarks.base import OWN_RULES
from benchmarks.comparability import Comparability
from benchmarks.regrade import WRITER, Regraded, regrade
from harness.cli.judge import judge as judge_command
from harness.cli.leaderboard import leaderboard
from harness.cli.main import cli, run_command
from harness.cli.regrade import regrade as command
from harness.errors import HarnessError, OutageError
from harness.events import Kind, Recorder, current_events
from harness.records import attempt_record, judgement_record
from harness.types import Attempt, Purpose, Score, ScoreStatus, Status, Task, Trajectory
from judges.attempts import OutageConfig

EVALUATION = "run-1/gaia/test"
PARTS = Comparability(parts={"data": "d1", "judge": "exact", "limits": "l1"})
ANSWERS: Mapping[str, tuple[str | None, Status]] = {
    "same": ("Ann Person", Status.ANSWERED),
    "other-words": ("Ann P., the keeper", Status.ANSWERED),
    "vague": ("somebody called Person", Status.ANSWERED),
    "cut": (None, Status.TRUNCATED),
    "down": (None, Status.TOOL_OUTAGE),
}


def write_run(folder: Path, finished: bool = True, answers: Mapping[str, tuple[str | None, Status]] = ANSWERS) -> Path:
    """A run of questions on a sealed set, as ``exact`` judged it; by default one right, two undecided, one truncated, one outage."""
    head = {"evaluation_id": EVALUATION, "benchmark": "gaia", "split": "test", "step": 0, "n": len(answers), "judge": "exact", "seed": 0}
    head |= {"model": "m", "method": "base", "comparability": PARTS.code, "comparability_parts": dict(PARTS.parts)}
    who = {"run_id": folder.name, "command": "eval", "model": "m", "method": "base", "seed": 0, "config": {"model": "m"}, "error": None}
    scores = {
        "cut": Score(value=0.0, status=ScoreStatus.JUDGED, layer="no-answer"),
        "down": Score(value=None, status=ScoreStatus.OUTAGE, layer="episode", detail="503"),
    }
    right = Score(value=1.0, status=ScoreStatus.JUDGED, layer="exact:alias")
    undecided = Score(value=None, status=ScoreStatus.UNDECIDED, layer="exact:no-match")
    with Recorder(folder) as log:
        log.record(Kind.RUN, {**who, "phase": "started", "provenance": {}, "parent": None})
        log.record(Kind.EVALUATION, {"phase": "started", **head})
        for name, (answer, status) in answers.items():
            attempt = attempt_of(name, answer, status)
            log.record(Kind.ATTEMPT, attempt_record(attempt, seconds=0.0, evaluation_id=EVALUATION))
            log.record(
                Kind.JUDGEMENT, judgement_record(attempt.id, "exact", scores.get(name, right if answer == "Ann Person" else undecided))
            )
        if finished:
            log.record(Kind.EVALUATION, {"phase": "finished", **head})
            log.record(Kind.RUN, {**who, "phase": "finished", "provenance": {}, "parent": None})
    return folder


def attempt_of(name: str, answer: str | None, status: Status) -> Attempt:
    task = Task(id=name, question=f"Secret question {name}?", gold=("Ann Person",), tags={"level": "1"}, sealed=True)
    empty = Trajectory(contexts=(), spans=())
    parts: dict[str, Any] = {"trajectory": empty, "target": (), "turns": (), "status": status, "answer": answer}
    return Attempt(id=f"eval/0/{name}/k0/0", task=task, purpose=Purpose.EVAL, **parts)


class Counting:
    """A judge that accepts answers with ``Ann`` in them, or is down."""

    name = "counting"

    def __init__(self, down: bool = False) -> None:
        self.asked: list[tuple[str, tuple[str, ...], str]] = []
        self._down = down

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        self.asked.append((question, gold, answer))
        if self._down:
            return Score(value=None, status=ScoreStatus.TRANSPORT_ERROR, layer="llm", detail="refused")
        return Score(value=float("Ann" in answer), status=ScoreStatus.JUDGED, layer="llm")


def again(folder: Path, judge: Counting, outages: OutageConfig | None = None) -> Regraded:
    with Recorder(folder, writer=WRITER) as log:
        (found,) = asyncio.run(regrade(folder, judge, log, outages=outages))
    return found


def test_every_answer_is_judged_again_with_its_own_question_and_gold(tmp_path: Path) -> None:
    judge = Counting()
    found = again(write_run(tmp_path / "run-1"), judge)
    assert sorted(judge.asked) == sorted((f"Secret question {n}?", ("Ann Person",), a) for n, (a, _) in ANSWERS.items() if a is not None)
    assert [found.after[f"eval/0/{n}/k0/0"] for n in ANSWERS] == [1.0, 1.0, 0.0, 0.0, None]
    words = (
        "run-1/gaia/test: 50.0% by exact -> 50.0% by counting; coverage 40% -> 80%, so between 40.0% and 80.0% of 5 attempts; 5 judged now"
    )
    assert found.words() == words


def test_the_log_only_grows_and_names_the_new_judge_and_code(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run-1")
    (before,) = (folder / "events").glob("main-*.jsonl")
    content = before.read_bytes()
    again(folder, Counting())
    assert before.read_bytes() == content
    last = [e.data for e in current_events(folder) if e.kind is Kind.EVALUATION][-1]
    expected = PARTS.judged_by("counting")
    assert (last["phase"], last["judge"], last["comparability"]) == ("finished", "counting", expected.code)
    assert last["comparability_parts"] == dict(expected.parts) and expected.code != PARTS.code


def test_a_second_regrade_pays_only_for_what_has_no_verdict_yet(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run-1")
    again(folder, Counting())
    judge = Counting()
    found = again(folder, judge)
    assert (judge.asked, found.judged) == ([], 1)  # the outage is looked at again, and has no answer to judge
    assert found.after["eval/0/same/k0/0"] == 1.0


def test_a_judge_that_is_down_takes_no_verdict_away(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run-1")
    events = len(list(current_events(folder)))
    with pytest.raises(OutageError, match=r"3 of 5 attempts .* The run keeps the scores that it had, .* give the same command again"):
        again(folder, Counting(down=True))
    assert len(list(current_events(folder))) == events


def test_a_judge_that_is_down_for_the_few_answers_it_is_asked_for_takes_no_verdict_away_either(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run-1")
    events = len(list(current_events(folder)))
    with pytest.raises(OutageError, match="answered none of 3 requests"):
        again(folder, Counting(down=True), OutageConfig(retries=0, tolerate=0.9))
    assert len(list(current_events(folder))) == events


def test_an_unfinished_run_is_not_judged_again(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no finished evaluation"):
        again(write_run(tmp_path / "run-1", finished=False), Counting())


def test_what_lm_eval_scored_by_its_own_rules_is_left_as_it_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run-1")
    with Recorder(folder) as log:
        attempt = Attempt(
            id="eval/ifeval/1",
            task=Task(id="1", question="Write in capitals.", gold=("change_case:english_capital",)),
            purpose=Purpose.EVAL,
            trajectory=Trajectory(contexts=(), spans=()),
            target=(),
            turns=(),
            status=Status.ANSWERED,
            answer="ANN",
        )
        log.record(Kind.ATTEMPT, attempt_record(attempt, seconds=0.0, evaluation_id="run-1/ifeval"))
        rules = Score(value=1.0, status=ScoreStatus.JUDGED, layer="lm-eval:prompt_level_strict_acc,none")
        log.record(Kind.JUDGEMENT, judgement_record(attempt.id, f"{OWN_RULES}ifeval@4", rules))
        head = {"evaluation_id": "run-1/ifeval", "benchmark": "ifeval", "split": "all", "step": 0, "n": 1, "judge": f"{OWN_RULES}ifeval@4"}
        log.record(Kind.EVALUATION, {"phase": "finished", **head, "seed": 0, "model": "m", "method": "base", "comparability": "c"})
    judge, said = Counting(), list[str]()
    with Recorder(folder, writer=WRITER) as log:
        (found,) = asyncio.run(regrade(folder, judge, log, notice=said.append))
    assert found.evaluation_id == EVALUATION and all(question.startswith("Secret") for question, _, _ in judge.asked)
    assert said == ["left as they are, for no judge replaces lm-eval's own rules: run-1/ifeval"]


def shown(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(leaderboard, ["show", "--format", "json", *arguments], catch_exceptions=False)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def accept_ann(case: Mapping[str, Any]) -> str | None:
    return "correct" if "Ann" in case["answer"] else "incorrect"


def test_the_command_judges_over_http_and_the_board_shows_the_new_judge(harness_home: Path) -> None:
    folder = write_run(harness_home / "runs" / "run-1")
    with JudgeServer(accept_ann) as server:
        done = CliRunner().invoke(command, ["run-1", "--judge", f"llm:{server.url}"], catch_exceptions=False)
        assert "coverage 40% -> 80%" in done.output and len(server.cases) == 2  # exact decided the third
        (row,) = shown()
        assert row["judge"].startswith("gaia+exact+llm:made-up-judge@") and (row["score"], row["coverage"]) == (0.5, 0.8)
        assert row["bounds"] == [pytest.approx(0.4), pytest.approx(0.8)]  # the truncated answer is open, too
        assert row["outcomes"] == {"right": 2, "wrong": 1, "truncated": 1, "tool_outage": 1}
        CliRunner().invoke(command, [str(folder), "--judge", "exact"], catch_exceptions=False)
        (row,) = shown()
        assert (row["judge"], row["coverage"]) == ("exact", 0.4)
        assert row["outcomes"] == {"right": 1, "undecided": 2, "truncated": 1, "tool_outage": 1}
        CliRunner().invoke(command, ["run-1", "--judge", f"llm:{server.url}"], catch_exceptions=False)
        assert len(server.cases) == 2 and shown()[0]["coverage"] == 0.8


MANY: Mapping[str, tuple[str | None, Status]] = {
    f"q{n:02}": (f"Ann P. of {n}" if n % 10 else "Ann Person", Status.ANSWERED) for n in range(60)
}
"""Six that ``exact`` decides, 54 that a model has to look at."""
SOON = ("--set", "outage.retries=1", "--set", "outage.pause=0.01")


def run_regrade(*arguments: str) -> int:
    return run_command(cli, ["regrade", "run-1", *arguments])


def test_a_judge_that_goes_down_in_the_middle_is_asked_again_then_stops_the_command_which_later_asks_only_for_the_rest(
    harness_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(harness_home / "runs" / "run-1", answers=MANY)
    before = [*current_events(folder)]
    with JudgeServer(accept_ann) as server:
        server.verdict = lambda case: accept_ann(case) if case in server.cases[:20] else None
        assert run_regrade("--judge", f"llm:{server.url}", *SOON) == 1
        paid = 20
        said = capsys.readouterr().err
        assert "outage: HTTP 400" in said and "trying again in 0.01 s" in said
        assert "attempts of the last samples met an outage that outlasted all retries" in said
        assert "The run keeps the scores that it had" in said and "give the same command again" in said and "Traceback" not in said
        assert [*current_events(folder)] == before
        (row,) = shown()
        assert (row["judge"], row["coverage"]) == ("exact", 0.1)
        asked = len(server.cases)
        server.verdict = accept_ann
        assert run_regrade("--judge", f"llm:{server.url}", *SOON) == 0
        assert len(server.cases) - asked == 54 - paid, "a verdict that was there was asked for again"
    (row,) = shown()
    assert row["judge"].startswith("gaia+exact+llm:made-up-judge@") and (row["score"], row["coverage"]) == (1.0, 1.0)


@pytest.mark.parametrize(("retries", "code"), [(0, 1), (1, 0)])
def test_as_many_retries_as_are_set_bridge_an_outage_of_the_judge(harness_home: Path, retries: int, code: int) -> None:
    write_run(harness_home / "runs" / "run-1", answers={"q": ("Annie P.", Status.ANSWERED)})
    with JudgeServer(lambda case: "correct" if len(server.cases) > 2 else None) as server:
        assert run_regrade("--judge", f"llm:{server.url}", "--set", f"outage.retries={retries}", "--set", "outage.pause=0") == code
        assert len(server.cases) == 2 + retries  # a refused request is sent twice: with the form of the reply and without


@pytest.mark.parametrize(("tolerate", "code"), [(0.25, 1), (0.5, 0)])
def test_a_regrading_loses_no_larger_share_to_an_outage_than_is_tolerated(harness_home: Path, tolerate: float, code: int) -> None:
    write_run(harness_home / "runs" / "run-1", answers=dict([*MANY.items()][:10]))
    with JudgeServer(lambda case: None if int(case["answer"].split()[-1]) < 5 else "correct") as server:
        more = ("--set", f"outage.tolerate={tolerate}", "--set", "outage.retries=0")
        assert run_regrade("--judge", f"llm:{server.url}", *more) == code
    assert shown()[0]["coverage"] == (0.6 if code == 0 else 0.1)


def test_a_key_that_is_withdrawn_ends_a_regrading_at_once(harness_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(harness_home / "runs" / "run-1", answers=MANY)
    with ScriptedServer(completion("correct"), Step(status=401)) as server:
        assert run_regrade("--judge", f"llm:{server.url}#m") == 1
    assert f"the judge {server.url} serves no request: HTTP 401" in capsys.readouterr().err


def test_calibrate_measures_a_judging_model_by_kind_and_says_which_layer_decided(tmp_path: Path) -> None:
    rows = [
        {"question": "Who?", "gold": "Ann Person", "answer": "ann person", "correct": True, "kind": "easy"},
        {"question": "Who?", "gold": "Ann Person", "answer": "Annie P.", "correct": True, "kind": "hard"},
        {"question": "Who?", "gold": "Ann Person", "answer": "Ann Other", "correct": False, "kind": "hard"},
        {"question": "Who?", "gold": "Ann Person", "answer": "a fault", "correct": False, "kind": "fault"},
    ]
    cases = tmp_path / "cases.jsonl"
    cases.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with JudgeServer(lambda case: None if "fault" in case["answer"] else accept_ann(case)) as server:
        arguments = ["calibrate", "--judge", f"llm:{server.url}", "--cases", str(cases), "--format", "json"]
        data = json.loads(CliRunner().invoke(judge_command, arguments, catch_exceptions=False).output)
    assert (data["false_accepts"]["count"], data["false_rejects"]["count"], data["undecided"]["count"]) == (1, 0, 1)
    assert data["kinds"]["hard"]["false_accepts"]["count"] == 1 and data["kinds"]["easy"]["undecided"]["count"] == 0
    assert data["layers"] == {"exact": 1, "llm": 2} and data["statuses"] == {"transport_error": 1}
