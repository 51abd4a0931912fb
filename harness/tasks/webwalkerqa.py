"""WebWalkerQA: 680 questions in English and Chinese over the sites of conferences, organisations, schools and games.

The hub's form keeps difficulty, type, domain and language under ``info``; flattened copies have them as columns of their own. Rows
have no ids, so a hash of the question names them. The agent gets the question, not the root page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.rows import Row
from harness.tables import text_of
from harness.tasks.base import TaskSet
from harness.tasks.published import OPEN_WEB, Source, check_counts, question_id, question_set
from harness.types import Task

DIFFICULTIES = {"easy": 160, "medium": 280, "hard": 240}
SOURCE = Source(
    name="webwalkerqa",
    repo="callanwu/WebWalkerQA",
    files=("*main*.parquet", "*main*.json*", "test.json", "*.json*"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebWalkerQA:
    """Loader of WebWalkerQA."""

    name: str = "webwalkerqa"
    summary: str = "WebWalkerQA: 680 questions about web sites, easy to hard, one source or several, English and Chinese"
    needs_path: bool = False

    def load(self, path: Path | None) -> TaskSet:
        found = [(row, _task(row)) for row in SOURCE.rows(path)]
        check_counts(SOURCE, "difficulty", Counter(task.tags["difficulty"] for _, task in found), DIFFICULTIES)
        return question_set(SOURCE, found)


WEBWALKERQA = WebWalkerQA()


def _task(row: Row) -> Task:
    info = row.data.get("info")
    about = replace(row, data={**row.data, **info}) if isinstance(info, Mapping) else row
    question = text_of(row, "question", "Question").strip()
    return Task(
        id=question_id(SOURCE.name, question),
        question=question,
        gold=(text_of(row, "answer", "Answer").strip(),),
        web=OPEN_WEB,
        tags={
            "difficulty": text_of(about, "difficulty_level"),
            "type": text_of(about, "type"),
            "topic": text_of(about, "domain"),
            "language": text_of(about, "lang", blank=True) or "zh",  # 58 Chinese rows leave it empty
        },
    )
