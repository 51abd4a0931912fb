"""How the attempts of an evaluation ended, each ending by its own name, and what the missing verdicts leave open.

Only ``wrong`` is a wrong answer. ``truncated``, ``turn_limit`` and the like gave none, and count as failures; ``tool_outage``,
``undecided``, ``parse_error`` and the like have no verdict, and count as nothing. The bounds leave these open, and ``truncated`` too: a
budget of ours cut that answer off.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, func, select

from leaderboard.schema import Attempt, Judgement, Task


def outcome(status: str, verdict: str | None, value: float | None) -> str:
    """The name of one attempt's ending: ``status`` of its episode, ``verdict`` the status of its judgement."""
    if verdict is None:
        return "unjudged"
    if verdict == "outage":
        return status
    if verdict != "judged":
        return verdict
    if status != "answered":
        return status
    return "right" if (value or 0.0) > 0.5 else "wrong"


def outcomes(connection: Connection, run: int, evaluation_id: str) -> dict[str, int]:
    """Attempts of an evaluation by outcome."""
    query = (
        select(Attempt.status, Judgement.status, Judgement.value, func.count())
        .join(Judgement, CURRENT, isouter=True)
        .where(Attempt.run == run, Attempt.evaluation_id == evaluation_id)
        .group_by(Attempt.status, Judgement.status, Judgement.value)
    )
    found: Counter[str] = Counter()
    for status, verdict, value, count in connection.execute(query):
        found[outcome(status, verdict, value)] += count
    return dict(sorted(found.items()))


def truncated(connection: Connection, run: int, evaluation_id: str) -> dict[str, float]:
    """Questions whose answers were cut off and count as wrong, whole ("") and by part; one of k attempts is 1/k of one."""
    mine = (Attempt.run == run, Attempt.evaluation_id == evaluation_id)
    cut = (
        select(Task.tags)
        .select_from(Attempt)
        .join(Judgement, CURRENT)
        .join(Task, Task.key == Attempt.task)
        .where(*mine, Attempt.status == "truncated", Judgement.value == 0)
    )
    tags = connection.scalars(cut).all()
    attempts = 1 + (connection.scalar(select(func.max(Attempt.position)).where(*mine)) or 0) if tags else 1
    found = Counter(part for its in tags for part in ("", *(f"{name}={value}" for name, value in its.items())))
    return {part: count / attempts for part, count in sorted(found.items())}


CURRENT = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current
"""Joins an attempt with the judgement that counts."""


def bounds(score: float, coverage: float, truncated: float = 0.0) -> tuple[float, float]:
    """The score if everything without a verdict were wrong, and if all of it were right; ``score`` is that of the covered share.

    ``truncated`` is the share of all questions whose answers were cut off: they count as wrong in the score, as right in the upper bound.

    >>> bounds(0.5, 0.5)
    (0.25, 0.75)
    >>> bounds(0.5, 1.0, truncated=0.25)
    (0.5, 0.75)
    """
    return score * coverage, min(1.0, score * coverage + 1.0 - coverage + truncated)
