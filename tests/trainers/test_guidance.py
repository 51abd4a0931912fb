"""The search for the smallest sufficient level against every threshold, and the wording of a plan."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from operator import le

import pytest

from harness.errors import HarnessError
from harness.types import Action
from trainers.guidance.inject import LEAD, plan_text
from trainers.guidance.search import default_budget, search, smallest_sufficient_level

LENGTHS = range(1, 41)


def has_bit(successes: int, level: int) -> bool:
    """Whether ``level`` is one of the levels that ``successes`` holds as bits."""
    return bool(successes >> (level - 1) & 1)


@pytest.mark.parametrize("levels", LENGTHS)
def test_the_default_budget_finds_every_threshold_and_none_where_there_is_none(levels: int) -> None:
    budget = default_budget(levels)
    for threshold in range(1, levels + 2):
        found = smallest_sufficient_level(partial(le, threshold), levels, budget)
        assert found.level == (threshold if threshold <= levels else None)
        assert len(found.probed) <= budget
        tried = dict(found.probed)
        assert len(tried) == len(found.probed) and set(tried) <= set(range(1, levels + 1))  # nothing twice, never level 0
        assert tried == {k: k >= threshold for k in tried}
        if found.level is None:
            assert tried[levels] is False
        else:
            assert tried[found.level] is True and (found.level == 1 or tried[found.level - 1] is False)


@pytest.mark.parametrize("levels", LENGTHS)
def test_a_smaller_budget_is_kept_and_never_gives_an_untried_level(levels: int) -> None:
    for budget in range(default_budget(levels)):
        for threshold in range(1, levels + 2):
            found = smallest_sufficient_level(partial(le, threshold), levels, budget)
            tried = dict(found.probed)
            assert len(found.probed) <= budget
            assert found.level == min((k for k, sufficed in tried.items() if sufficed), default=None)
            assert found.level is None or found.level >= threshold


@pytest.mark.parametrize("levels", [1, 2, 7, 12])
def test_an_oracle_that_is_not_monotone_still_gets_a_verified_level(levels: int) -> None:
    for successes in range(2**levels) if levels < 12 else range(0, 2**12, 37):
        found = smallest_sufficient_level(partial(has_bit, successes), levels, default_budget(levels))
        assert found.level is None or has_bit(successes, found.level)


@pytest.mark.parametrize(("levels", "budget"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 4), (9, 5), (40, 7)])
def test_the_default_budget_is_the_rounded_logarithm_and_one(levels: int, budget: int) -> None:
    assert default_budget(levels) == budget


def test_a_budget_of_nothing_tries_nothing() -> None:
    found = smallest_sufficient_level(lambda k: True, 5, 0)
    assert (found.level, found.probed) == (None, ())


def test_a_task_without_actions_has_no_level() -> None:
    assert smallest_sufficient_level(lambda k: True, 0, 3).level is None


def test_a_known_search_by_hand() -> None:
    found = smallest_sufficient_level(lambda k: k >= 3, 8, 4)
    assert found.probed == ((5, True), (3, True), (2, False)) and found.level == 3


@pytest.mark.parametrize(("levels", "budget"), [(-1, 1), (1, -1)])
def test_negative_sizes_are_refused(levels: int, budget: int) -> None:
    with pytest.raises(HarnessError, match="levels >= 0 and budget >= 0"):
        next(search(levels, budget))


ACTIONS = (
    Action(name="search", arguments={"query": ["Bora", "Börá"]}),
    Action(name="visit", arguments={"url": ["https://mini.web/Bora"], "goal": "the mentor"}),
    Action(name="book", arguments={"from": ["A"], "to": ["B"]}),
    Action(name="wait", arguments={"seconds": 3}),
)


def test_a_plan_has_one_line_an_action() -> None:
    assert plan_text(ACTIONS, 1) == f'\n\n{LEAD}\n<1>: search ["Bora", "Börá"]'
    assert plan_text(ACTIONS, 4) == (
        f'\n\n{LEAD}\n<1>: search ["Bora", "Börá"]\n<2>: visit ["https://mini.web/Bora"]'
        '\n<3>: book {"from": ["A"], "to": ["B"]}\n<4>: wait {"seconds": 3}'
    )


def test_a_plan_says_that_it_is_partial_and_that_more_may_be_needed() -> None:
    assert "part of" in LEAD and "may be incomplete" in LEAD and "may be needed" in LEAD


def test_each_level_begins_with_the_one_before() -> None:
    plans = [plan_text(ACTIONS, k) for k in range(1, 5)]
    assert all(later.startswith(earlier + "\n") for earlier, later in pairwise(plans))


@pytest.mark.parametrize("level", [0, -1, 5])
def test_a_level_outside_the_actions_is_refused(level: int) -> None:
    with pytest.raises(HarnessError, match=rf"level {level} needs 1 <= level <= 4"):
        plan_text(ACTIONS, level)
