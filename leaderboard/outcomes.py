"""How the attempts of an evaluation ended, each ending by its own name, and what the missing verdicts leave open.

Only ``wrong`` is a wrong answer. ``truncated``, ``turn_limit`` and the like gave none, and count as failures; ``tool_outage``,
``undecided``, ``parse_error`` and the like have no verdict, and count as nothing. The bounds leave these open, and ``truncated`` too: a
budget of ours cut that answer off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

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


def outcomes(connection: Connection) -> Mapping[tuple[int, str], dict[str, int]]:
    """Attempts by outcome, for each (run, evaluation id)."""
    mine = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current
    query = (
        select(Attempt.run, Attempt.evaluation_id, Attempt.status, Judgement.status, Judgement.value, func.count())
        .join(Judgement, mine, isouter=True)
        .where(Attempt.evaluation_id.is_not(None))
        .group_by(Attempt.run, Attempt.evaluation_id, Attempt.status, Judgement.status, Judgement.value)
    )
    found: dict[tuple[int, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for run, evaluation, status, verdict, value, count in connection.execute(query):
        found[run, str(evaluation)][outcome(status, verdict, value)] += count
    return {key: dict(sorted(counts.items())) for key, counts in found.items()}


def truncated(connection: Connection) -> Mapping[tuple[int, str, str], float]:
    """Questions whose answers were cut off and count as wrong, for each (run, evaluation id, part); one of k attempts is 1/k of one."""
    mine = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current
    cut = (
        select(Attempt.run, Attempt.evaluation_id, Task.tags)
        .join(Judgement, mine)
        .join(Task, Task.key == Attempt.task)
        .where(Attempt.status == "truncated", Attempt.evaluation_id.is_not(None), Judgement.status == "judged")
    )
    repeated = select(Attempt.run, Attempt.evaluation_id, func.max(Attempt.position) + 1).where(
        Attempt.evaluation_id.is_not(None), Attempt.position > 0
    )
    rows = connection.execute(cut).all()
    attempts = (
        {(row[0], row[1]): row[2] for row in connection.execute(repeated.group_by(Attempt.run, Attempt.evaluation_id))} if rows else {}
    )
    found: dict[tuple[int, str, str], float] = defaultdict(float)
    for run, evaluation, tags in rows:
        for part in ("", *(f"{name}={value}" for name, value in tags.items())):
            found[run, str(evaluation), part] += 1 / attempts.get((run, evaluation), 1)
    return found


def bounds(score: float, coverage: float, truncated: float = 0.0) -> tuple[float, float]:
    """The score if everything without a verdict were wrong, and if all of it were right; ``score`` is that of the covered share.

    ``truncated`` is the share of all questions whose answers were cut off: they count as wrong in the score, as right in the upper bound.

    >>> bounds(0.5, 0.5)
    (0.25, 0.75)
    >>> bounds(0.5, 1.0, truncated=0.25)
    (0.5, 0.75)
    """
    return score * coverage, min(1.0, score * coverage + 1.0 - coverage + truncated)
