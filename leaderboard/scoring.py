"""Aggregates of finished evaluations: pass@1 (and pass@k, pass^k where questions were tried k times), whole and by tag.

Recomputed from attempts and their current judgements, so a regrade or a late verdict corrects them. A question without a
verdict is left out and lowers ``coverage``; it never counts as wrong.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from harness.metrics import avg_at_k, pass_at_k, pass_hat_k
from leaderboard.database import upsert
from leaderboard.schema import Attempt, Evaluation, Judgement, ScoreRow, Task
from leaderboard.stats import Interval, Verdicts, clustered, interval

HEADLINE = "pass@1"
MOST_VALUES_OF_A_TAG = 24  # a tag with more values is an identifier, not a breakdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question of an evaluation: its tags and the rewards of its attempts, None where no verdict was reached."""

    task_id: str
    tags: Mapping[str, str]
    rewards: tuple[float | None, ...]

    @property
    def scored(self) -> tuple[float, ...]:
        return tuple(r for r in self.rewards if r is not None)


def score_evaluations(connection: Connection, run: int, evaluation_ids: Iterable[str]) -> None:
    """Recompute the score rows and packed verdicts of those evaluations of ``run`` that are finished."""
    for evaluation_id in sorted(evaluation_ids):
        mine = (Evaluation.run == run) & (Evaluation.evaluation_id == evaluation_id)
        expected = connection.scalar(select(Evaluation.n).where(mine, Evaluation.finished))
        connection.execute(delete(ScoreRow).where(ScoreRow.run == run, ScoreRow.evaluation_id == evaluation_id))
        if expected is None:
            continue
        questions = _questions(connection, run, evaluation_id)
        verdicts = {q.task_id: avg_at_k(q.scored) for q in questions if q.scored}
        connection.execute(update(Evaluation).where(mine).values(verdicts=pack(verdicts)))
        found = [{"run": run, "evaluation_id": evaluation_id, **row} for row in aggregate(questions, expected)]
        upsert(connection, ScoreRow, found)


def aggregate(questions: list[Question], expected: int) -> list[dict[str, Any]]:
    """Score rows of an evaluation: every metric of the whole set, and pass@1 for each value of each tag that varies."""
    whole = _metrics(questions, max(expected, len(questions)), part="")
    by_tag: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        for name, value in question.tags.items():
            by_tag[name][str(value)].append(question)
    for name, values in sorted(by_tag.items()):
        if 1 < len(values) <= MOST_VALUES_OF_A_TAG:
            for value, members in sorted(values.items()):
                whole += [row for row in _metrics(members, len(members), part=f"{name}={value}") if row["metric"] == HEADLINE]
    return whole


def pack(verdicts: Verdicts) -> bytes:
    """Verdicts as compressed JSON, so that the board needs one small row a comparison instead of all attempts."""
    return zlib.compress(json.dumps(verdicts, sort_keys=True).encode())


def unpack(packed: bytes | None) -> dict[str, float]:
    """Inverse of ``pack``; nothing packed is no verdicts."""
    return {} if packed is None else json.loads(zlib.decompress(packed))


def _metrics(questions: list[Question], expected: int, part: str) -> list[dict[str, Any]]:
    scored = {q.task_id: q.scored for q in questions if q.scored}
    if not scored:
        return []
    coverage = len(scored) / expected
    found = {HEADLINE: interval([{t: avg_at_k(r) for t, r in scored.items()}])}
    k = min(len(r) for r in scored.values())
    if k > 1 and all(v in (0.0, 1.0) for r in scored.values() for v in r):
        found[f"pass@{k}"] = clustered([pass_at_k(len(r), round(sum(r)), k) for r in scored.values()])
        found[f"pass^{k}"] = clustered([pass_hat_k(len(r), round(sum(r)), k) for r in scored.values()])
    return [_row(metric, part, value, coverage) for metric, value in found.items()]


def _row(metric: str, part: str, value: Interval, coverage: float) -> dict[str, Any]:
    bounds = {"score": value.value, "low": value.low, "high": value.high, "n": value.n}
    return {"metric": metric, "part": part, **bounds, "coverage": coverage, "method": value.method}


def _questions(connection: Connection, run: int, evaluation_id: str) -> list[Question]:
    verdict = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current
    query = (
        select(Attempt.task_id, Task.tags, Judgement.value)
        .join(Task, Task.key == Attempt.task)
        .join(Judgement, verdict, isouter=True)
        .where(Attempt.run == run, Attempt.evaluation_id == evaluation_id)
        .order_by(Attempt.task_id, Attempt.position)
    )
    rewards: dict[str, list[float | None]] = defaultdict(list)
    tags: dict[str, Mapping[str, str]] = {}
    for task_id, its_tags, value in connection.execute(query):
        rewards[task_id].append(value)
        tags[task_id] = its_tags
    return [Question(task_id=t, tags=tags[t], rewards=tuple(r)) for t, r in rewards.items()]
