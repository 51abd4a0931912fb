"""Self-distillation: unguided trajectories, a teacher who sees the whole plan, and rows that hold both views of the same tokens."""

from __future__ import annotations

import asyncio

import pytest
from fakes import MemoryLog, PolicyEngine, call, tiny_chat

from harness.engines.base import Request
from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig, Draw
from harness.errors import HarnessError, OutageError
from harness.events import Kind
from harness.guide import Guide, with_hint
from harness.tiny.world import make_tasks, make_world
from harness.types import Group, Purpose, Task
from harness.web.base import Hit
from harness.web.corpus import CorpusWeb
from judges.attempts import Sampler
from judges.exact import ExactJudge
from trainers.algorithms.opsd import OPSD, OPSDConfig
from trainers.guidance.inject import plan_text
from trainers.rollouts import StepRollouts

WORLD = make_world("opsd")
TASK = make_tasks(WORLD, 3, 1, {})[0]
PLAIN = Task(id="plain", question="?", gold=("yes",))
WEB = CorpusWeb(WORLD.pages())


def say(request: Request, prompt: str) -> str:
    if "<tool_response>" not in prompt.rpartition("Who is ")[2]:
        return call("search", query=[TASK.actions[0].arguments["query"][0]])
    return f"<answer>{'nobody' if request.session.endswith('/0') else TASK.gold[0]}</answer>"


class DownAfterOne(CorpusWeb):
    """Answers one search, then is down."""

    answered = 0

    async def search(self, query: str, limit: int) -> list[Hit]:
        self.answered += 1
        if self.answered > 1:
            raise OutageError("down")
        return await super().search(query, limit)


def collect(*tasks: Task, web: CorpusWeb = WEB, context: int = 10_000) -> tuple[list[Group], PolicyEngine, MemoryLog]:
    engine, log = PolicyEngine(say), MemoryLog()
    sampler = Sampler(
        engine=engine,
        chat=tiny_chat(),
        env=lambda task: SearchEnv(web, SearchLimits(results=1)),
        judge=ExactJudge(closed=True),
        agent=AgentConfig(context_tokens=context),
        log=log,
    )

    async def all_groups() -> list[Group]:
        rollouts = StepRollouts(sampler=sampler, run_seed=0, step=0)
        return [group async for group in ALGORITHM.collect(tasks, rollouts)]

    return asyncio.run(all_groups()), engine, log


ALGORITHM = OPSD(OPSDConfig.model_validate({"group": {"group_size": 2}}))


def test_the_policy_samples_without_the_plan_and_the_teacher_looks_on_behind_it() -> None:
    (group,), engine, log = collect(TASK)
    chat, env = tiny_chat(), SearchEnv(WEB, SearchLimits())
    plan = plan_text(TASK.actions, len(TASK.actions))
    opening = asyncio.run(env.start(TASK.public()))
    assert len(group.members) == 2 and not any("<1>: " in chat.decode(request.ids) for request in engine.requests)
    for member in group.members:
        attempt = member.attempt
        assert attempt.level == 0 and attempt.target == attempt.trajectory.contexts
        assert attempt.teacher is not None
        assert attempt.teacher[0] == chat.prompt(with_hint(opening.messages, plan), opening.tools)
        assert attempt.teacher[1:] == attempt.target[1:]
    assert [blob["teacher"] for blob in log.blobs] == [[list(c) for c in m.attempt.teacher or ()] for m in group.members]
    assert {a["hint"] for a in log.of(Kind.ATTEMPT)} == {None}


def test_every_trajectory_is_a_row_whatever_its_reward_and_holds_both_views() -> None:
    groups, _, _ = collect(TASK)
    assert [m.score.value for m in groups[0].members] == [0.0, 1.0]
    rows = ALGORITHM.credit(groups)
    for row, member in zip(rows, groups[0].members, strict=True):
        trajectory = member.attempt.trajectory
        assert row.ids == trajectory.ids() and row.teacher is not None and not row.guided
        assert row.teacher.ids == trajectory.with_view(member.attempt.teacher or ()).ids()
        assert sum(row.teacher.mask) == sum(row.mask) == trajectory.sampled_tokens
        assert row.width == len(row.teacher.ids) > len(row.ids)


def test_a_task_without_expert_actions_has_no_teacher_and_is_not_sampled() -> None:
    groups, engine, _ = collect(PLAIN, TASK)
    assert [group.task.id for group in groups] == [TASK.id]
    assert not any("plain" in request.session for request in engine.requests)


def test_a_trajectory_that_an_outage_cut_is_not_trained() -> None:
    groups, _, _ = collect(TASK, web=DownAfterOne(WORLD.pages()))
    assert sorted(m.score.value is None for m in groups[0].members) == [False, True]
    (row,) = ALGORITHM.credit(groups)
    assert row.attempt_id == next(m.attempt.id for m in groups[0].members if m.score.value is not None)


def test_the_context_must_hold_the_teachers_view_too() -> None:
    groups, _, _ = collect(TASK)
    (attempt, _) = (m.attempt for m in groups[0].members)
    assert attempt.teacher is not None
    first = len(attempt.teacher[0]) + len(attempt.trajectory.spans[0].ids)
    (short,), _, _ = collect(TASK, context=first)
    cut = short.members[0].attempt
    assert cut.status == "truncated" and len(cut.trajectory.spans) == 1
    assert len(cut.target[0]) < len(attempt.teacher[0])


@pytest.mark.parametrize("teacher", [Guide(prefix="given"), Guide(replay=TASK.actions)])
def test_a_teacher_is_hinted_and_given_nothing(teacher: Guide) -> None:
    with pytest.raises(HarnessError, match="it can be given nothing else"):
        Draw(task=TASK, run_seed=0, purpose=Purpose.TRAIN, teacher=teacher)


def test_a_teacher_at_evaluation_raises() -> None:
    with pytest.raises(HarnessError, match="evaluation is always unguided"):
        Draw(task=TASK, run_seed=0, purpose=Purpose.EVAL, teacher=Guide(hints=("a plan",)))
