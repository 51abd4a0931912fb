"""Every option of guidance, and the number that it changes: levels, draws, members, advantages, trained ids."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from operator import le
from typing import Any

import pytest
from test_algorithms import OracleRollouts, Reward, actguide, advantages, collect, task_of, threshold

from harness.config import build
from harness.episode import Draw
from harness.errors import HarnessError, UsageError
from harness.types import Outcome, Purpose
from trainers.algorithms.actguide import ActGuideConfig
from trainers.guidance.inject import injection
from trainers.guidance.search import default_budget, drive, fixed_level, release_search

TRAIN, PROBE = Purpose.TRAIN, Purpose.PROBE
NEVER: Reward = threshold(99)


@pytest.mark.parametrize(
    ("options", "level"), [({"fixed_ratio": 1.0}, 5), ({"fixed_ratio": 0.3}, 2), ({"fixed_level": 4}, 4), ({"fixed_level": 9}, 5)]
)
def test_a_fixed_level_is_drawn_once_and_never_searched(options: dict[str, Any], level: int) -> None:
    rollouts = OracleRollouts(threshold(1))
    group = collect(actguide(**options), task_of(5), rollouts)
    assert rollouts.calls == [(0, TRAIN), (level, TRAIN)]  # the search would have settled on level 1
    assert (group.level, group.probes, group.discarded, group.outcome) == (level, (), (), Outcome.RESCUED)
    assert [m.attempt.level for m in group.members] == [0, 0, level, level]


def test_a_fixed_level_joins_the_group_even_where_it_fails() -> None:
    group = collect(actguide(fixed_ratio=1.0), task_of(3), OracleRollouts(NEVER))
    assert ([m.attempt.level for m in group.members], group.level, group.outcome) == ([0, 0, 3, 3], 3, Outcome.FAILED)


@pytest.mark.parametrize(
    ("levels", "ratio", "level"), [(5, 0.2, 1), (5, 0.21, 2), (3, 0.01, 1), (100, 0.07, 7), (10, 0.3, 3), (30, 0.1, 3), (7, 1.0, 7)]
)
def test_a_ratio_is_rounded_up_and_in_decimals(levels: int, ratio: float, level: int) -> None:
    assert fixed_level(levels, None, ratio) == level


def test_without_fallback_a_solved_group_is_guided_too() -> None:
    reward: Reward = lambda level, index, purpose: float(index == 1 or level >= 2)  # noqa: E731
    fallback = collect(actguide(), task_of(3), OracleRollouts(reward))
    assert (len(fallback.members), fallback.level) == (2, None)
    rollouts = OracleRollouts(reward)
    always = collect(actguide(fallback=False), task_of(3), rollouts)
    assert (always.level, rollouts.probed, always.outcome) == (1, [2, 1], Outcome.SOLVED)  # the level is still searched
    assert [(m.attempt.level, m.score.value) for m in always.members] == [(0, 0.0), (0, 1.0), (1, 0.0), (1, 1.0)]
    root = math.sqrt(0.75)
    assert advantages(actguide().credit([fallback])) == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])
    assert advantages(actguide(fallback=False).credit([always])) == pytest.approx([-root, root, -root, root])


def test_without_fallback_an_outage_is_still_no_reason_to_guide() -> None:
    rollouts = OracleRollouts(lambda level, index, purpose: None)
    assert collect(actguide(fallback=False), task_of(3), rollouts).outcome is Outcome.UNSCORABLE
    assert rollouts.calls == [(0, TRAIN)]


def test_without_mixed_policy_guided_rows_are_trained_under_their_guide() -> None:
    group = collect(actguide(), task_of(2), OracleRollouts(threshold(2)))
    mixed, guided = (actguide(train_view=view).credit([group]) for view in ("unguided", "guided"))
    assert [s.ids for s in mixed] == [(1, 5, 6)] * 4
    assert [s.ids for s in guided] == [(1, 5, 6)] * 2 + [(1, 9, 9, 5, 6)] * 2
    assert [s.mask for s in guided][2] == (False, False, False, True, True)
    assert [(s.behaviour, s.advantages, s.guided) for s in mixed] == [(s.behaviour, s.advantages, s.guided) for s in guided]


def test_a_smaller_probe_costs_less_and_sees_less() -> None:
    second: Reward = lambda level, index, purpose: float(level >= 1 and index == 1)  # noqa: E731
    whole = collect(actguide(reuse_probes=False), task_of(1), OracleRollouts(second))
    one = collect(actguide(reuse_probes=False, probe_size=1), task_of(1), OracleRollouts(second))
    assert (whole.level, len(whole.members), len(whole.discarded)) == (1, 4, 2)
    assert (one.level, len(one.members), len(one.discarded)) == (None, 2, 1)
    first = collect(actguide(reuse_probes=False, probe_size=1), task_of(1), OracleRollouts(threshold(1)))
    assert (first.level, len(first.members), len(first.discarded)) == (1, 4, 1)  # N fresh ones are drawn at the level found


def test_the_authors_search_uses_a_level_that_it_never_tried() -> None:
    rollouts = OracleRollouts(NEVER)
    group = collect(actguide(search="release", merge="replace", reuse_probes=False), task_of(4), rollouts)
    assert (rollouts.probed, group.level) == ([2, 3], 4)
    assert [m.attempt.level for m in group.members] == [4, 4] and group.outcome is Outcome.FAILED
    ours = collect(actguide(merge="replace", reuse_probes=False), task_of(4), OracleRollouts(NEVER))
    assert (ours.level, [m.attempt.level for m in ours.members]) == (None, [0, 0])


def test_where_the_authors_search_settles_on_level_0_another_unguided_group_is_drawn() -> None:
    lucky: Reward = lambda level, index, purpose: float(purpose is PROBE or index == 3)  # noqa: E731
    rollouts = OracleRollouts(lucky)
    release = actguide(search="release", merge="replace", reuse_probes=False)
    group = collect(release, task_of(2), rollouts)
    assert rollouts.calls == [(0, TRAIN), (1, PROBE), (0, PROBE), (0, TRAIN)]
    assert [(m.attempt.level, m.attempt.index, m.score.value) for m in group.members] == [(0, 2, 0.0), (0, 3, 1.0)]
    assert (group.level, len(group.discarded), group.outcome) == (None, 2 + 4, Outcome.SOLVED)
    assert advantages(release.credit([group])) == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])  # the failed group taught nothing
    joined = collect(actguide(search="release", reuse_probes=False), task_of(2), OracleRollouts(lucky))
    assert [m.attempt.index for m in joined.members] == [0, 1, 2, 3]
    reused = collect(actguide(search="release"), task_of(2), rollouts := OracleRollouts(lucky))
    assert rollouts.calls == [(0, TRAIN), (1, PROBE), (0, PROBE)]
    assert [m.attempt.purpose for m in reused.members] == [TRAIN, TRAIN, PROBE, PROBE]


def test_a_second_draw_of_the_same_level_is_another_draw() -> None:
    seeds = {Draw(task=task_of(2), run_seed=0, purpose=TRAIN, index=index).seed(0) for index in range(4)}
    assert len(seeds) == 4


@pytest.mark.parametrize("levels", [1, 2, 5, 8, 13])
def test_the_authors_search_against_every_threshold(levels: int) -> None:
    for k in range(levels + 2):
        found = drive(release_search(levels, 20), partial(le, k))
        assert found.level == min(k, levels) and all(0 <= level < levels for level, _ in found.probed)
    short = drive(release_search(levels, 1), lambda level: False)
    assert short.level == levels // 2 + 1 and len(short.probed) == 1  # one above the only level tried
    assert drive(release_search(levels, default_budget(levels)), lambda level: True).level == 0


@pytest.mark.parametrize("sizes", [(-1, 1), (1, -1)])
def test_the_authors_search_refuses_negative_sizes(sizes: tuple[int, int]) -> None:
    with pytest.raises(HarnessError, match="levels >= 0 and budget >= 0"):
        next(release_search(*sizes))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fixed_level": 1, "fixed_ratio": 0.5}, "both fix the level"),
        ({"probe_size": 2}, "set reuse_probes to false"),
        ({"injection": "messages"}, "injected=drop .* injected=keep"),
        ({"injection": "plan", "injected": "keep"}, "leave it out"),
        ({"injection": "prefix"}, "'plan', 'assistant-prefix', 'messages' or 'step'"),
        ({"fixed_ratio": 0.0}, "greater than 0"),
    ],
)
def test_illegal_combinations_fail_where_they_are_set_and_say_what_to_set(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(ActGuideConfig, {"guidance": options})


def test_the_injection_decides_what_is_drawn() -> None:
    seen: list[Any] = []

    class Watching(OracleRollouts):
        async def sample(self, task: Any, **kwargs: Any) -> Any:
            seen.append(kwargs.get("guide"))
            return await super().sample(task, **kwargs)

    task = task_of(1)
    for kind, injected in (("plan", None), ("assistant-prefix", None), ("step", None), ("messages", "keep"), ("messages", "drop")):
        collect(actguide(injection=kind, injected=injected), task, Watching(threshold(1)))
        make: Callable[..., Any] = injection(kind, injected)  # type: ignore[arg-type]
        assert seen[-1] == make(task.actions, 1)
