"""Action noise: how many actions are put into a plan, whose, and that a seed fixes them."""

from __future__ import annotations

import pytest

from harness.cli.assemble import planned
from harness.cli.diagnose import OF_A_RUN, DiagnoseConfig
from harness.errors import HarnessError
from harness.types import Action, Task
from trainers.config import RunConfig
from trainers.guidance.noise import with_plan_noise


def plan(name: str, length: int) -> tuple[Action, ...]:
    return tuple(Action(name="visit", arguments={"url": [f"page://{name}/{i}"]}) for i in range(length))


TASKS = tuple(Task(id=f"t{i}", question="?", gold=("yes",), actions=plan(f"t{i}", 5)) for i in range(400))


@pytest.mark.parametrize(("share", "fewest", "most"), [(0.0, 0, 0), (0.1, 0, 1), (0.2, 1, 1), (0.5, 2, 3)])
def test_the_share_of_foreign_actions_is_what_was_asked_for(share: float, fewest: int, most: int) -> None:
    noisy = with_plan_noise(TASKS, share, 0)
    added = [len(new.actions) - len(old.actions) for new, old in zip(noisy, TASKS, strict=True)]
    assert (min(added), max(added)) == (fewest, most)
    assert sum(added) / sum(len(t.actions) for t in TASKS) == pytest.approx(share, abs=0.02)


def test_the_own_actions_stay_in_order_and_all_others_come_from_other_tasks() -> None:
    noisy = with_plan_noise(TASKS, 0.6, 0)
    everyone = {a.to_json() for t in TASKS for a in t.actions}
    for new, old in zip(noisy, TASKS, strict=True):
        own = {a.to_json() for a in old.actions}
        assert tuple(a for a in new.actions if a.to_json() in own) == old.actions
        foreign = [a.to_json() for a in new.actions if a.to_json() not in own]
        assert len(foreign) == 3 and set(foreign) <= everyone
        assert (new.id, new.question, new.gold) == (old.id, old.question, old.gold)
    places = {next(i for i, a in enumerate(t.actions) if f"/{t.id}/" not in str(a.arguments)) for t in noisy}
    assert places == set(range(6))  # before the first action and behind the last, too


def test_noise_follows_from_seed_and_task() -> None:
    assert with_plan_noise(TASKS, 0.2, 1) == with_plan_noise(TASKS, 0.2, 1) != with_plan_noise(TASKS, 0.2, 2)
    assert with_plan_noise(TASKS[::-1], 0.0, 1) == TASKS[::-1]


def test_a_set_without_another_plan_is_refused() -> None:
    with pytest.raises(HarnessError, match="set plan_noise to 0"):
        with_plan_noise(TASKS[:1], 0.9, 0)


def test_runs_and_diagnoses_guide_with_noisy_plans_also_where_they_are_another_tasks() -> None:
    lengths = {}
    for noise, plans in ((0.0, "own"), (0.4, "own"), (0.4, "other")):
        lengths[noise, plans] = {len(task.actions) for task in planned(TASKS, plans, noise, 0)}
    assert lengths == {(0.0, "own"): {5}, (0.4, "own"): {7}, (0.4, "other"): {7}}


def test_a_diagnosis_of_a_run_has_the_noise_of_the_run() -> None:
    assert {"plans", "plan_noise", "seed"} <= set(OF_A_RUN) <= set(DiagnoseConfig.model_fields) & set(RunConfig.model_fields)
