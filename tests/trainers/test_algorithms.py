"""Zero-RL and ActGuide against an oracle whose threshold is known: levels, groups, advantages, and what the rows hold."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from fakes import FakeLearner, MemoryLog, PolicyEngine, call, tiny_chat

from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig
from harness.guide import UNGUIDED, Guide
from harness.tiny.world import make_tasks, make_world
from harness.types import Action, Attempt, FinishReason, Group, Member, Outcome, Purpose, Score, ScoreStatus, Span, Status, Task, Trajectory
from harness.web.corpus import CorpusWeb
from judges.attempts import Sampler
from judges.exact import ExactJudge
from trainers.algorithms.actguide import ActGuide, ActGuideConfig
from trainers.algorithms.grpo import ZeroRL, ZeroRLConfig
from trainers.rollouts import StepRollouts
from trainers.sample import Sample

Reward = Callable[[int, int, Purpose], float | None]
"""(level, index, purpose) -> reward; None is an outage."""


def task_of(levels: int, name: str = "t") -> Task:
    actions = tuple(Action(name="visit", arguments={"url": [f"page://{i}"]}) for i in range(levels))
    return Task(id=name, question="?", gold=("yes",), actions=actions)


def member(task: Task, level: int, index: int, purpose: Purpose, reward: float | None, status: Status = Status.ANSWERED) -> Member:
    """Two sampled tokens behind the prompt (1,), or (1, 9, ..., 9) under guidance."""
    attempt = Attempt(
        id=f"{purpose}/0/{task.id}/k{level}/{index}",
        task=task,
        purpose=purpose,
        trajectory=Trajectory(
            contexts=((1, *(9,) * level),), spans=(Span(ids=(5, 6), logprobs=(-0.25 - level, -0.5 - level), finish=FinishReason.STOP),)
        ),
        target=((1,),),
        turns=(),
        status=Status.TOOL_OUTAGE if reward is None else status,
        answer=None,
        level=level,
        index=index,
    )
    if reward is None:
        return Member(attempt=attempt, score=Score(value=None, status=ScoreStatus.OUTAGE, layer="episode"))
    return Member(attempt=attempt, score=Score(value=reward, status=ScoreStatus.JUDGED, layer="oracle"))


class OracleRollouts:
    """Rollouts whose rewards are given; ``calls`` lists (level, purpose) in the order asked for."""

    step = 0

    def __init__(self, reward: Reward) -> None:
        self._reward = reward
        self.calls: list[tuple[int, Purpose]] = []

    async def sample(
        self, task: Task, *, size: int, first: int = 0, level: int = 0, guide: Guide = UNGUIDED, purpose: Purpose = Purpose.TRAIN
    ) -> tuple[Member, ...]:
        assert bool(guide) is (level > 0)
        self.calls.append((level, purpose))
        return tuple(member(task, level, i, purpose, self._reward(level, i, purpose)) for i in range(first, first + size))

    @property
    def probed(self) -> list[int]:
        return [level for level, purpose in self.calls if purpose is Purpose.PROBE]


def threshold(k: int) -> Reward:
    """The first member succeeds from level ``k`` on, the others never do."""
    return lambda level, index, purpose: float(level >= k and index == 0)


def actguide(group: Mapping[str, object] | None = None, **guidance: object) -> ActGuide:
    sections = {"group": {"group_size": 2, "advantage_eps": 0.0, **(group or {})}, "guidance": guidance}
    return ActGuide(ActGuideConfig.model_validate(sections))


def zero_rl(**group: object) -> ZeroRL:
    return ZeroRL(ZeroRLConfig.model_validate({"group": {"advantage_eps": 0.0, **group}}))


def collect(algorithm: ZeroRL, task: Task, rollouts: OracleRollouts | StepRollouts) -> Group:
    async def one() -> Group:
        (group,) = [group async for group in algorithm.collect([task], rollouts)]
        return group

    return asyncio.run(one())


def group_of(rewards: Sequence[float | None], statuses: Sequence[Status] | None = None) -> Group:
    task = task_of(0)
    kinds = statuses or [Status.ANSWERED] * len(rewards)
    members = tuple(member(task, 0, i, Purpose.TRAIN, r, s) for i, (r, s) in enumerate(zip(rewards, kinds, strict=True)))
    return Group(task=task, step=0, members=members)


def advantages(samples: Sequence[Sample]) -> list[float]:
    return [s.advantages[0] for s in samples]


@pytest.mark.parametrize("levels", [1, 2, 3, 5, 8, 13])
def test_the_level_found_is_minimal_and_verified(levels: int) -> None:
    for k in range(1, levels + 1):
        rollouts = OracleRollouts(threshold(k))
        group = collect(actguide(), task_of(levels), rollouts)
        assert (group.level, group.outcome) == (k, Outcome.RESCUED)
        assert dict(group.probes)[k] is True and dict(group.probes).get(k - 1, False) is False
        assert rollouts.calls[0] == (0, Purpose.TRAIN) and 0 not in rollouts.probed


def test_no_sufficient_level_leaves_the_group_as_it_was() -> None:
    rollouts = OracleRollouts(threshold(99))
    group = collect(actguide(), task_of(4), rollouts)
    assert (group.level, group.outcome) == (None, Outcome.FAILED)
    assert [m.attempt.level for m in group.members] == [0, 0]
    assert rollouts.probed[-1] == 4 and len(group.discarded) == 2 * len(rollouts.probed)


def test_a_solved_group_is_never_guided() -> None:
    rollouts = OracleRollouts(lambda level, index, purpose: float(index == 1))
    group = collect(actguide(), task_of(4), rollouts)
    assert (rollouts.calls, group.outcome, group.level, group.discarded) == ([(0, Purpose.TRAIN)], Outcome.SOLVED, None, ())


def test_zero_rl_never_guides() -> None:
    rollouts = OracleRollouts(threshold(1))
    group = collect(zero_rl(group_size=3), task_of(4), rollouts)
    assert (rollouts.calls, group.outcome, len(group.members)) == ([(0, Purpose.TRAIN)], Outcome.FAILED, 3)


def test_a_task_without_actions_is_never_guided() -> None:
    rollouts = OracleRollouts(threshold(1))
    assert collect(actguide(), task_of(0), rollouts).outcome is Outcome.FAILED
    assert rollouts.calls == [(0, Purpose.TRAIN)]


def test_a_union_is_credited_over_both_halves() -> None:
    group = collect(actguide(), task_of(1), OracleRollouts(threshold(1)))
    assert [(m.attempt.level, m.score.value) for m in group.members] == [(0, 0.0), (0, 0.0), (1, 1.0), (1, 0.0)]
    samples = actguide().credit([group])
    assert advantages(samples) == [-0.5, -0.5, 1.5, -0.5]  # mean 1/4, unbiased std 1/2
    assert [s.guided for s in samples] == [False, False, True, True]
    assert group.discarded == ()


def test_a_replaced_group_is_credited_over_the_guided_half_alone() -> None:
    algorithm = actguide(merge="replace")
    group = collect(algorithm, task_of(1), OracleRollouts(threshold(1)))
    assert [m.attempt.level for m in group.members] == [1, 1]
    assert [m.attempt.level for m in group.discarded] == [0, 0]
    assert advantages(algorithm.credit([group])) == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)], abs=1e-15)
    assert group.outcome is Outcome.RESCUED  # the unguided failures are still known


def test_replacement_keeps_the_failed_group_where_no_level_suffices() -> None:
    group = collect(actguide(merge="replace"), task_of(2), OracleRollouts(threshold(99)))
    assert [m.attempt.level for m in group.members] == [0, 0]


def test_every_trajectory_that_was_paid_for_is_a_member_or_discarded_once() -> None:
    for settings in ({}, {"merge": "replace"}, {"reuse_probes": False}, {"merge": "replace", "reuse_probes": False}):
        rollouts = OracleRollouts(threshold(3))
        group = collect(actguide(**settings), task_of(8), rollouts)
        ids = [m.attempt.id for m in (*group.members, *group.discarded)]
        assert len(ids) == len(set(ids)) == 2 * len(rollouts.calls)


def test_probes_are_reused_by_default() -> None:
    rollouts = OracleRollouts(threshold(1))
    group = collect(actguide(), task_of(1), rollouts)
    assert rollouts.calls == [(0, Purpose.TRAIN), (1, Purpose.PROBE)]
    assert [m.attempt.purpose for m in group.members[2:]] == [Purpose.PROBE] * 2


def test_without_reuse_the_guided_half_is_drawn_afresh_at_the_level_found() -> None:
    rollouts = OracleRollouts(threshold(2))
    group = collect(actguide(reuse_probes=False), task_of(3), rollouts)
    assert rollouts.calls[-1] == (2, Purpose.TRAIN)
    assert [(m.attempt.level, m.attempt.purpose) for m in group.members[2:]] == [(2, Purpose.TRAIN)] * 2
    assert all(m.attempt.purpose is Purpose.PROBE for m in group.discarded) and (2, True) in group.probes


def test_an_unscorable_group_never_triggers_guidance_and_keeps_none() -> None:
    rollouts = OracleRollouts(lambda level, index, purpose: None)
    algorithm = actguide({"zero_variance": "keep"})
    group = collect(algorithm, task_of(4), rollouts)
    assert (rollouts.calls, group.outcome) == ([(0, Purpose.TRAIN)], Outcome.UNSCORABLE)
    assert [m.score.value for m in group.members] == [None, None]
    assert algorithm.credit([group]) == []


def test_one_scored_failure_beside_an_outage_triggers_guidance() -> None:
    rollouts = OracleRollouts(lambda level, index, purpose: float(level >= 1) if index else None)
    group = collect(actguide(), task_of(1), rollouts)
    assert group.level == 1
    samples = actguide().credit([group])
    assert [s.attempt_id.rsplit("/", 1)[1] for s in samples] == ["1", "1"]
    assert advantages(samples) == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], abs=1e-15)


def test_a_probe_without_a_score_ends_the_search() -> None:
    rollouts = OracleRollouts(lambda level, index, purpose: None if level else 0.0)
    group = collect(actguide(), task_of(8), rollouts)
    assert rollouts.probed == [5] and (group.level, group.probes) == (None, ())
    assert group.outcome is Outcome.FAILED and len(group.discarded) == 2


@pytest.mark.parametrize(
    ("budget", "k", "level"),
    [(None, 3, 3), (1, 3, 5), (2, 3, 3), (1, 6, None), (2, 6, 7), (3, 6, 6), (4, 6, 6), (2, 4, 5)],
)
def test_the_probe_budget_bounds_the_search(budget: int | None, k: int, level: int | None) -> None:
    rollouts = OracleRollouts(threshold(k))
    group = collect(actguide(probe_budget=budget), task_of(8), rollouts)
    assert group.level == level and len(rollouts.probed) <= (budget or 4)


def test_delta_decides_what_counts_as_success() -> None:
    reward: Reward = lambda level, index, purpose: 0.5  # noqa: E731
    assert collect(actguide({"delta": 0.5}), task_of(2), OracleRollouts(reward)).outcome is Outcome.SOLVED
    assert collect(actguide({"delta": 0.6}), task_of(2), OracleRollouts(reward)).outcome is Outcome.FAILED


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_a_group_of_equal_rewards_is_dropped_or_kept_with_advantage_0(reward: float) -> None:
    group = group_of([reward] * 3)
    assert zero_rl().credit([group]) == []
    assert advantages(zero_rl(zero_variance="keep").credit([group])) == [0.0, 0.0, 0.0]


def test_a_group_of_one_has_advantage_0() -> None:
    assert advantages(zero_rl(zero_variance="keep").credit([group_of([1.0])])) == [0.0]
    assert advantages(zero_rl(zero_variance="keep").credit([group_of([1.0, None])])) == [0.0]
    assert zero_rl().credit([group_of([1.0])]) == []


def test_a_truncated_row_is_trained_or_only_counts_in_the_baseline() -> None:
    statuses = [Status.ANSWERED, Status.TRUNCATED, Status.ANSWERED, Status.TRUNCATED]
    group = group_of([1.0, 0.0, 0.0, 0.0], statuses)
    assert advantages(zero_rl(truncated="penalise").credit([group])) == [1.5, -0.5, -0.5, -0.5]
    masked = zero_rl(truncated="mask").credit([group])
    assert advantages(masked) == [1.5, -0.5]
    assert [s.attempt_id for s in masked] == ["train/0/t/k0/0", "train/0/t/k0/2"]


def test_advantages_are_centred_and_scaled_as_set() -> None:
    group = group_of([1.0, 0.0, 0.0, 0.0])
    assert advantages(zero_rl(advantage_scale="none").credit([group])) == [0.75, -0.25, -0.25, -0.25]
    assert advantages(zero_rl(advantage_eps=0.5).credit([group])) == [0.75, -0.25, -0.25, -0.25]  # std 1/2 + eps 1/2


def test_a_rejected_row_changes_no_advantage() -> None:
    whole = zero_rl().credit([group_of([1.0, 0.0, 0.0])])
    gap = zero_rl().credit([group_of([1.0, None, 0.0, 0.0])])
    assert advantages(gap) == advantages(whole)
    assert [s.attempt_id[-1] for s in gap] == ["0", "2", "3"]


def test_an_attempt_without_a_sampled_token_is_no_row_but_counts() -> None:
    group = group_of([1.0, 0.0])
    empty = replace(group.members[1].attempt, trajectory=Trajectory(contexts=(), spans=()), target=())
    group = replace(group, members=(group.members[0], Member(attempt=empty, score=group.members[1].score)))
    assert advantages(zero_rl(advantage_scale="none").credit([group])) == [0.5]


def test_a_guided_row_pairs_the_unguided_ids_with_the_guided_logprobs() -> None:
    group = collect(actguide(), task_of(1), OracleRollouts(threshold(1)))
    plain, guided = actguide().credit([group])[1:3]
    assert plain.ids == guided.ids == (1, 5, 6) and guided.mask == (False, True, True)
    assert (plain.behaviour, guided.behaviour) == ((-0.25, -0.5), (-1.25, -1.5))


def test_the_ratio_of_unguided_rows_is_1_and_that_of_guided_rows_is_the_difference_of_two_contexts() -> None:
    world = make_world("algorithms")
    task = make_tasks(world, 3, 1, {})[0]
    web = CorpusWeb(world.pages())
    search = call("search", query=[task.actions[0].arguments["query"][0]])

    def say(request: object, prompt: str) -> str:
        if "<tool_response>" not in prompt.rpartition("Who is ")[2]:
            return search
        return f"<answer>{task.gold[0] if '<2>' in prompt else 'nobody'}</answer>"

    sampler = Sampler(
        engine=PolicyEngine(say),
        chat=tiny_chat(),
        env=lambda t: SearchEnv(web, SearchLimits(results=1)),
        judge=ExactJudge(closed=True),
        agent=AgentConfig(),
        log=MemoryLog(),
    )
    algorithm = actguide()
    group = collect(algorithm, task, StepRollouts(sampler=sampler, run_seed=0, step=0))
    assert (group.level, [m.score.value for m in group.members]) == (2, [0.0, 0.0, 1.0, 1.0])
    samples = algorithm.credit([group])
    for sample, who in zip(samples, group.members, strict=True):
        learner = FakeLearner()
        (row,) = learner.logprobs([sample.ids])
        (seen,) = learner.logprobs([who.attempt.trajectory.ids()])
        under_target = tuple(p for p, sampled in zip(row, sample.mask[1:], strict=True) if sampled)
        under_behaviour = tuple(p for p, sampled in zip(seen, who.attempt.trajectory.sampled_mask()[1:], strict=True) if sampled)
        assert sample.behaviour == under_behaviour
        assert (under_target == sample.behaviour) is not sample.guided
    assert samples[0].ids[: len(group.members[0].attempt.target[0])] == samples[2].ids[: len(group.members[2].attempt.target[0])]
