"""Evaluation: resumable, unguided, an outage is never wrong, and the comparability code knows what may be compared."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import PolicyEngine, Say, call, tiny_chat

from benchmarks.comparability import Comparability, Conditions
from benchmarks.evaluate import Evaluation, Part, evaluate, evaluate_all, recorded_scores
from benchmarks.result import Outcome, Result
from benchmarks.resume import Fate, Kept, fate, resumed_budget
from harness.budget import Budget, Limits
from harness.engines.base import Request
from harness.envs.base import Env, Observation
from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig
from harness.errors import OutageError, UsageError
from harness.events import Kind, Recorder, read_events
from harness.types import Action, Score, ScoreStatus, Status, Task
from harness.web import identity, open_web
from harness.web.base import Page
from harness.web.corpus import CorpusWeb
from judges.attempts import OutageConfig, Sampler
from judges.base import Judge
from judges.exact import ExactJudge

WEB = CorpusWeb([Page(url="page://0", title="Fern", text="A fern.")])
TASKS = tuple(
    Task(id=f"t{i}", question=f"Question {i}?", gold=("yes",), actions=(Action(name="search", arguments={"query": ["fern"]}),))
    for i in range(5)
)
EVALUATION = Evaluation(
    id="run/mini/test/7",
    benchmark="mini",
    split="test",
    model="m",
    method="base",
    seed=0,
    step=7,
    comparability=Comparability(parts={"judge": "exact-closed"}),
)


class DownEnv(SearchEnv):
    """Opens as usual; its tools are out of order."""

    async def step(self, actions: Sequence[Action]) -> tuple[Observation, ...]:
        raise OutageError("503")


def up(task: Task) -> Env:
    return SearchEnv(WEB, SearchLimits())


def down_for(*names: str) -> Callable[[Task], Env]:
    return lambda task: (DownEnv if task.id in names else SearchEnv)(WEB, SearchLimits())


def odd_is_right(request: Request, prompt: str) -> str:
    """Searches once, then answers tasks of odd number rightly."""
    if "<tool_response>" not in prompt.rpartition("Question ")[2]:
        return call("search", query=["fern"])
    return f"<answer>{'yes' if int(prompt.rpartition('Question ')[2][0]) % 2 else 'no'}</answer>"


def run(
    folder: Path,
    tasks: Sequence[Task] = TASKS,
    env: Callable[[Task], Env] = up,
    say: Say = odd_is_right,
    open_at_once: int = 8,
    judge: Judge | None = None,
    budget: Budget | None = None,
    progress: Callable[[int, int], None] = lambda finished, total: None,
    outages: OutageConfig | None = None,
    notice: Callable[[str], None] = lambda words: None,
    **changes: Any,
) -> tuple[Result, PolicyEngine]:
    """One evaluation over what the folder's log holds already; ``changes`` are those of the evaluation."""
    engine = PolicyEngine(say)
    with Recorder(folder) as log:
        parts: dict[str, Any] = {"engine": engine, "chat": tiny_chat(), "env": env, "judge": judge or ExactJudge(closed=True), "log": log}
        parts |= {"outages": outages} if outages else {}
        sampler = Sampler(**parts, agent=AgentConfig(), gate=asyncio.Semaphore(open_at_once), budget=budget, notice=notice)
        part = Part(evaluation=replace(EVALUATION, **changes), tasks=tasks, sampler=sampler)
        return asyncio.run(evaluate(part, folder, progress)), engine


def sessions(engine: PolicyEngine) -> set[str]:
    return {request.session.split("/")[3] for request in engine.requests}


def test_every_task_is_run_once_greedily_and_scored(tmp_path: Path) -> None:
    result, engine = run(tmp_path)
    assert list(result.scores.items()) == [("t0", 0.0), ("t1", 1.0), ("t2", 0.0), ("t3", 1.0), ("t4", 0.0)]
    assert (result.mean, result.coverage) == (0.4, 1.0)
    assert len(engine.requests) == 10 and {r.temperature for r in engine.requests} == {0.0}


def test_evaluation_is_unguided_although_the_tasks_have_actions(tmp_path: Path) -> None:
    run(tmp_path)
    attempts = [event.data for _, event in read_events(tmp_path) if event.kind is Kind.ATTEMPT]
    assert len(attempts) == 5
    assert {(a["purpose"], a["level"], a["hint"], a["evaluation_id"], a["step"]) for a in attempts} == {("eval", 0, None, EVALUATION.id, 7)}


