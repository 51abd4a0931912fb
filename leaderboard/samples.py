"""Queries of attempts: lists of them by filter, single ones, and their verdicts. Reads only; rows leave as plain dataclasses.

Lists stay quick whatever the number of attempts: which ones are shown is settled on an index alone, and only they are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Engine, Select, func, select

from leaderboard.records import SampleFilter, SampleInfo, VerdictInfo
from leaderboard.schema import Attempt, Credit, Evaluation, Judgement, Run, Task

MOST_COUNTED = 2_000  # beyond it a list says "more than", because an exact count would read every row
PURPOSES = ("train", "probe", "eval")
PASSED = {"right": True, "wrong": False, "none": None}
"""``SampleFilter.verdict`` as ``attempts.passed``."""


class Samples:
    """Read access to the attempts of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, run: int, wanted: SampleFilter, limit: int, offset: int = 0) -> tuple[list[SampleInfo], int]:
        """One page of a run's attempts, and how many match in all, counted up to one more than ``MOST_COUNTED``."""
        ids = _filtered(select(Attempt.attempt_id).where(Attempt.run == run), wanted)
        if wanted.evaluation is None:
            ids = ids.order_by(Attempt.purpose.desc(), Attempt.step.desc(), Attempt.attempt_id.desc())
        else:
            ids = ids.order_by(Attempt.task_id, Attempt.position)
        with self._engine.connect() as connection:
            page = connection.scalars(ids.limit(limit).offset(offset)).all()
            total = offset + len(page)
            if not page or len(page) == limit:  # else the last one is on this page
                some = ids.order_by(None).limit(MOST_COUNTED + 1).subquery()
                total = connection.scalar(select(func.count()).select_from(some)) or 0
        place = {attempt_id: i for i, attempt_id in enumerate(page)}
        rows = self._all(_joined().where(Attempt.run == run, Attempt.attempt_id.in_(place))) if place else []
        return [_sample(row) for row in sorted(rows, key=lambda row: place[row["attempt_id"]])], total

    def at(self, run_id: str, evaluation_id: str, task_ids: Sequence[str]) -> dict[str, SampleInfo]:
        """Attempts of an evaluation at these tasks, by task; of several at one task the first."""
        query = _joined().join(Run, Run.key == Attempt.run).where(Run.run_id == run_id, Attempt.evaluation_id == evaluation_id)
        rows = self._all(query.where(Attempt.task_id.in_(task_ids)).order_by(Attempt.position.desc()))
        return {row["task_id"]: _sample(row) for row in rows}

    def one(self, run: int, attempt_id: str) -> SampleInfo | None:
        """One attempt, None if it is unknown."""
        rows = self._all(_joined().where(Attempt.run == run, Attempt.attempt_id == attempt_id))
        return _sample(rows[0]) if rows else None

    def verdicts(self, run: int, attempt_id: str) -> list[VerdictInfo]:
        """Every judge's verdict on an attempt, the current one first."""
        columns = [getattr(Judgement, f.name) for f in fields(VerdictInfo)]
        query = select(*columns).where(Judgement.run == run, Judgement.attempt_id == attempt_id)
        return [VerdictInfo(**row) for row in self._all(query.order_by(Judgement.current.desc(), Judgement.judge))]

    def _all(self, query: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]


_COLUMNS = [
    *(Attempt.attempt_id, Attempt.task_id, Task.question, Task.gold, Task.tags, Attempt.purpose, Attempt.evaluation_id, Attempt.step),
    Evaluation.benchmark,
    *(Attempt.level, Attempt.position, Attempt.status, Attempt.answer, Attempt.turns, Attempt.generated_tokens, Attempt.seconds),
    *(Attempt.place, Attempt.blob, Judgement.value, Judgement.judge, Judgement.status.label("verdict"), Judgement.layer, Judgement.detail),
    *(Credit.advantage, Credit.ratio_mean, Credit.trained),
]


def _joined() -> Select[*tuple[Any, ...]]:
    """Attempts with their task, evaluation, current verdict and credit."""
    verdict = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current
    credit = (Credit.run == Attempt.run) & (Credit.attempt_id == Attempt.attempt_id)
    evaluation = (Evaluation.run == Attempt.run) & (Evaluation.evaluation_id == Attempt.evaluation_id)
    joined = select(*_COLUMNS).select_from(Attempt).join(Task, Task.key == Attempt.task)
    return joined.join(Evaluation, evaluation, isouter=True).join(Judgement, verdict, isouter=True).join(Credit, credit, isouter=True)


def _filtered(query: Select[Any], wanted: SampleFilter) -> Select[Any]:
    pairs = (
        (Attempt.purpose, wanted.purpose),
        (Attempt.evaluation_id, wanted.evaluation),
        (Attempt.task_id, wanted.task),
        (Attempt.step, wanted.step),
        (Attempt.level, wanted.level),
    )
    for column, value in pairs:
        query = query if value is None else query.where(column == value)
    if wanted.purpose is None and wanted.step is not None:
        query = query.where(Attempt.purpose.in_(PURPOSES))  # lets the index on run, purpose, step find the step
    return query.where(Attempt.passed.is_(PASSED[wanted.verdict])) if wanted.verdict in PASSED else query


def _sample(row: dict[str, Any]) -> SampleInfo:
    return SampleInfo(**{**row, "gold": None if row["gold"] is None else tuple(row["gold"])})
