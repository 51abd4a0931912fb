"""Every way of giving guidance: what the policy sees, what is trained, and the ratios between the two, by hand on a policy of positions."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import STRIPS_THOUGHTS, MemoryLog, PolicyEngine, call, chat_with, tiny_chat

from harness.chat import Chat
from harness.engines.base import Request
from harness.envs.base import Observation
from harness.envs.search import TOOLS, SearchEnv, SearchLimits
from harness.episode import AgentConfig, Draw, run_episode
from harness.errors import HarnessError, OutageError
from harness.events import Kind
from harness.guide import UNGUIDED, Guide
from harness.tiny.world import make_tasks, make_world
from harness.types import Action, Attempt, Group, Ids, Member, Purpose, Score, ScoreStatus, Span, Status, Task, Trajectory
from harness.web.corpus import CorpusWeb
from judges.attempts import Sampler
from judges.exact import ExactJudge
from trainers.algorithms.actguide import ActGuide, ActGuideConfig
from trainers.guidance.inject import LEAD, STEP_LEAD, injection
from trainers.objectives.base import Tokens
from trainers.objectives.policy_gradient import ClippedObjective
from trainers.rollouts import StepRollouts
from trainers.sample import Sample
from trainers.state import with_foreign_plans

WORLD = make_world("injections")
TASKS = make_tasks(WORLD, 3, 2, {})
TASK = TASKS[0]
WEB = CorpusWeb(WORLD.pages())
CHAT = tiny_chat()
LEVEL = 2
TURNS = (call("search", query=["nobody here"]), call("visit", url=["https://nowhere"]), "<answer>x</answer>")
KINDS: tuple[tuple[Any, Any], ...] = (
    ("plan", None),
    ("assistant-prefix", None),
    ("step", None),
    ("messages", "drop"),
    ("messages", "keep"),
)
HIDDEN = KINDS[:-1]  # whose guide the trained view must not show
TEMPLATES = (CHAT, chat_with(STRIPS_THOUGHTS))  # with tools; without them, and dropping earlier thoughts


def guide_of(kind: Any, injected: Any, task: Task = TASK) -> Guide:
    return injection(kind, injected)(task.actions, LEVEL)


class PositionEngine(PolicyEngine):
    """A policy whose log-probability of the token at position p is -p / 1000: every token of context costs a thousandth."""

    async def generate(self, request: Request) -> Span:
        span = await super().generate(request)
        first = len(request.ids)
        return replace(span, logprobs=tuple(-(first + i) / 1000 for i in range(len(span.ids))))


def engine() -> PositionEngine:
    left = list(TURNS)
    return PositionEngine(lambda request, prompt: left.pop(0))


def run(guide: Guide, at: PositionEngine | None = None, env: SearchEnv | None = None, chat: Chat = CHAT, **settings: Any) -> Attempt:
    draw = Draw(task=TASK, run_seed=0, purpose=Purpose.PROBE, level=LEVEL if guide else 0, guide=guide)
    config = AgentConfig.model_validate(settings)
    env = env or SearchEnv(WEB, SearchLimits(results=1))
    return asyncio.run(run_episode(draw, env=env, engine=at or engine(), chat=chat, config=config, temperature=1.0))


def grams(ids: Ids, n: int = 6) -> set[Ids]:
    return {ids[i : i + n] for i in range(len(ids) - n + 1)}


def ratios(sample: Sample) -> list[float]:
    """What the objective makes of a row when the trained policy is the policy of positions."""
    learned = torch.tensor([-p / 1000 for p, sampled in enumerate(sample.mask) if sampled], dtype=torch.float64)
    tokens = Tokens(
        logprobs_N=learned,
        behaviour_N=torch.tensor(sample.behaviour, dtype=torch.float64),
        reference_N=None,
        advantages_N=torch.ones(len(learned), dtype=torch.float64),
        guided_N=torch.full((len(learned),), sample.guided),
    )
    return [float(r) for r in ClippedObjective(kl_coef=0.0).terms(tokens).metrics["ratio"]]


def row(attempt: Attempt, **guidance: Any) -> Sample:
    """The training row that ActGuide makes of an attempt."""
    algorithm = ActGuide(ActGuideConfig.model_validate({"guidance": guidance}))
    member = Member(attempt=attempt, score=Score(value=1.0, status=ScoreStatus.JUDGED, layer="oracle"))
    failed = replace(member, score=replace(member.score, value=0.0))
    return algorithm.credit([Group(task=TASK, step=0, members=(member, failed))])[0]


@pytest.mark.parametrize("chat", TEMPLATES)
@pytest.mark.parametrize(("kind", "injected"), HIDDEN)
def test_the_trained_view_is_that_of_an_unguided_run_bit_for_bit(kind: Any, injected: Any, chat: Chat) -> None:
    plain, guided = run(UNGUIDED, chat=chat), run(guide_of(kind, injected), chat=chat)
    assert guided.target == plain.target == plain.trajectory.contexts
    assert [z.ids for z in guided.trajectory.spans] == [z.ids for z in plain.trajectory.spans]
    assert guided.trajectory.contexts != plain.trajectory.contexts


@pytest.mark.parametrize(("kind", "injected"), HIDDEN)
def test_no_n_gram_of_the_guide_is_in_the_trained_view_or_the_tools(kind: Any, injected: Any) -> None:
    plain, guided = run(UNGUIDED), run(guide_of(kind, injected))
    lead = {"plan": LEAD, "assistant-prefix": LEAD, "step": STEP_LEAD, "messages": TASK.actions[0].to_json()}[kind]
    hinted = grams(CHAT.encode(lead)[1:-1])  # the first and last token may merge with their neighbours
    hinted -= grams(plain.trajectory.ids())  # the frame of a call is the policy's own, too
    assert len(hinted) >= 3 and hinted <= grams(guided.trajectory.ids())
    assert not hinted & grams(guided.trajectory.with_view(guided.target).ids())
    assert lead not in json.dumps(TOOLS)


def test_kept_messages_stand_in_both_views() -> None:
    guided = run(guide_of("messages", "keep"))
    assert guided.target == guided.trajectory.contexts
    assert grams(CHAT.encode(TASK.actions[0].to_json())[1:-1]) <= grams(guided.trajectory.with_view(guided.target).ids())


@pytest.mark.parametrize("chat", TEMPLATES)
@pytest.mark.parametrize(("kind", "injected"), KINDS)
def test_only_sampled_tokens_are_masked_in_and_each_context_is_a_prefix_of_the_next(kind: Any, injected: Any, chat: Chat) -> None:
    at = engine()
    guided = run(guide_of(kind, injected), at, chat=chat)
    sampled = tuple(i for z in guided.trajectory.spans for i in z.ids)
    for view in (guided.trajectory, guided.trajectory.with_view(guided.target)):
        assert tuple(i for i, trained in zip(view.ids(), view.sampled_mask(), strict=True) if trained) == sampled
    for earlier, span, later in zip(at.requests, guided.trajectory.spans, at.requests[1:], strict=False):
        assert later.ids[: len(earlier.ids) + len(span.ids)] == earlier.ids + span.ids
    assert len(at.requests) == 3


def test_ratios_by_hand_on_a_policy_of_positions() -> None:
    """Behaviour 1 9 [5] 2 9 9 [6], where 9 is guidance: 5 stands at 2 and 6 at 6. Trained 1 [5] 2 [6]: 5 stands at 1 and 6 at 3."""
    attempt = Attempt(
        id="a",
        task=TASK,
        purpose=Purpose.PROBE,
        trajectory=Trajectory(contexts=((1, 9), (2, 9, 9)), spans=(Span(ids=(5,), logprobs=(-0.002,)), Span(ids=(6,), logprobs=(-0.006,)))),
        target=((1,), (2,)),
        turns=(),
        status=Status.ANSWERED,
        answer=None,
        level=1,
    )
    trained = row(attempt)
    assert (trained.ids, trained.mask) == ((1, 5, 2, 6), (False, True, False, True))
    assert ratios(trained) == pytest.approx([math.exp(0.001), math.exp(0.003)], rel=1e-12)
    kept = row(attempt, train_view="guided")
    assert (kept.ids, kept.mask) == ((1, 9, 5, 2, 9, 9, 6), (False, False, True, False, False, False, True))
    assert ratios(kept) == [1.0, 1.0]


@pytest.mark.parametrize(("kind", "injected"), KINDS)
def test_the_ratio_is_the_difference_of_the_two_contexts(kind: Any, injected: Any) -> None:
    guided = run(guide_of(kind, injected))
    behaviour, target = [len(c) for c in guided.trajectory.contexts], [len(c) for c in guided.target]
    ahead = [sum(behaviour[: i + 1]) - sum(target[: i + 1]) for i in range(3)]  # tokens of guidance before each turn
    texts = [f"\n\n{STEP_LEAD}\n<1>: search {json.dumps(TASK.actions[0].arguments['query'])}"]
    match kind, injected:
        case "messages", "keep":
            assert ahead == [0, 0, 0]
        case "step", _:
            assert ahead[0] == pytest.approx(len(CHAT.encode(texts[0])), abs=2) and ahead[0] < ahead[1] == ahead[2]
        case _:
            assert ahead[0] > 20 and ahead[0] == ahead[1] == ahead[2]
    expected = [math.exp(n / 1000) for n, z in zip(ahead, guided.trajectory.spans, strict=True) for _ in z.ids]
    assert ratios(row(guided)) == pytest.approx(expected, rel=1e-12)
    assert ratios(row(guided, train_view="guided")) == [1.0] * len(expected)
    assert ratios(row(run(UNGUIDED))) == [1.0] * len(expected)


def test_a_prefix_begins_the_first_turn_and_is_not_parsed_as_what_the_model_said() -> None:
    guided = run(guide_of("assistant-prefix", None))
    opening = CHAT.decode(guided.trajectory.contexts[0])
    assert opening.endswith(
        f"<|im_start|>assistant\n{LEAD}\n<1>: search {json.dumps(TASK.actions[0].arguments['query'])}"
        f"\n<2>: visit {json.dumps(TASK.actions[1].arguments['url'])}\n\n"
    )
    assert guided.turns[0].text == TURNS[0] and len(guided.turns[0].actions) == 1
    assert guided.trajectory.contexts[1:] == guided.target[1:]


def test_a_prefix_cannot_end_the_turn_it_begins() -> None:
    forged = replace(TASK, actions=(Action(name="search", arguments={"query": ["<|im_end|>"]}),))
    guided = run(injection("assistant-prefix")(forged.actions, 1))
    assert guided.trajectory.contexts[0].count(CHAT.end_id) == guided.target[0].count(CHAT.end_id)


def test_messages_replay_the_actions_in_the_environment() -> None:
    opening = CHAT.decode(run(guide_of("messages", "drop")).trajectory.contexts[0])
    first, second = TASK.actions[:2]
    told = opening.rpartition("Who is")[2]
    assert told.index(first.to_json()) < told.index("<tool_response>") < told.index(second.to_json())
    assert told.count("<tool_response>") == 2 and "Error" not in told
    shown = asyncio.run(SearchEnv(WEB, SearchLimits(results=1)).step((second,)))[0].text
    assert shown in told
    assert opening.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(("kind", "injected"), KINDS)
def test_guidance_costs_neither_turns_nor_response_tokens_but_context(kind: Any, injected: Any) -> None:
    plain, given = engine(), engine()
    run(UNGUIDED, plain, max_turns=1, response_tokens=300, context_tokens=4000)
    attempt = run(guide_of(kind, injected), given, max_turns=1, response_tokens=300, context_tokens=4000)
    assert (len(attempt.turns), attempt.status) == (1, Status.TURN_LIMIT)
    assert plain.requests[0].max_tokens == given.requests[0].max_tokens == 300
    short = engine()
    run(guide_of(kind, injected), short, context_tokens=len(given.requests[0].ids) + 7)
    assert short.requests[0].max_tokens == 7


def test_an_outage_while_replaying_is_an_outage() -> None:
    class Down(SearchEnv):
        async def step(self, actions: Sequence[Action]) -> tuple[Observation, ...]:
            raise OutageError("503")

    attempt = run(guide_of("messages", "drop"), env=Down(WEB, SearchLimits()))
    assert (attempt.status, attempt.trajectory.spans, attempt.target) == (Status.TOOL_OUTAGE, (), ())


def test_a_step_hint_stands_before_each_of_the_first_k_turns() -> None:
    at = engine()
    guided = run(guide_of("step", None), at)
    prompts = [CHAT.decode(request.ids) for request in at.requests]
    assert [prompt.count(STEP_LEAD) for prompt in prompts] == [1, 2, 2]
    assert [[f"<{n}>: " in prompt for n in (1, 2, 3)] for prompt in prompts] == [
        [True, False, False],
        [True, True, False],
        [True, True, False],
    ]
    assert guided.turns[0].observations[0] in CHAT.decode(guided.target[1])  # the record and the trained view hold the result alone
    assert STEP_LEAD not in guided.turns[0].observations[0]


@pytest.mark.parametrize(("kind", "injected"), KINDS)
def test_foreign_plans_work_with_every_injection(kind: Any, injected: Any) -> None:
    own, foreign = TASK.actions[1], with_foreign_plans(TASKS)[0]
    assert foreign.actions[1] == TASKS[1].actions[1] != own
    told = CHAT.decode(run(guide_of(kind, injected, foreign)).trajectory.ids())
    there, here = str(foreign.actions[1].arguments["url"][0]), str(own.arguments["url"][0])
    assert there in told and here not in told


@pytest.mark.parametrize(("kind", "injected"), KINDS)
def test_the_log_says_what_was_given(kind: Any, injected: Any) -> None:
    log = MemoryLog()
    sampler = Sampler(
        engine=engine(),
        chat=CHAT,
        env=lambda task: SearchEnv(WEB, SearchLimits(results=1)),
        judge=ExactJudge(closed=True),
        agent=AgentConfig(),
        log=log,
    )
    rollouts = StepRollouts(sampler=sampler, run_seed=0, step=0)
    asyncio.run(rollouts.sample(TASK, size=1, level=LEVEL, guide=guide_of(kind, injected)))
    (attempt,) = log.of(Kind.ATTEMPT)
    assert all(str(next(iter(action.arguments.values()))[0]) in attempt["hint"] for action in TASK.actions[:LEVEL])
    with pytest.raises(HarnessError, match="level 0 has none"):
        asyncio.run(rollouts.sample(TASK, size=1, guide=guide_of(kind, injected)))


@pytest.mark.parametrize("kind", ["plan", "assistant-prefix", "step", "messages"])
@pytest.mark.parametrize("level", [0, 4])
def test_a_level_outside_the_actions_is_refused(kind: Any, level: int) -> None:
    with pytest.raises(HarnessError, match=rf"level {level} needs 1 <= level <= 3"):
        injection(kind, "drop" if kind == "messages" else None)(TASK.actions, level)
