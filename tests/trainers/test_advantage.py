"""Group advantages against numbers worked out by hand, and against the properties every baseline must have."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from trainers.advantage import group_advantages


def test_two_groups_by_hand() -> None:
    found = group_advantages([1.0, 0.0, 0.0, 0.0, 2.0, 4.0], ["a", "a", "a", "a", "b", "b"], eps=0.0)
    assert found == pytest.approx([1.5, -0.5, -0.5, -0.5, -math.sqrt(0.5), math.sqrt(0.5)], abs=1e-15)


def test_eps_is_added_to_the_unbiased_std() -> None:
    [high, low] = group_advantages([1.0, 0.0], [0, 0], eps=0.25)
    assert high == -low == 0.5 / (math.sqrt(0.5) + 0.25)


def test_groups_may_interleave() -> None:
    assert group_advantages([1.0, 5.0, 0.0, 7.0], [0, 1, 0, 1], scale="none") == [0.5, -1.0, -0.5, 1.0]


def test_a_group_of_one_gets_zero_and_never_its_raw_reward() -> None:
    assert group_advantages([1.0, 0.7], ["a", "b"]) == [0.0, 0.0]
    assert group_advantages([1.0], ["a"], scale="none") == [0.0]


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, -7e-9])
def test_equal_rewards_give_exactly_zero(reward: float) -> None:
    assert group_advantages([reward] * 7, ["a"] * 7) == [0.0] * 7


def test_a_row_without_reward_has_no_advantage_and_moves_no_baseline() -> None:
    with_gap = group_advantages([1.0, None, 0.0, float("nan"), 0.0], ["a"] * 5)
    without = group_advantages([1.0, 0.0, 0.0], ["a"] * 3)
    assert with_gap[1] is None and with_gap[3] is None
    assert [with_gap[0], with_gap[2], with_gap[4]] == without


def test_a_group_whose_other_rows_have_no_reward_is_a_group_of_one() -> None:
    assert group_advantages([None, 1.0, None], ["a"] * 3) == [None, 0.0, None]


def test_nothing_in_nothing_out() -> None:
    assert group_advantages([], []) == []


def test_lengths_must_agree() -> None:
    with pytest.raises(HarnessError, match="2 rewards and 1 groups"):
        group_advantages([1.0, 0.0], ["a"])


@given(st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=2, max_size=12))  # a learner beside it may flush denormals
def test_agrees_with_the_standard_library(rewards: list[float]) -> None:
    found = group_advantages(rewards, ["g"] * len(rewards))
    if len(set(rewards)) == 1:
        assert found == [0.0] * len(rewards)
        return
    mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
    assert found == pytest.approx([(r - mean) / (std + 1e-6) for r in rewards], rel=1e-9, abs=1e-9)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=16), st.integers(0, 16))
def test_adding_a_rejected_row_changes_no_other_advantage(rewards: list[float], place: int) -> None:
    place = min(place, len(rewards))
    with_rejected: list[float | None] = [*rewards[:place], None, *rewards[place:]]
    found = group_advantages(with_rejected, ["g"] * len(with_rejected))
    assert [a for i, a in enumerate(found) if i != place] == group_advantages(rewards, ["g"] * len(rewards))