def test_a_resumed_evaluation_runs_only_what_is_missing(tmp_path: Path) -> None:
    run(tmp_path, TASKS[:3])
    result, engine = run(tmp_path)
    assert sessions(engine) == {"t3", "t4"}
    assert result.mean == 0.4
    again, idle = run(tmp_path)
    assert idle.requests == [] and again == result


def test_an_attempt_without_its_judgement_is_judged_and_not_run(tmp_path: Path) -> None:
    whole, _ = run(tmp_path, TASKS[:2])
    (file,) = (tmp_path / "events").glob("*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if '"kind":"judgement"' in line)
    file.write_text("".join(lines[:last]))
    again, engine = run(tmp_path, TASKS[:2])
    assert engine.requests == [] and again.scores == whole.scores


def test_another_judge_judges_the_recorded_answers_again(tmp_path: Path) -> None:
    class Generous:
        name = "generous"

        async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
            return Score(value=1.0, status=ScoreStatus.JUDGED, layer="generous")

    run(tmp_path)
    again, engine = run(tmp_path, judge=Generous())
    assert engine.requests == [] and again.mean == 1.0
    assert [e.data["judge"] for _, e in read_events(tmp_path) if e.kind is Kind.JUDGEMENT] == ["exact-closed"] * 5 + ["generous"] * 5


def test_a_changed_question_set_is_run_again(tmp_path: Path) -> None:
    run(tmp_path, data="old")
    assert len(sessions(run(tmp_path, data="new")[1])) == 5
    assert run(tmp_path, data="new")[1].requests == []


KEPT = Kept(
    attempt_id="a", status=Status.ANSWERED, answer="x", detail="", data="d", usage={}, judge="j", value=1.0, score=ScoreStatus.JUDGED
)


@pytest.mark.parametrize(
    ("kept", "what", "why"),
    [
        (None, Fate.RUN, "not attempted yet"),
        (KEPT, Fate.REUSE, "judged 1 by j"),
        (replace(KEPT, value=None, score=ScoreStatus.UNDECIDED), Fate.REUSE, "judged undecided by j"),
        (replace(KEPT, value=None, score=ScoreStatus.PARSE_ERROR), Fate.REGRADE, "the judge ended in parse_error"),
        (replace(KEPT, judge="other"), Fate.REGRADE, "judged by other, now j"),
        (replace(KEPT, judge=None, value=None), Fate.REGRADE, "the answer is recorded, its judgement is not"),
        (replace(KEPT, status=Status.TOOL_OUTAGE, detail="503"), Fate.RERUN, "tool_outage: 503"),
        (replace(KEPT, status=Status.LIMIT), Fate.RERUN, "limit"),
        (replace(KEPT, data="other"), Fate.RERUN, "the question set has changed since"),
    ],
)
def test_what_becomes_of_a_recorded_sample(kept: Kept | None, what: Fate, why: str) -> None:
    assert fate(kept, judge="j", data="d") == (what, why)


def test_epochs_are_attempts_of_their_own_with_seeds_of_their_own(tmp_path: Path) -> None:
    seen: list[str] = []

    def sometimes(request: Request, prompt: str) -> str:
        seen.append(request.session)
        right = request.session.endswith("/0") or "Question 1" in prompt.rpartition("<|im_start|>user")[2]
        return f"<answer>{'yes' if right else 'no'}</answer>"

    result, engine = run(tmp_path, TASKS[:2], say=sometimes, epochs=2, temperature=0.5)
    assert len({r.seed for r in engine.requests}) == 4 and {r.temperature for r in engine.requests} == {0.5}
    assert result.scores == {"t0": 0.5, "t1": 1.0}
    assert result.repeated() == {"avg@2": 0.75, "pass@2": 1.0, "pass^2": 0.5}
    more, late = run(tmp_path, TASKS[:2], say=sometimes, epochs=3, temperature=0.5)
    assert len(late.requests) == 2 and more.repeated()["avg@3"] == pytest.approx((1 / 3 + 1) / 2)


def test_evaluations_of_one_run_keep_equally_named_tasks_apart(tmp_path: Path) -> None:
    engine = PolicyEngine(odd_is_right)
    with Recorder(tmp_path) as log:
        sampler = Sampler(
            engine=engine, chat=tiny_chat(), env=up, judge=ExactJudge(closed=True), agent=AgentConfig(), log=log, gate=asyncio.Semaphore(4)
        )
        parts = [
            Part(evaluation=replace(EVALUATION, id=f"run/{name}", scope=name), tasks=TASKS[:n], sampler=sampler)
            for name, n in (("one", 2), ("two", 3))
        ]
        seen: list[tuple[int, int]] = []
        results = asyncio.run(evaluate_all(parts, tmp_path, lambda done, total: seen.append((done, total))))
    assert [len(r.scores) for r in results] == [2, 3] and seen[-1] == (5, 5)
    attempts = [e.data["attempt_id"] for _, e in read_events(tmp_path) if e.kind is Kind.ATTEMPT]
    assert len(set(attempts)) == 5


def test_a_token_limit_ends_the_evaluation_and_a_higher_one_continues_it(tmp_path: Path) -> None:
    first, _ = run(tmp_path, budget=Budget(limits=Limits(tokens=60)), open_at_once=1)
    assert first.stopped_by is not None and "limits.tokens" in first.stopped_by
    assert 0 < len([o for o in first.outcomes.values() if o.value is not None]) < 5
    assert first.bounds[0] <= first.bounds[1] < 1.01 and "could not be scored" in first.words()
    second, _ = run(tmp_path, budget=Budget(limits=Limits(tokens=10**6)))
    assert second.scores == {"t0": 0.0, "t1": 1.0, "t2": 0.0, "t3": 1.0, "t4": 0.0} and second.stopped_by is None


def test_the_budget_of_a_resumed_evaluation_is_what_its_sittings_left(tmp_path: Path) -> None:
    """Two sittings, the second one killed: their times count, the day between them does not; a sample that is run again was paid twice."""
    day = datetime(2026, 1, 1, tzinfo=UTC)
    log = [
        (timedelta(), "run", {"command": "eval", "phase": "started"}),
        (timedelta(seconds=10), "attempt", {"evaluation_id": "e", "usage": {"generated_tokens": 5, "cost": 0.5}}),
        (timedelta(seconds=15), "run", {"command": "eval", "phase": "failed"}),
        (timedelta(days=1), "run", {"command": "eval", "phase": "started"}),
        (timedelta(days=1, seconds=7), "attempt", {"evaluation_id": "e", "usage": {"generated_tokens": 5, "cost": None}}),
        (timedelta(days=1, seconds=8), "attempt", {"evaluation_id": "e", "usage": {"generated_tokens": None}}),
        (timedelta(days=2), "judgement", {"judge": "exact"}),
    ]
    (tmp_path / "events").mkdir()
    lines = [
        json.dumps({"v": 1, "seq": i, "time": (day + after).isoformat(), "id": str(i), "kind": kind, "data": data})
        for i, (after, kind, data) in enumerate(log)
    ]
    (tmp_path / "events" / "main-0.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    budget = resumed_budget(tmp_path, Limits(seconds=100))
    assert (budget.tokens, budget.cost) == (10, 0.5)
    assert time.monotonic() - budget.began == pytest.approx(23, abs=1)
    fresh = resumed_budget(tmp_path / "new", Limits())
    assert (fresh.tokens, fresh.cost) == (0, 0.0) and time.monotonic() - fresh.began < 1


def test_an_episode_over_its_time_has_no_score(tmp_path: Path) -> None:
    class SlowEnv(SearchEnv):
        async def step(self, actions: Sequence[Action]) -> tuple[Observation, ...]:
            await asyncio.sleep(30)
            return await super().step(actions)

    slow = lambda task: (SlowEnv if task.id == "t1" else SearchEnv)(WEB, SearchLimits())  # noqa: E731
    result, _ = run(tmp_path, env=slow, budget=Budget(limits=Limits(sample_seconds=3)))
    assert result.scores["t1"] is None and result.outcomes["t1", 0].status is Status.LIMIT
    assert result.statuses() == {"answered": 4, "limit": 1}
    assert result.bounds == (0.2, 0.4)


def test_the_time_limit_of_an_evaluation_ends_what_is_under_way(tmp_path: Path) -> None:
    class SlowEnv(SearchEnv):
        async def step(self, actions: Sequence[Action]) -> tuple[Observation, ...]:
            await asyncio.sleep(30)
            return await super().step(actions)

    result, _ = run(tmp_path, env=lambda task: SlowEnv(WEB, SearchLimits()), open_at_once=2, budget=Budget(limits=Limits(seconds=2)))
    assert result.mean is None and set(result.statuses()) <= {"limit", "not run"}


def test_statuses_are_kept_apart_from_wrong() -> None:
    wrong = Outcome(value=0.0, status=Status.TRUNCATED, score=ScoreStatus.JUDGED)
    unjudged = Outcome(value=None, status=Status.ANSWERED, score=ScoreStatus.TRANSPORT_ERROR)
    result = Result(tasks=("a", "b", "c"), outcomes={("a", 0): wrong, ("b", 0): unjudged})
    assert result.statuses() == {"truncated": 1, "judge transport_error": 1, "not run": 1}
    assert result.bounds == (0.0, 1.0) and result.coverage == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("status", "score", "value", "word"),
    [
        (Status.TRUNCATED, ScoreStatus.JUDGED, 0.0, "truncated"),
        (Status.LIMIT, ScoreStatus.OUTAGE, None, "limit"),
        (Status.TOOL_OUTAGE, ScoreStatus.OUTAGE, None, "tool_outage"),
        (Status.ENGINE_ERROR, ScoreStatus.OUTAGE, None, "engine_error"),
        (Status.ANSWERED, ScoreStatus.TRANSPORT_ERROR, None, "judge transport_error"),
        (Status.ANSWERED, ScoreStatus.PARSE_ERROR, None, "judge parse_error"),
        (Status.ANSWERED, ScoreStatus.REFUSED, None, "judge refused"),
        (Status.ANSWERED, ScoreStatus.UNDECIDED, None, "judge undecided"),
    ],
)
def test_each_of_them_is_named_and_counts_as_wrong_in_the_lower_bound_and_as_right_in_the_upper(
    status: Status, score: ScoreStatus, value: float | None, word: str
) -> None:
    right, wrong = (Outcome(value=v, status=Status.ANSWERED, score=ScoreStatus.JUDGED) for v in (1.0, 0.0))
    odd = Outcome(value=value, status=status, score=score)
    result = Result(tasks=("a", "b", "c", "d"), outcomes={("a", 0): right, ("b", 0): wrong, ("c", 0): wrong, ("d", 0): odd})
    assert result.statuses() == {"answered": 3, word: 1}
    assert result.bounds == (0.25, 0.5) and "so between 25.0% and 50.0%" in result.words()
    assert result.mean == (0.25 if status is Status.TRUNCATED else pytest.approx(1 / 3)), "a cut answer is none, as in the official scores"


def test_a_wrong_answer_and_spent_turns_leave_nothing_open() -> None:
    for status in (Status.ANSWERED, Status.TURN_LIMIT, Status.NO_ANSWER):
        result = Result(tasks=("a",), outcomes={("a", 0): Outcome(value=0.0, status=status, score=ScoreStatus.JUDGED)})
        assert result.bounds == (0.0, 0.0) and "between" not in result.words()


def test_other_evaluations_of_the_run_are_not_taken_for_this_one(tmp_path: Path) -> None:
    run(tmp_path)
    assert len(recorded_scores(tmp_path, EVALUATION.id)) == 5
    assert recorded_scores(tmp_path, "run/mini/test/8") == {}


def test_an_outage_is_never_counted_as_wrong_and_is_tried_again(tmp_path: Path) -> None:
    first, _ = run(tmp_path, env=down_for("t1", "t2"))
    assert first.scores == {"t0": 0.0, "t1": None, "t2": None, "t3": 1.0, "t4": 0.0}
    assert (first.mean, first.coverage) == (1 / 3, 0.6)
    second, engine = run(tmp_path)
    assert sessions(engine) == {"t1", "t2"}
    assert second.scores == {"t0": 0.0, "t1": 1.0, "t2": 0.0, "t3": 1.0, "t4": 0.0}


def test_where_nothing_could_be_scored_there_is_no_mean(tmp_path: Path) -> None:
    result, _ = run(tmp_path, env=down_for(*(task.id for task in TASKS)))
    assert (result.mean, result.coverage) == (None, 0.0)
    assert Result(tasks=(), outcomes={}).mean is None and Result(tasks=(), outcomes={}).coverage == 0.0


def test_no_more_episodes_are_open_than_the_gate_admits(tmp_path: Path) -> None:
    running, most = 0, 0

    class CountingEnv(SearchEnv):
        async def start(self, task: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            return await super().start(task)

        async def close(self) -> None:
            nonlocal running
            running -= 1

    run(tmp_path, env=lambda task: CountingEnv(WEB, SearchLimits()), open_at_once=2)
    assert (most, running) == (2, 0)


def test_progress_counts_what_was_done_before(tmp_path: Path) -> None:
    run(tmp_path, TASKS[:2])
    seen: list[tuple[int, int]] = []
    run(tmp_path, progress=lambda finished, total: seen.append((finished, total)))
    assert seen == [(3, 5), (4, 5), (5, 5)]


def test_the_log_frames_an_evaluation_with_what_it_measured(tmp_path: Path) -> None:
    run(tmp_path)
    records = [event.data for _, event in read_events(tmp_path) if event.kind is Kind.EVALUATION]
    assert [r["phase"] for r in records] == ["started", "finished"]
    wanted = {
        "evaluation_id": EVALUATION.id,
        "n": 5,
        "judge": "exact-closed",
        "comparability": EVALUATION.comparability.code,
        "step": 7,
        "split": "test",
    }
    assert all(wanted.items() <= r.items() for r in records)


def conditions(**changes: Any) -> Comparability:
    parts: dict[str, Any] = {"agent": AgentConfig(), "search": SearchLimits(), "temperature": 0.0}
    return Conditions(**{"questions": "data", "judge": "exact", **parts, **changes}).comparability()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"questions": "other data"}, "data"),
        ({"taken": 10}, "data"),
        ({"judge": "exact-closed"}, "judge"),
        ({"web": "corpus:0123"}, "tools"),
        ({"temperature": 0.6}, "limits"),
        ({"sample_seconds": 60.0}, "limits"),
        ({"agent": AgentConfig(max_turns=4)}, "limits"),
        ({"agent": AgentConfig(response_tokens=300)}, "limits"),
        ({"agent": AgentConfig(context_tokens=512)}, "limits"),
        ({"agent": AgentConfig(malformed="end")}, "limits"),
        ({"search": SearchLimits(results=1)}, "limits"),
        ({"search": SearchLimits(snippet_characters=0)}, "limits"),
        ({"search": SearchLimits(observation_characters=800)}, "limits"),
        ({"search": SearchLimits(queries_per_call=1)}, "limits"),
    ],
)
def test_another_set_web_judge_or_limit_is_another_code_and_named(changes: dict[str, Any], part: str) -> None:
    assert conditions(**changes).code != conditions().code
    assert conditions().differing(conditions(**changes)) == (part,)


