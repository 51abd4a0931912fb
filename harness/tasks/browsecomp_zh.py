"""BrowseComp-ZH: 289 Chinese questions on eleven topics, encrypted in the file, decrypted in memory only.

A cell is base64 over XOR with SHA-256 of the canary, which is the same on every row. The benchmark measures calibration, too, so the
agent is asked how sure it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.answer import ASK_CONFIDENCE
from harness.cipher import decrypt, digest_key
from harness.errors import DataError
from harness.rows import Row
from harness.tasks.base import TaskSet
from harness.tasks.published import OPEN_WEB, Source, check_counts, question_id, question_set
from harness.types import Task

TOPICS = {
    "影视": 45,
    "艺术": 40,
    "地理": 37,
    "音乐": 32,
    "历史": 29,
    "医学": 26,
    "电子游戏": 23,
    "科技": 22,
    "体育": 18,
    "政策法规": 10,
    "学术论文": 7,
}
SOURCE = Source(
    name="browsecomp-zh",
    repo="PALIN2018/BrowseComp-ZH",
    files=("*browsecomp-zh-encrypted*.xlsx", "*browsecomp-zh-encrypted*.parquet", "*.xlsx", "*.parquet"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowseCompZH:
    """Loader of BrowseComp-ZH."""

    name: str = "browsecomp-zh"
    summary: str = "BrowseComp-ZH: 289 Chinese browsing questions on 11 topics, with calibration error (encrypted at rest)"
    needs_path: bool = False

    def load(self, path: Path | None) -> TaskSet:
        found = [(row, _task(row)) for row in SOURCE.rows(path)]
        check_counts(SOURCE, "topic", Counter(task.tags["topic"] for _, task in found), TOPICS)
        return question_set(SOURCE, found)


BROWSECOMP_ZH = BrowseCompZH()


def _task(row: Row) -> Task:
    question = _plain(row, "Question").strip()
    return Task(
        id=question_id(SOURCE.name, question),
        question=question,
        gold=(_plain(row, "Answer").strip(),),
        web=OPEN_WEB,
        tags={"topic": _plain(row, "Topic").strip(), "language": "zh"},
        closing=ASK_CONFIDENCE,
        sealed=True,
    )


def _plain(row: Row, column: str) -> str:
    text, key = row.text(column), digest_key(row.text("canary"))
    try:
        return decrypt(text, key)
    except DataError as error:
        raise row.error(f"{column!r} {error}") from error
