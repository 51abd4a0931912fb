"""What MuSiQue and HotpotQA have in common: files in a folder or one file, pages with numbered URLs, a search and a visit a hop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.errors import DataError, UsageError
from harness.rows import Row, read_rows
from harness.tasks.base import SPLITS, TaskSet, by_split, distinct, fingerprint_of
from harness.types import Action, Task
from harness.web.base import Page
from harness.web.corpus import CorpusWeb, read_pages

QUESTIONS, CORPUS = "qa_train.json", "train_corpus.json"


def hop_actions(query: str, url: str) -> tuple[Action, Action]:
    """The expert's way over one hop: search for it, open the page that answers it."""
    return Action(name="search", arguments={"query": [query]}), Action(name="visit", arguments={"url": [url]})


def read_question_rows(name: str, path: Path | None) -> list[Row]:
    """Rows of PATH/qa_train.json, or of PATH itself where it is a file (``.json`` list or JSONL)."""
    if path is None:
        raise UsageError(
            f"{name} needs its data: say where it lies with --data {name}=PATH (a folder with {QUESTIONS} and {CORPUS}, or one file)."
        )
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; {name} expects a folder with {QUESTIONS} and {CORPUS}, or one file of questions.")
    file = path / QUESTIONS if path.is_dir() else path
    rows = read_rows(file)
    if not rows:
        raise DataError(f"{file}: holds no question, expected at least one.")
    return rows


def read_corpus(path: Path) -> list[Page] | None:
    """Pages of PATH/train_corpus.json; None where PATH is one file, whose rows then bring their own paragraphs."""
    return read_pages(path / CORPUS) if path.is_dir() else None


def numbered(contents: Sequence[tuple[str, str]]) -> list[Page]:
    """Pages of (title, text) pairs, each pair once, in order of appearance."""
    return [Page(url=f"page://{place}", title=title, text=text) for place, (title, text) in enumerate(dict.fromkeys(contents))]


def task_set(name: str, found: Iterable[tuple[Row, Task]], pages: Sequence[Page]) -> TaskSet:
    """The closed-answer set of the tasks in ``found``, each with the row that it comes from, over one corpus of ``pages``."""
    tasks, web = distinct(found), CorpusWeb(pages)
    return TaskSet(
        name=name,
        tasks=by_split(tasks, SPLITS),
        webs={name: lambda: web},
        fingerprint=fingerprint_of(tasks, web.fingerprint),
        closed=True,
    )
