"""The mini web: worlds share nothing that could be learned by heart, chains follow links, and the expert's route replays."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from fakes import PolicyEngine, Say, tiny_chat

from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig, Draw, run_episode
from harness.tasks import MINIWEB
from harness.tiny.world import NAMES, PEOPLE_PER_WORLD, ROLES, ROLES_PER_WORLD, SITE, make_tasks, make_world, question_text
from harness.types import Purpose, Status, Task
from harness.web.corpus import CorpusWeb

SET = MINIWEB.load(None)
WORLD = make_world("facts")
HOPS = (1, 2, 3, 4)


def roles_of(task: Task) -> tuple[str, ...]:
    """The roles of a question, the innermost first."""
    return tuple(reversed([word for word in task.question.split() if word in ROLES]))


def in_turn(texts: list[str]) -> Say:
    """Says one text after the other."""
    left = iter(texts)
    return lambda request, prompt: next(left)


def start_of(task: Task) -> str:
    return task.question.removesuffix("?").split()[-1]


def test_a_world_is_the_same_each_time_and_another_name_is_another_world() -> None:
    assert make_world("facts") == WORLD
    assert make_world("other").links != WORLD.links


def test_a_world_has_its_people_and_every_page_links_to_as_many_others() -> None:
    assert len(WORLD.links) == PEOPLE_PER_WORLD and len(set(NAMES)) == len(NAMES)
    roles = {tuple(page) for page in WORLD.links.values()}
    assert len(roles) == 1 and len(set(next(iter(roles)))) == ROLES_PER_WORLD
    for person, links in WORLD.links.items():
        others = set(links.values())
        assert len(others) == ROLES_PER_WORLD and person not in others and others <= set(WORLD.links)


def test_no_two_worlds_share_a_page() -> None:
    worlds = [make_world(name) for name in SET.webs]
    pages = [(page.title, page.text) for world in worlds for page in world.pages()]
    assert len(worlds) == 48 and len(pages) == len(set(pages)) == 48 * PEOPLE_PER_WORLD


def test_splits_share_no_web_no_task_and_no_answered_question() -> None:
    ids = [task.id for tasks in SET.tasks.values() for task in tasks]
    assert len(ids) == len(set(ids))
    webs = {split: {task.web for task in tasks} for split, tasks in SET.tasks.items()}
    answered = {split: {(task.question, task.gold) for task in tasks} for split, tasks in SET.tasks.items()}
    worded = {split: {task.question for task in tasks} for split, tasks in SET.tasks.items()}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not webs[one] & webs[other] and not answered[one] & answered[other]
        assert len(worded[one] & worded[other]) <= 0.02 * len(worded[other])  # the same words of another world, by chance


@pytest.mark.parametrize("hops", HOPS)
def test_the_gold_answer_is_where_the_links_lead(hops: int) -> None:
    for task in make_tasks(WORLD, hops, 20, {}):
        person = start_of(task)
        roles = roles_of(task)
        assert len(roles) == hops and task.question == question_text(start_of(task), roles)
        met = [person]
        for role in roles:
            person = WORLD.links[person][role]
            met.append(person)
        assert task.gold == (person,) and len(set(met)) == hops + 1
        assert task.tags["hops"] == str(hops) and len(task.actions) == hops


@pytest.mark.parametrize("hops", HOPS)
def test_questions_are_unique_and_always_the_same(hops: int) -> None:
    tasks = make_tasks(WORLD, hops, 60, {})
    assert len({task.question for task in tasks}) == len({task.id for task in tasks}) == 60
    assert make_tasks(WORLD, hops, 60, {}) == tasks


def test_more_questions_begin_with_the_fewer() -> None:
    assert make_tasks(WORLD, 3, 40, {})[:10] == make_tasks(WORLD, 3, 10, {})


@pytest.mark.parametrize("hops", HOPS)
def test_the_experts_actions_replay_and_the_last_page_holds_the_answer(hops: int) -> None:
    env = SearchEnv(CorpusWeb(WORLD.pages()), SearchLimits(results=1))
    for task in make_tasks(WORLD, hops, 12, {}):
        assert [action.name for action in task.actions] == ["search"] + ["visit"] * (hops - 1)
        observations = asyncio.run(env.step(task.actions))
        assert not any(o.error for o in observations)
        assert f"{roles_of(task)[-1]}: {task.gold[0]}" in observations[-1].text.split("\n")
        for seen, action in zip(observations, task.actions[1:], strict=False):
            assert action.arguments["url"][0].removeprefix(SITE) in seen.text  # the next address could be read off the page before


@pytest.mark.parametrize("hops", HOPS)
def test_a_search_for_a_person_finds_that_persons_page_first(hops: int) -> None:
    web = CorpusWeb(WORLD.pages())
    for task in make_tasks(WORLD, hops, 12, {}):
        (hit,) = asyncio.run(web.search(start_of(task), 1))
        assert hit.title == start_of(task)


@pytest.mark.parametrize("hops", HOPS)
def test_a_demonstration_is_what_an_episode_would_show(hops: int) -> None:
    chat, web = tiny_chat(), CorpusWeb(WORLD.pages())
    for task in make_tasks(WORLD, hops, 3, {}):
        expert = [str(m["content"]) for m in task.demonstration if m["role"] == "assistant"]
        attempt = asyncio.run(
            run_episode(
                Draw(task=task, run_seed=0, purpose=Purpose.TRAIN),
                env=SearchEnv(web, SearchLimits(results=1)),
                engine=PolicyEngine(in_turn(expert)),
                chat=chat,
                config=AgentConfig(),
                temperature=1.0,
            )
        )
        assert (attempt.status, attempt.answer) == (Status.ANSWERED, task.gold[0])
        assert [a for turn in attempt.turns for a in turn.actions] == list(task.actions)
        shown = [{"role": "user", "content": task.question}]
        for turn in attempt.turns:
            shown.append({"role": "assistant", "content": turn.text})
            shown += [{"role": "tool", "content": text} for text in turn.observations]
        assert [dict(m) for m in task.demonstration] == shown


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_random_answer_is_right_at_most_once_in_the_other_people(split: str) -> None:
    luck = []
    for task in SET.split(split):
        others = set(make_world(task.web).links) - {start_of(task)}
        luck.append(len(others & set(task.gold)) / len(others))
    assert max(luck) == min(luck) == 1 / (PEOPLE_PER_WORLD - 1)


def test_no_name_is_right_for_many_questions_of_a_split() -> None:
    golds = [task.gold[0] for task in SET.split("test")]
    assert max(golds.count(name) for name in set(golds)) <= 0.05 * len(golds)


def test_an_answer_is_never_named_by_its_question_or_its_plan() -> None:
    for task in SET.split("test"):
        assert task.gold[0] not in task.question.replace("?", "").split()
        assert all(task.gold[0] not in str(action.arguments) for action in task.actions)
        assert all(earlier != later for earlier, later in pairwise(task.actions))
