"""What a judge is: it scores the extracted answer of an attempt against the task's gold, or says why it cannot."""

from __future__ import annotations

from typing import Protocol

from harness.errors import OutageError
from harness.types import Attempt, Score, ScoreStatus


class Judge(Protocol):
    """Sees only the question, the gold answers and the extracted answer; never the transcript. May raise ``OutageError``."""

    @property
    def name(self) -> str: ...

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score: ...


async def score_attempt(judge: Judge, attempt: Attempt) -> Score:
    """Score an attempt: an outage has no score, an absent answer is wrong (0), everything else goes to the judge."""
    if attempt.status.is_outage:
        return Score(value=None, status=ScoreStatus.OUTAGE, layer="episode", detail=attempt.detail)
    if attempt.answer is None:
        return Score(value=0.0, status=ScoreStatus.JUDGED, layer="no-answer", detail=attempt.status)
    try:
        return await judge.score(attempt.task.question, attempt.task.gold, attempt.answer)
    except OutageError as error:
        return Score(value=None, status=ScoreStatus.TRANSPORT_ERROR, layer=judge.name, detail=str(error))