def test_every_field_that_can_change_a_score_is_covered_above() -> None:
    """A new setting of the agent, the tools or the limits must be added to the list above, or be one that cannot change a score."""
    assert set(AgentConfig.model_fields) == {"max_turns", "response_tokens", "context_tokens", "malformed", "temperature"}
    assert set(SearchLimits.model_fields) == {"results", "snippet_characters", "observation_characters", "queries_per_call"}
    assert set(Limits.model_fields) == {"sample_seconds", "seconds", "tokens", "cost"}, "all but the first only leave samples out"


def test_the_code_is_the_same_each_time_and_knows_nothing_of_the_training_temperature() -> None:
    codes = {conditions(**c).code for c in ({}, {"agent": AgentConfig(temperature=0.3)}, {"search": SearchLimits(results=5)})}
    assert len(codes) == 1 and len(codes.pop()) == 12


def test_a_truncated_answer_is_open_only_where_it_counts_as_wrong() -> None:
    ended = {"a": 0.0, "b": 1.0, "c": None}
    outcomes = {(t, 0): Outcome(value=v, status=Status.TRUNCATED, score=ScoreStatus.JUDGED) for t, v in ended.items()}
    result = Result(tasks=("a", "b", "c"), outcomes=outcomes)
    assert result.open() == "1 could not be scored, 1 truncated (counted as wrong), so between 33.3% and 100.0%"
    assert Result(tasks=("b",), outcomes={("b", 0): outcomes["b", 0]}).bounds == (1.0, 1.0)


