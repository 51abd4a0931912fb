"""The published files as they lie in the development data folder; skipped by name where that is absent."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from harness.tasks import HOTPOTQA, MUSIQUE, TaskLoader, TaskSet
from harness.types import Task
from harness.web.corpus import CorpusWeb

CORPORA = Path(__file__).parents[2] / "shared" / "data" / "corpora"


def need(name: str) -> Path:
    if not (CORPORA / name).is_dir():
        pytest.skip(f"needs {name}, which is not at {CORPORA}")
    return CORPORA / name


def all_tasks(tasks: TaskSet) -> list[Task]:
    return [task for split in tasks.tasks.values() for task in split]


def page_count(tasks: TaskSet) -> int:
    web = tasks.web(tasks.name)
    assert isinstance(web, CorpusWeb)
    return len(web.pages)


def visited_pages(tasks: TaskSet, task: Task) -> list[str]:
    """Execute every expert action; the text of the pages that were visited."""
    web, pages = tasks.web(task.web), []
    for action in task.actions:
        if action.name == "search":
            assert asyncio.run(web.search(action.arguments["query"][0], 5))
        else:
            page = asyncio.run(web.fetch(action.arguments["url"][0]))
            pages.append(f"{page.title}\n{page.text}".casefold())
    return pages


def test_musique_has_its_known_counts() -> None:
    tasks = MUSIQUE.load(need("musique100"))
    assert Counter(task.tags["hops"] for task in all_tasks(tasks)) == {"2": 68, "3": 27, "4": 5}
    assert {name: len(split) for name, split in tasks.tasks.items()} == {"train": 73, "validation": 7, "test": 20}
    assert page_count(tasks) == 1890


def test_every_musique_visit_opens_the_page_that_holds_the_answer_of_its_hop() -> None:
    folder = need("musique100")
    tasks = MUSIQUE.load(folder)
    rows = {row["id"]: row for row in json.loads((folder / "qa_train.json").read_text(encoding="utf-8"))}
    for task in all_tasks(tasks):
        answers = [hop["answer"].casefold() for hop in rows[task.id]["question_decomposition"]]
        pages = visited_pages(tasks, task)
        assert len(pages) == len(answers) == int(task.tags["hops"])
        assert all(answer in page for answer, page in zip(answers, pages, strict=True)), task.id
        assert not any("#" in str(action.arguments) for action in task.actions), task.id


def test_musique_searches_find_the_gold_page_more_often_than_not() -> None:
    tasks = MUSIQUE.load(need("musique100"))
    web = tasks.web("musique")
    found = [
        visit.arguments["url"][0] in [hit.url for hit in asyncio.run(web.search(search.arguments["query"][0], 5))]
        for task in all_tasks(tasks)
        for search, visit in zip(task.actions[::2], task.actions[1::2], strict=True)
    ]
    assert (sum(found), len(found)) == (217, 237)


def test_hotpotqa_has_its_known_counts_and_executable_actions() -> None:
    tasks = HOTPOTQA.load(need("hotpotqa100"))
    assert Counter(task.tags["hops"] for task in all_tasks(tasks)) == {"2": 100}
    assert page_count(tasks) == 994
    for task in all_tasks(tasks):
        pages = visited_pages(tasks, task)
        assert len(pages) == 2
        if task.gold[0].casefold() not in ("yes", "no") and task.tags["type"] == "bridge":
            assert task.gold[0].casefold() in "\n".join(pages), task.id


@pytest.mark.parametrize("loader", [MUSIQUE, HOTPOTQA])
def test_one_file_of_questions_gives_the_same_set_as_the_folder(loader: TaskLoader) -> None:
    folder = need(f"{loader.name}100")
    assert loader.load(folder / "qa_train.json").fingerprint == loader.load(folder).fingerprint
