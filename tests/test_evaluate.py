"""Evaluation: resumable, unguided, an outage is never wrong, and the comparability code knows what may be compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import PolicyEngine, Say, call, tiny_chat

from benchmarks.comparability import Comparability
from benchmarks.evaluate import Evaluation, Part, comparability, evaluate, evaluate_all, recorded_scores
from benchmarks.result import Outcome, Result
from benchmarks.resume import Fate, Kept, fate
from harness.budget import Budget, Limits
from harness.engines.base import Request
from harness.envs.base import Env, Observation
from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig
from harness.errors import OutageError
from harness.events import Kind, Recorder, read_events
from harness.types import Action, Score, ScoreStatus, Status, Task
from harness.web.base import Page
from harness.web.corpus import CorpusWeb
from judges.attempts import Sampler
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
    **changes: Any,
) -> tuple[Result, PolicyEngine]:
    """One evaluation over what the folder's log holds already; ``changes`` are those of the evaluation."""
    engine = PolicyEngine(say)
    with Recorder(folder) as log:
        parts: dict[str, Any] = {"engine": engine, "chat": tiny_chat(), "env": env, "judge": judge or ExactJudge(closed=True), "log": log}
        sampler = Sampler(**parts, agent=AgentConfig(), gate=asyncio.Semaphore(open_at_once), budget=budget)
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
    assert result.bounds == (0.0, pytest.approx(2 / 3)) and result.coverage == pytest.approx(1 / 3)


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


def code(
    fingerprint: str = "data",
    judge: str = "exact",
    agent: AgentConfig | None = None,
    limits: SearchLimits | None = None,
    limit: int | None = None,
) -> str:
    return comparability(fingerprint, judge, agent or AgentConfig(), limits or SearchLimits(), limit).code


@pytest.mark.parametrize(
    "changed",
    [
        code(fingerprint="other data"),
        code(limit=10),
        code(judge="exact-closed"),
        code(agent=AgentConfig(max_turns=4)),
        code(agent=AgentConfig(response_tokens=300)),
        code(agent=AgentConfig(context_tokens=512)),
        code(agent=AgentConfig(malformed="end")),
        code(limits=SearchLimits(results=1)),
        code(limits=SearchLimits(snippet_characters=0)),
        code(limits=SearchLimits(observation_characters=800)),
        code(limits=SearchLimits(queries_per_call=1)),
    ],
)
def test_another_set_judge_or_budget_is_another_code(changed: str) -> None:
    assert changed != code()


def test_every_field_of_the_budgets_is_covered_above() -> None:
    """A new setting of the agent or the tools must be added to the list above, or be one that cannot change a score."""
    assert set(AgentConfig.model_fields) == {"max_turns", "response_tokens", "context_tokens", "malformed", "temperature"}
    assert set(SearchLimits.model_fields) == {"results", "snippet_characters", "observation_characters", "queries_per_call"}


def test_the_code_is_the_same_each_time_and_knows_nothing_of_the_training_temperature() -> None:
    assert code() == code(agent=AgentConfig(temperature=0.3)) == code(limits=SearchLimits(results=5))
    assert len(code()) == 12


def test_unlike_codes_say_which_part_differs() -> None:
    one = comparability("data", "exact", AgentConfig(), SearchLimits(), None)
    two = comparability("data", "exact-closed", AgentConfig(max_turns=4), SearchLimits(), None)
    assert one.differing(two) == ("limits", "judge")
    assert one.differing(one.judged_by("exact-closed")) == ("judge",)
    assert two.judged_by("exact").differing(one) == ("limits",)


def test_the_parts_of_the_code_are_in_the_log(tmp_path: Path) -> None:
    run(tmp_path)
    (record, _) = [event.data for _, event in read_events(tmp_path) if event.kind is Kind.EVALUATION]
    assert record["comparability_parts"] == {"judge": "exact-closed"}
