"""XBench-DeepSearch, version 2505: 100 Chinese questions, encrypted in the file, decrypted in memory only.

A cell is base64 over XOR with the bytes of its row's canary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.cipher import decrypt
from harness.errors import DataError
from harness.rows import Row
from harness.tables import text_of
from harness.tasks.base import TaskSet
from harness.tasks.published import OPEN_WEB, Source, check_counts, question_set
from harness.types import Task

QUESTIONS = {"zh": 100}
SOURCE = Source(
    name="xbench",
    repo="xbench/DeepSearch",
    files=("*DeepSearch-2505*.csv", "*2505*.parquet", "*2505*", "data/train*.parquet", "*.csv"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class XBench:
    """Loader of XBench-DeepSearch."""

    name: str = "xbench"
    summary: str = "XBench-DeepSearch 2505: 100 Chinese deep-search questions (encrypted at rest)"
    needs_path: bool = False

    def load(self, path: Path | None) -> TaskSet:
        found = [(row, _task(row)) for row in SOURCE.rows(path)]
        check_counts(SOURCE, "language", {"zh": len(found)}, QUESTIONS)
        return question_set(SOURCE, found)


XBENCH = XBench()


def _task(row: Row) -> Task:
    number = text_of(row, "id")
    return Task(
        id=f"{SOURCE.name}-{int(number):03d}" if number.isdigit() else f"{SOURCE.name}-{number}",
        question=_plain(row, "prompt").strip(),
        gold=(_plain(row, "answer").strip(),),
        web=OPEN_WEB,
        tags={"language": "zh"},
        sealed=True,
    )


def _plain(row: Row, column: str) -> str:
    text, key = row.text(column), row.text("canary").encode()
    try:
        return decrypt(text, key)
    except DataError as error:
        raise row.error(f"{column!r} {error}") from error
