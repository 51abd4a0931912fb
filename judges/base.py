"""What a judge is: it scores the extracted answer of an attempt against the task's gold, or says why it cannot."""

from __future__ import annotations

from typing import Protocol

from harness.errors import OutageError
from harness.types import Attempt, Score, ScoreStatus, Status


class Judge(Protocol):
    """Sees only the question, the gold answers and the extracted answer; never the transcript. May raise ``OutageError``."""

    @property
    def name(self) -> str: ...

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score: ...


async def score_attempt(judge: Judge, attempt: Attempt) -> Score:
    """Score an attempt as ``score_answer`` does."""
    return await score_answer(judge, attempt.status, attempt.task.question, attempt.task.gold, attempt.answer, attempt.detail)


async def score_answer(judge: Judge, status: Status, question: str, gold: tuple[str, ...], answer: str | None, detail: str) -> Score:
    """An outage has no score, an absent answer is wrong (0), everything else goes to the judge."""
    if status.is_outage:
        return Score(value=None, status=ScoreStatus.OUTAGE, layer="episode", detail=detail)
    if answer is None:
        return Score(value=0.0, status=ScoreStatus.JUDGED, layer="no-answer", detail=status)
    try:
        return await judge.score(question, gold, answer)
    except OutageError as error:
        return Score(value=None, status=ScoreStatus.TRANSPORT_ERROR, layer=judge.name, detail=str(error))


async def check_judge(judge: Judge) -> None:
    """Before any work: raise ``HarnessError`` for a judge that cannot be reached, or that refuses its key or model."""
    check = getattr(judge, "check", None)
    if check is not None:
        await check()


async def close_judge(judge: Judge) -> None:
    """Let go of what a judge holds (a connection, a model), if it holds anything."""
    close = getattr(judge, "close", None)
    if close is not None:
        await close()
