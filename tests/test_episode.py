"""Episodes over a scripted engine and a closed web: how they end, what they may spend, and what a hint can reach."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from fakes import MemoryLog, PolicyEngine, Say, call, tiny_chat

from harness.engines.base import Request
from harness.envs.base import Env, Observation
from harness.envs.search import TOOLS, SearchEnv, SearchLimits
from harness.episode import AgentConfig, Draw, run_episode
from harness.errors import EngineError, HarnessError, OutageError
from harness.guide import Guide, with_hint
from harness.tiny.world import make_tasks, make_world
from harness.types import Action, Attempt, FinishReason, Ids, Message, Purpose, ScoreStatus, Span, Status, Trajectory
from harness.web.corpus import CorpusWeb
from judges.attempts import Sampler
from judges.base import score_attempt
from judges.exact import ExactJudge
from trainers.guidance.inject import LEAD, plan_text
from trainers.rollouts import StepRollouts

WORLD = make_world("episode")
TASK = make_tasks(WORLD, 3, 1, {})[0]
WEB = CorpusWeb(WORLD.pages())
JUDGE = ExactJudge(closed=True)
SEARCH = call("search", query=["Bora"])
DRAW = Draw(task=TASK, run_seed=3, purpose=Purpose.TRAIN)


class DownEnv(SearchEnv):
    """Opens as usual; its tools are out of order."""

    async def step(self, actions: Sequence[Action]) -> tuple[Observation, ...]:
        raise OutageError("the search service answers 503")


class DeadEngine(PolicyEngine):
    """Serves one request, then fails."""

    async def generate(self, request: Request) -> Span:
        if self.requests:
            raise EngineError("out of memory")
        return await super().generate(request)


def script(*turns: str) -> Say:
    """The turns in order, the last one again and again."""
    left = list(turns)
    return lambda request, prompt: left.pop(0) if len(left) > 1 else left[0]


def run(engine: PolicyEngine, draw: Draw = DRAW, env: Env | None = None, **settings: Any) -> Attempt:
    env = env or SearchEnv(WEB, SearchLimits(results=1))
    config = AgentConfig.model_validate(settings)
    return asyncio.run(run_episode(draw, env=env, engine=engine, chat=tiny_chat(), config=config, temperature=0.7))


def said(*turns: str, **settings: Any) -> Attempt:
    return run(PolicyEngine(script(*turns)), **settings)


def holds(ids: Ids, part: Ids) -> bool:
    return any(ids[i : i + len(part)] == part for i in range(len(ids) - len(part) + 1))


def test_an_answer_ends_the_episode() -> None:
    attempt = said(SEARCH, "<answer>Bora</answer>")
    assert (attempt.status, attempt.answer, len(attempt.turns)) == (Status.ANSWERED, "Bora", 2)
    assert attempt.turns[0].actions == (Action(name="search", arguments={"query": ["Bora"]}),)
    assert attempt.turns[1].observations == ()


def test_a_turn_without_call_or_answer_ends_it_without_an_answer_which_is_wrong_and_not_unscorable() -> None:
    attempt = said("I do not know.")
    assert (attempt.status, attempt.answer) == (Status.NO_ANSWER, None)
    assert asyncio.run(score_attempt(JUDGE, attempt)).value == 0.0


def test_the_turn_limit_ends_it() -> None:
    engine = PolicyEngine(script(SEARCH))
    attempt = run(engine, max_turns=3)
    assert (attempt.status, len(attempt.turns), len(engine.requests)) == (Status.TURN_LIMIT, 3, 3)
    assert len(attempt.trajectory.contexts) == len(attempt.target) == 3  # the observation after the last turn trains nobody


def test_a_span_cut_by_the_budget_is_truncated_even_if_it_holds_an_answer() -> None:
    text = "<answer>Bora</answer> and so on"
    whole = len(tiny_chat().encode(text))
    attempt = said(text, response_tokens=whole - 1)
    assert attempt.turns[0].text.startswith("<answer>Bora</answer>")
    assert (attempt.status, attempt.answer) == (Status.TRUNCATED, None)
    assert attempt.trajectory.spans[0].finish is FinishReason.LENGTH
    assert said(text, response_tokens=whole + 1).answer == "Bora"


def test_the_response_budget_counts_observations() -> None:
    engine = PolicyEngine(script(SEARCH, "<answer>x</answer>"))
    attempt = run(engine, response_tokens=500)
    spent = len(attempt.trajectory.spans[0].ids) + len(attempt.trajectory.contexts[1])
    assert [r.max_tokens for r in engine.requests] == [500, 500 - spent]


def test_an_observation_that_eats_the_rest_of_the_budget_truncates_without_another_request() -> None:
    first = len(tiny_chat().encode(SEARCH)) + 1
    engine = PolicyEngine(script(SEARCH))
    attempt = run(engine, response_tokens=first + 1)
    assert (attempt.status, len(engine.requests), len(attempt.trajectory.contexts)) == (Status.TRUNCATED, 1, 1)


def test_a_prompt_longer_than_the_context_is_truncated_and_never_sent() -> None:
    engine = PolicyEngine(script(SEARCH))
    attempt = run(engine, context_tokens=10)
    assert (attempt.status, attempt.trajectory.spans, engine.requests) == (Status.TRUNCATED, (), [])


def test_room_is_limited_by_the_longest_view() -> None:
    hint = plan_text(TASK.actions, 2)
    engine, hinted = PolicyEngine(script("<answer>x</answer>")), PolicyEngine(script("<answer>x</answer>"))
    plain = run(engine, context_tokens=2000)
    guided = run(hinted, replace(DRAW, level=2, guide=Guide(hints=(hint,))), context_tokens=2000)
    assert engine.requests[0].max_tokens == 2000 - len(plain.target[0])
    assert hinted.requests[0].max_tokens == 2000 - len(guided.trajectory.contexts[0]) < engine.requests[0].max_tokens


def test_a_malformed_call_is_observed_and_counted() -> None:
    attempt = said("<tool_call>{oops</tool_call>", "<answer>x</answer>")
    assert attempt.status is Status.ANSWERED
    assert (attempt.turns[0].tool_errors, attempt.turns[0].actions) == (1, ())
    (observed,) = attempt.turns[0].observations
    assert observed.startswith("Error: the call is not valid JSON")
    assert observed in tiny_chat().decode(attempt.trajectory.contexts[1])


def test_a_malformed_call_ends_the_episode_where_it_is_set_to() -> None:
    engine = PolicyEngine(script("<tool_call>{oops</tool_call>", "<answer>x</answer>"))
    attempt = run(engine, malformed="end")
    assert (attempt.status, len(engine.requests), attempt.turns[0].tool_errors) == (Status.MALFORMED, 1, 1)
    assert asyncio.run(score_attempt(JUDGE, attempt)).value == 0.0


def test_a_good_call_beside_a_malformed_one_is_still_executed() -> None:
    attempt = said(SEARCH + "<tool_call>{oops</tool_call>", "<answer>x</answer>")
    assert len(attempt.turns[0].observations) == 2 and attempt.turns[0].tool_errors == 1
    assert attempt.turns[0].observations[1].startswith("Error: ")


def test_a_tool_error_is_an_observation_and_counts() -> None:
    attempt = said(call("visit", url=["https://nowhere"]), "<answer>x</answer>")
    assert attempt.status is Status.ANSWERED and attempt.turns[0].tool_errors == 1
    assert attempt.turns[0].observations[0].startswith("Error: no page at 'https://nowhere'")


def test_an_engine_error_is_a_status_and_never_a_score() -> None:
    attempt = run(DeadEngine(script(SEARCH)))
    assert (attempt.status, attempt.detail, len(attempt.trajectory.spans)) == (Status.ENGINE_ERROR, "out of memory", 1)
    score = asyncio.run(score_attempt(JUDGE, attempt))
    assert (score.value, score.status, score.detail) == (None, ScoreStatus.OUTAGE, "out of memory")


def test_a_tool_outage_is_a_status_and_never_a_score() -> None:
    attempt = run(PolicyEngine(script(SEARCH)), env=DownEnv(WEB, SearchLimits()))
    assert (attempt.status, attempt.detail) == (Status.TOOL_OUTAGE, "the search service answers 503")
    score = asyncio.run(score_attempt(JUDGE, attempt))
    assert (score.value, score.status) == (None, ScoreStatus.OUTAGE)


def test_a_hint_is_in_the_behaviour_view_only() -> None:
    chat, hint = tiny_chat(), plan_text(TASK.actions, 2)
    attempt = run(PolicyEngine(script(SEARCH, "<answer>x</answer>")), replace(DRAW, level=2, guide=Guide(hints=(hint,))))
    behaviour, target = attempt.trajectory.contexts, attempt.target
    assert chat.decode(behaviour[0]).count(hint) == 1
    assert chat.decode(behaviour[0]).replace(hint, "") == chat.decode(target[0])  # the schemas hold nothing of it either
    assert behaviour[1:] == target[1:]
    trained = attempt.trajectory.with_view(target).ids()
    lead = chat.encode(LEAD)
    grams = [lead[i : i + 6] for i in range(1, len(lead) - 6)]  # the first and last token may merge with their neighbours
    assert len(grams) > 20 and all(holds(behaviour[0], gram) for gram in grams)
    assert not any(holds(trained, gram) for gram in grams)
    assert LEAD not in json.dumps(TOOLS)


def test_a_guided_target_is_the_unguided_prompt_bit_for_bit() -> None:
    plain = said(SEARCH, "<answer>x</answer>")
    guided = run(
        PolicyEngine(script(SEARCH, "<answer>x</answer>")), replace(DRAW, level=1, guide=Guide(hints=(plan_text(TASK.actions, 1),)))
    )
    assert guided.target == plain.target == plain.trajectory.contexts
    assert [z.ids for z in guided.trajectory.spans] == [z.ids for z in plain.trajectory.spans]
    assert guided.trajectory.behaviour_logprobs() != plain.trajectory.behaviour_logprobs()


def test_level_0_equals_unguided_bit_for_bit() -> None:
    engine = PolicyEngine(script(SEARCH, "<answer>x</answer>"))
    sampler = Sampler(
        engine=engine,
        chat=tiny_chat(),
        env=lambda task: SearchEnv(WEB, SearchLimits(results=1)),
        judge=JUDGE,
        agent=AgentConfig(temperature=0.7),
        log=MemoryLog(),
    )
    (member,) = asyncio.run(StepRollouts(sampler=sampler, run_seed=3, step=0).sample(TASK, size=1, level=0))
    assert member.attempt == said(SEARCH, "<answer>x</answer>")
    assert member.attempt.target == member.attempt.trajectory.contexts


def test_a_hint_stands_behind_the_last_user_message() -> None:
    messages: tuple[Message, ...] = (
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    )
    assert with_hint(messages, "!")[1]["content"] == "q!" and messages[1]["content"] == "q"
    assert with_hint(messages, "") is messages


def test_a_guided_attempt_at_evaluation_raises() -> None:
    empty = Trajectory(contexts=(), spans=())
    with pytest.raises(HarnessError, match="evaluation is always unguided"):
        Attempt(
            id="e", task=TASK, purpose=Purpose.EVAL, trajectory=empty, target=(), turns=(), status=Status.NO_ANSWER, answer=None, level=1
        )


@pytest.mark.parametrize(
    "guidance",
    [
        {"level": 1},
        {"guide": Guide(hints=("try Bora",))},
        {"guide": Guide(hints=("", "try Bora"))},
        {"guide": Guide(prefix="try Bora")},
        {"guide": Guide(replay=TASK.actions[:1])},
    ],
)
def test_guidance_at_evaluation_raises_before_anything_is_sampled(guidance: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match="evaluation is always unguided"):
        replace(DRAW, purpose=Purpose.EVAL, **guidance)


def test_seeds_follow_from_the_draw_and_nothing_else() -> None:
    first, second = PolicyEngine(script(SEARCH, "<answer>x</answer>")), PolicyEngine(script(SEARCH, "<answer>other</answer>"))
    run(first)
    run(second, max_turns=7, response_tokens=900)
    assert [r.seed for r in first.requests] == [r.seed for r in second.requests] == [DRAW.seed(0), DRAW.seed(1)]
    assert all(r.temperature == 0.7 for r in first.requests)
    assert len({r.session for r in first.requests}) == 1


def test_every_part_of_a_draw_changes_its_seeds() -> None:
    other = replace(TASK, id="another")
    draws = [
        DRAW,
        replace(DRAW, run_seed=4),
        replace(DRAW, purpose=Purpose.PROBE),
        replace(DRAW, step=1),
        replace(DRAW, task=other),
        replace(DRAW, level=1),
        replace(DRAW, index=1),
    ]
    seeds = {draw.seed(turn) for draw in draws for turn in (0, 1)}
    assert len(seeds) == 14 and all(0 <= seed < 2**63 for seed in seeds)
    assert replace(DRAW, guide=Guide(hints=("words",))).seed(0) == DRAW.seed(0)
