"""What an attempt, a judgement, a group and a credit row look like in the run log. Pure: dataclasses in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.types import Attempt, Group, Score


def attempt_record(
    attempt: Attempt, *, seconds: float, hint: str = "", evaluation_id: str | None = None, blob: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The narrow row of an attempt; its tokens are in the blob."""
    task = attempt.task
    return {
        "attempt_id": attempt.id,
        "task_id": task.id,
        "question": task.question,
        "web": task.web,
        "gold": list(task.gold),
        "tags": dict(task.tags),
        "purpose": str(attempt.purpose),
        "evaluation_id": evaluation_id,
        "step": attempt.step,
        "level": attempt.level,
        "index": attempt.index,
        "status": str(attempt.status),
        "answer": attempt.answer,
        "detail": attempt.detail,
        "turns": [
            {
                "text": turn.text,
                "actions": [{"name": a.name, "arguments": dict(a.arguments)} for a in turn.actions],
                "observations": list(turn.observations),
                "tool_errors": turn.tool_errors,
            }
            for turn in attempt.turns
        ],
        "usage": usage(attempt, seconds),
        "hint": hint or None,
        "blob": dict(blob) if blob is not None else None,
    }


def usage(attempt: Attempt, seconds: float) -> dict[str, float]:
    """Tokens, turns and calls of one attempt. ``prompt_tokens`` counts every context token once."""
    return {
        "prompt_tokens": sum(map(len, attempt.trajectory.contexts)),
        "generated_tokens": attempt.trajectory.sampled_tokens,
        "turns": len(attempt.turns),
        "tool_calls": sum(len(t.actions) for t in attempt.turns),
        "tool_errors": sum(t.tool_errors for t in attempt.turns),
        "seconds": round(seconds, 4),
    }


def attempt_blob(attempt: Attempt, pieces: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The token-exact record: contexts of every view, spans, and the sampled tokens as readable pieces."""
    teacher = {} if attempt.teacher is None else {"teacher": [list(c) for c in attempt.teacher]}
    return {
        **teacher,
        "contexts": [list(c) for c in attempt.trajectory.contexts],
        "target": [list(c) for c in attempt.target],
        "spans": [
            {"ids": list(z.ids), "logprobs": list(z.logprobs), "version": z.version, "finish": str(z.finish)}
            for z in attempt.trajectory.spans
        ],
        "pieces": [list(p) for p in pieces],
    }


def judgement_record(attempt_id: str, judge: str, score: Score) -> dict[str, Any]:
    return {
        "attempt_id": attempt_id,
        "judge": judge,
        "value": score.value,
        "status": str(score.status),
        "layer": score.layer,
        "detail": score.detail,
    }


def group_record(group: Group) -> dict[str, Any]:
    """``generated_tokens`` counts every trajectory that was drawn for the group, trained or not."""
    drawn = (*group.members, *group.discarded)
    return {
        "group_id": f"{group.step}/{group.task.id}",
        "step": group.step,
        "task_id": group.task.id,
        "outcome": str(group.outcome),
        "level": group.level,
        "max_level": len(group.task.actions),
        "members": [m.attempt.id for m in group.members],
        "probes": [[level, sufficed] for level, sufficed in group.probes],
        "generated_tokens": sum(m.attempt.trajectory.sampled_tokens for m in drawn),
    }
