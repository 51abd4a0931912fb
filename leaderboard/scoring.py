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

from harness.metrics import avg_at_k, calibration_error, pass_at_k, pass_hat_k
from leaderboard.database import upsert
from leaderboard.outcomes import outcomes, truncated
from leaderboard.schema import Attempt, Evaluation, Judgement, ScoreRow, Task
from leaderboard.stats import Interval, Verdicts, clustered, interval

HEADLINE = "pass@1"
MOST_VALUES_OF_A_TAG = 24  # a tag with more values is an identifier, not a breakdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question of an evaluation: its tags, and of each attempt the reward (None: no verdict) and the confidence it stated."""

    task_id: str
    tags: Mapping[str, str]
    rewards: tuple[float | None, ...]
    confidences: tuple[float | None, ...] = ()

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
        connection.execute(update(Evaluation).where(mine).values(verdicts=pack(verdicts), **_endings(connection, run, evaluation_id)))
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
    most = min(len(r) for r in scored.values())
    if most > 1:
        found[f"avg@{most}"] = found[HEADLINE]
    if all(v in (0.0, 1.0) for r in scored.values() for v in r):
        for k in _ks(most):
            found[f"pass@{k}"] = clustered([pass_at_k(len(r), round(sum(r)), k) for r in scored.values()])
            found[f"pass^{k}"] = clustered([pass_hat_k(len(r), round(sum(r)), k) for r in scored.values()])
    return [_row(metric, part, value, coverage) for metric, value in found.items()] + _calibration(questions, part)


def _endings(connection: Connection, run: int, evaluation_id: str) -> dict[str, Any]:
    return {"outcomes": outcomes(connection, run, evaluation_id), "truncated": truncated(connection, run, evaluation_id)}


def _ks(most: int) -> list[int]:
    """2, 4, 8, ... and ``most`` itself: the numbers of draws that are reported of ``most`` attempts."""
    return sorted({k for k in (2**i for i in range(1, most.bit_length())) if k <= most} | ({most} if most > 1 else set()))


def _calibration(questions: list[Question], part: str) -> list[dict[str, Any]]:
    """The calibration error over judged answers that stated a confidence; ``coverage`` is their share of all attempts."""
    attempts = [pair for q in questions for pair in zip(q.rewards, q.confidences, strict=False)]
    stated = [(reward, confidence) for reward, confidence in attempts if reward is not None and confidence is not None]
    if not stated:
        return []
    value = calibration_error([c for _, c in stated], [r for r, _ in stated])
    bare = Interval(value=value, low=None, high=None, n=len(stated), method="five bins of stated confidence")
    return [_row("calibration_error", part, bare, len(stated) / len(attempts))]


def _row(metric: str, part: str, value: Interval, coverage: float) -> dict[str, Any]:
    bounds = {"score": value.value, "low": value.low, "high": value.high, "n": value.n}
    return {"metric": metric, "part": part, **bounds, "coverage": coverage, "method": value.method}


def _questions(connection: Connection, run: int, evaluation_id: str) -> list[Question]:
    verdict = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current
    query = (
        select(Attempt.task_id, Task.tags, Judgement.value, Attempt.confidence)
        .join(Task, Task.key == Attempt.task)
        .join(Judgement, verdict, isouter=True)
        .where(Attempt.run == run, Attempt.evaluation_id == evaluation_id)
        .order_by(Attempt.task_id, Attempt.position)
    )
    rewards: dict[str, list[float | None]] = defaultdict(list)
    confidences: dict[str, list[float | None]] = defaultdict(list)
    tags: dict[str, Mapping[str, str]] = {}
    for task_id, its_tags, value, confidence in connection.execute(query):
        rewards[task_id].append(value)
        confidences[task_id].append(confidence)
        tags[task_id] = its_tags
    return [Question(task_id=t, tags=tags[t], rewards=tuple(r), confidences=tuple(confidences[t])) for t, r in rewards.items()]
