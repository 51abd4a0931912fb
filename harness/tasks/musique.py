"""MuSiQue: 2-4-hop questions whose decomposition names the gold paragraph of each hop, so every question has an expert's actions.

Read from a folder with ``qa_train.json`` and ``train_corpus.json``, or from one file of questions in the published form
(the web is then the union of their paragraphs). Titles repeat, so a page's URL is its number. Questions marked as not
answerable have no gold and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.rows import Row
from harness.tasks.base import SPLITS, TaskSet, split_of
from harness.tasks.hops import hop_actions, numbered, read_corpus, read_question_rows, task_set
from harness.types import Action, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class MuSiQue:
    """Loader of MuSiQue."""

    name: str = "musique"
    summary: str = "MuSiQue: 2-4-hop questions over their own passages, with an expert search and visit for each hop"
    needs_path: bool = True

    def load(self, path: Path | None) -> TaskSet:
        rows = [row for row in read_question_rows(self.name, path) if "answerable" not in row.data or row.flag("answerable")]
        paragraphs = {row.number: _paragraphs(row) for row in rows}
        pages = read_corpus(path) if path else None
        if pages is None:
            pages = numbered([paragraph for row in rows for paragraph in paragraphs[row.number]])
        urls = {(page.title, page.text): page.url for page in reversed(pages)}  # reversed: of equal passages the first wins
        return task_set(self.name, [(row, _task(self.name, row, paragraphs[row.number], urls)) for row in rows], pages)


MUSIQUE = MuSiQue()


def sub_question(question: str, answers: Sequence[str]) -> str:
    """A hop's question as a search query: ``#k`` becomes the answer of hop k, the relation mark ``>>`` goes.

    >>> sub_question("#1 >> country of citizenship", ["Johann Strauss II"])
    'Johann Strauss II country of citizenship'
    """

    def answer(mark: re.Match[str]) -> str:
        k = int(mark[1])
        return answers[k - 1] if 1 <= k <= len(answers) else mark[0]  # "the #1 hit" of a first hop is no placeholder

    text = re.sub(r"#(\d+)", answer, question).replace(">>", " ")
    return re.sub(r"\s+(?=[?,.])", "", " ".join(text.split()))


def _task(web: str, row: Row, paragraphs: Sequence[tuple[str, str]], urls: dict[tuple[str, str], str]) -> Task:
    hops = row.rows("question_decomposition")
    if not hops:
        raise row.error("'question_decomposition' is empty, expected one entry a hop")
    actions: list[Action] = []
    answers: list[str] = []
    for hop in hops:
        place = hop.integer("paragraph_support_idx")
        if not 0 <= place < len(paragraphs):
            raise row.error(f"'paragraph_support_idx' is {place}, expected a place in the row's {len(paragraphs)} paragraphs")
        url = urls.get(paragraphs[place])
        if url is None:
            title, number = paragraphs[place][0], len(answers) + 1
            raise row.error(f"hop {number}: the paragraph {title!r} is not in the corpus, expected one of the same title and text")
        actions.extend(hop_actions(sub_question(hop.text("question"), answers), url))
        answers.append(hop.text("answer"))
    identity = row.text("id")
    return Task(
        id=identity,
        question=row.text("question").strip(),
        gold=_distinct((row.text("answer"), *row.texts("answer_aliases"))),
        actions=tuple(actions),
        web=web,
        tags={"hops": str(len(hops)), "split": split_of(identity, SPLITS)},
    )


def _paragraphs(row: Row) -> list[tuple[str, str]]:
    """(title, text) of the row's paragraphs by ``idx``, which must count from 0."""
    paragraphs = row.rows("paragraphs")
    for place, paragraph in enumerate(paragraphs):
        if paragraph.integer("idx") != place:
            raise row.error(f"paragraphs[{place}] has 'idx' {paragraph.integer('idx')}, expected {place}")
    return [(paragraph.text("title", blank=True), paragraph.text("paragraph_text", blank=True)) for paragraph in paragraphs]


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
