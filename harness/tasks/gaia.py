"""GAIA, the 103 validation questions that need text only (39 of level 1, 52 of level 2, 12 of level 3).

Gated: it is loaded from the hub after its terms were accepted, or from a user's own copy (all 165 validation rows, or the 103). Which
103 these are cannot be read off the rows (24 without a file need pictures or sound all the same), so their ids are shipped.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import DataError
from harness.rows import Row
from harness.tables import text_of
from harness.tasks.base import TaskSet
from harness.tasks.published import OPEN_WEB, Source, check_counts, question_set
from harness.types import Task

LEVELS = {"1": 39, "2": 52, "3": 12}
SOURCE = Source(
    name="gaia",
    repo="gaia-benchmark/GAIA",
    files=("2023/validation/metadata.parquet", "2023/validation/metadata.jsonl", "*validation*.parquet", "*metadata*.jsonl", "*.json*"),
    gated=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaia:
    """Loader of GAIA's text-only questions."""

    name: str = "gaia"
    summary: str = "GAIA: the 103 validation questions that need text only, levels 1-3 (gated)"
    needs_path: bool = False

    def load(self, path: Path | None) -> TaskSet:
        wanted = text_only_ids()
        found = [(row, _task(row)) for row in SOURCE.rows(path) if text_of(row, "task_id", "id") in wanted]
        check_counts(SOURCE, "level", Counter(task.tags["level"] for _, task in found), LEVELS)
        return question_set(SOURCE, found)


GAIA = Gaia()


@cache
def text_only_ids() -> frozenset[str]:
    """Task ids of the 103 questions."""
    return frozenset(Path(__file__).with_name("gaia_text_only.txt").read_text(encoding="utf-8").split())


def _task(row: Row) -> Task:
    answer = text_of(row, "Final answer", "answer", "final_answer").strip()
    if answer == "?":  # what the test split has in place of its answers
        raise DataError(f"{row.path}, row {row.number}: the answer is withheld; expected the validation split, not the test split.")
    return Task(
        id=text_of(row, "task_id", "id"),
        question=text_of(row, "Question", "question").strip(),
        gold=(answer,),
        web=OPEN_WEB,
        tags={"level": text_of(row, "Level", "level"), "language": "en"},
        sealed=True,
    )