def test_unlike_codes_say_which_part_differs() -> None:
    one, two = conditions(), conditions(judge="exact-closed", agent=AgentConfig(max_turns=4))
    assert one.differing(two) == ("limits", "judge")
    assert one.differing(one.judged_by("exact-closed")) == ("judge",)
    assert two.judged_by("exact").differing(one) == ("limits",)


def test_a_corpus_is_named_by_its_content_and_the_live_web_by_its_search_engine(tmp_path: Path) -> None:
    def named(name: str, text: str) -> str:
        (tmp_path / name).write_text(json.dumps({"url": "page://0", "title": "Fern", "text": text}) + "\n")
        return identity(f"corpus:{tmp_path / name}", open_web(f"corpus:{tmp_path / name}"))

    assert named("a.jsonl", "green") == named("b.jsonl", "green") != named("c.jsonl", "brown")
    assert identity("live:duckduckgo", open_web("live:duckduckgo")) == "live:duckduckgo"


def test_a_run_under_other_conditions_is_not_continued_and_the_difference_is_said(tmp_path: Path) -> None:
    run(tmp_path, TASKS[:1], comparability=conditions())
    with pytest.raises(UsageError, match=r"holds run/mini/test/7 under other conditions: tools was .*, is now .*corpus:1"):
        run(tmp_path, comparability=conditions(web="corpus:1"))
    run(tmp_path, comparability=conditions(taken=5, judge="exact-closed"))


