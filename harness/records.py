"""What an attempt, a judgement, a group and a credit row look like in the run log. Pure: dataclasses in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.cipher import seal, unseal
from harness.types import Attempt, Group, Score

WITHHELD = "(not shown: its publisher keeps this question out of plain text)"


def attempt_record(
    attempt: Attempt, *, seconds: float, hint: str = "", evaluation_id: str | None = None, blob: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The narrow row of an attempt; its tokens are in the blob. A sealed task's question and gold are in cipher (``question_and_gold``)."""
    task = attempt.task
    return {
        "attempt_id": attempt.id,
        "task_id": task.id,
        "question": WITHHELD if task.sealed else task.question,
        "web": task.web,
        "gold": None if task.sealed else list(task.gold),
        "sealed": seal(task.id, [task.question, list(task.gold)]) if task.sealed else None,
        "tags": dict(task.tags),
        "purpose": str(attempt.purpose),
        "evaluation_id": evaluation_id,
        "step": attempt.step,
        "level": attempt.level,
        "index": attempt.index,
        "status": str(attempt.status),
        "answer": attempt.answer,
        "confidence": attempt.confidence,
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


def usage(attempt: Attempt, seconds: float) -> dict[str, Any]:
    """Tokens, turns and calls of one attempt. ``prompt_tokens`` counts every context token once; None where an endpoint did not say."""
    counts: dict[str, Any]
    if attempt.usage is None:
        counts = {"prompt_tokens": sum(map(len, attempt.trajectory.contexts)), "generated_tokens": attempt.trajectory.sampled_tokens}
    else:
        told = attempt.usage
        names = ("prompt_tokens", "generated_tokens", "billed_prompt_tokens")
        counts = dict(zip(names, (told.prompt, told.generated, told.billed_prompt) if told.reported else (None,) * 3, strict=True))
        counts |= {"retries": told.retries, "cost": told.cost}
    return {
        **counts,
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


def question_and_gold(record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The question of a recorded attempt and its accepted answers, out of the cipher where they were sealed."""
    sealed = record.get("sealed")
    question, gold = unseal(record["task_id"], sealed) if sealed else (record["question"], record["gold"])
    return str(question), tuple(gold)


def judgement_record(attempt_id: str, judge: str, score: Score) -> dict[str, Any]:
    return {
        "attempt_id": attempt_id,
        "judge": judge,
        "value": score.value,
        "status": str(score.status),
        "layer": score.layer,
        "detail": score.detail,
        "evidence": dict(score.evidence),
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
