"""HotpotQA: questions over two pages; the titles of the supporting facts give the expert's searches and visits.

Read from a folder with ``qa_train.json`` and ``train_corpus.json`` (title -> sentences), or from one file of questions in the
published form (the web is then the union of their contexts). The order of the supporting facts carries no meaning, so the
page that states the answer is visited last: a plan is read from its start, and its first steps should not give the answer away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.rows import Row, describe
from harness.tasks.base import SPLITS, TaskSet, split_of
from harness.tasks.hops import hop_actions, numbered, read_corpus, read_question_rows, task_set
from harness.types import Task
from harness.web.base import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class HotpotQA:
    """Loader of HotpotQA."""

    name: str = "hotpotqa"
    summary: str = "HotpotQA: two-page questions over their own paragraphs, with an expert search and visit for each page"
    needs_path: bool = True

    def load(self, path: Path | None) -> TaskSet:
        rows = read_question_rows(self.name, path)
        pages = read_corpus(path) if path else None
        if pages is None:
            pages = numbered([paragraph for row in rows for paragraph in _context(row)])
        by_title: dict[str, Page] = {}
        for page in pages:
            by_title.setdefault(page.title, page)
        return task_set(self.name, [(row, _task(self.name, row, by_title)) for row in rows], pages)


HOTPOTQA = HotpotQA()


def _task(web: str, row: Row, by_title: Mapping[str, Page]) -> Task:
    titles = _supporting_titles(row)
    missing = [title for title in titles if title not in by_title]
    if missing:
        raise row.error(f"the supporting page {missing[0]!r} is not in the corpus, expected a page of that title")
    identity, answer = row.text("_id"), row.text("answer").strip()
    pages = sorted((by_title[title] for title in titles), key=lambda page: _states(page, answer))
    kinds = {key: row.text(key) for key in ("type", "level") if key in row.data}
    return Task(
        id=identity,
        question=row.text("question").strip(),
        gold=(answer,),
        actions=tuple(action for page in pages for action in hop_actions(page.title, page.url)),
        web=web,
        tags={"hops": str(len(pages)), "split": split_of(identity, SPLITS), **kinds},
    )


def _states(page: Page, answer: str) -> bool:
    return answer.casefold() not in ("yes", "no") and answer.casefold() in f"{page.title}\n{page.text}".casefold()


def _supporting_titles(row: Row) -> list[str]:
    """Distinct titles of ``supporting_facts`` ([title, sentence number] pairs), in order."""
    titles = []
    for fact in row.items("supporting_facts"):
        if not isinstance(fact, list) or len(fact) != 2 or not isinstance(fact[0], str):
            raise row.error(f"'supporting_facts' holds {describe(fact)}, expected [title, sentence number]")
        titles.append(fact[0])
    if not titles:
        raise row.error("'supporting_facts' is empty, expected at least one [title, sentence number]")
    return list(dict.fromkeys(titles))


def _context(row: Row) -> list[tuple[str, str]]:
    paragraphs = []
    for entry in row.items("context"):
        match entry:
            case [str(title), [*sentences]] if all(isinstance(sentence, str) for sentence in sentences):
                paragraphs.append((title, "".join(sentences)))
            case _:
                raise row.error(f"'context' holds {describe(entry)}, expected [title, list of sentences]")
    return paragraphs