# -- outages ------------------------------------------------------------------------------------------------------------------


MANY = tuple(replace(TASKS[i % 5], id=f"m{i}") for i in range(80))


def test_an_outage_in_the_middle_ends_the_evaluation_with_all_saved_and_the_same_command_continues_it(tmp_path: Path) -> None:
    late = lambda task: (SearchEnv if int(task.id[1:]) < 20 else DownEnv)(WEB, SearchLimits())  # noqa: E731
    with pytest.raises(
        OutageError, match=r"12 of 32 attempts of the last samples met an outage that outlasted all retries \(503\).*is saved"
    ):
        run(tmp_path, MANY, env=late, open_at_once=1, outages=OutageConfig(retries=0))
    tried = [e.data for _, e in read_events(tmp_path) if e.kind is Kind.ATTEMPT]
    assert 28 <= len(tried) < 40, "most samples were not even tried"
    assert all(e.data["phase"] == "started" for _, e in read_events(tmp_path) if e.kind is Kind.EVALUATION)
    result, engine = run(tmp_path, MANY)
    assert result.coverage == 1.0 and len(sessions(engine)) == 60


@pytest.mark.parametrize(("down", "tolerate", "stops"), [(1, 0.25, False), (2, 0.25, True), (2, 0.4, False), (5, 1.0, False)])
def test_a_short_evaluation_is_held_to_the_same_share_at_its_end(tmp_path: Path, down: int, tolerate: float, stops: bool) -> None:
    env, outages = down_for(*(f"t{i}" for i in range(down))), OutageConfig(retries=0, tolerate=tolerate)
    if stops:
        with pytest.raises(OutageError, match="2 of 5"):
            run(tmp_path, env=env, outages=outages)
    else:
        assert run(tmp_path, env=env, outages=outages)[0].coverage == (5 - down) / 5


class DownJudge:
    """Down for its first ``down`` verdicts."""

    name = "exact-closed"

    def __init__(self, down: int) -> None:
        self.left = down

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        self.left -= 1
        if self.left >= 0:
            raise OutageError("the judge is down")
        return await ExactJudge(closed=True).score(question, gold, answer)


def test_a_judge_that_comes_back_is_asked_again_without_another_episode(tmp_path: Path) -> None:
    said: list[str] = []
    outages = OutageConfig(retries=3, pause=0.001)
    result, engine = run(tmp_path, judge=DownJudge(4), open_at_once=1, outages=outages, notice=said.append)
    assert (result.mean, result.coverage, len(engine.requests)) == (0.4, 1.0, 10)
    assert said and all("the judge is down; trying again in" in words for words in said)


def test_a_judge_that_stays_down_ends_the_evaluation_and_no_episode_is_run_twice(tmp_path: Path) -> None:
    with pytest.raises(OutageError, match="the judge is down"):
        run(tmp_path, judge=DownJudge(10**6), outages=OutageConfig(retries=1, pause=0.0))
    result, engine = run(tmp_path)
    assert engine.requests == [] and result.mean == 0.4


def test_what_a_limit_ended_is_no_outage(tmp_path: Path) -> None:
    result, _ = run(tmp_path, budget=Budget(limits=Limits(seconds=0.001)), outages=OutageConfig(retries=0, tolerate=0.0))
    assert result.coverage == 0.0


def test_the_parts_of_the_code_are_in_the_log(tmp_path: Path) -> None:
    run(tmp_path)
    (record, _) = [event.data for _, event in read_events(tmp_path) if event.kind is Kind.EVALUATION]
    assert record["comparability_parts"] == {"judge": "exact-closed"}
