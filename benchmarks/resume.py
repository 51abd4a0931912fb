"""What a run log already holds of an evaluation, and what becomes of each sample when it is run again: reused, judged again, or run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from benchmarks.comparability import Comparability
from benchmarks.result import Outcome
from harness.budget import Budget, Limits
from harness.events import Kind, current_events, read_events
from harness.types import Attempt, Purpose, ScoreStatus, Status, Task, Trajectory

Key = tuple[str, int]
"""(task id, epoch)."""


class Fate(StrEnum):
    """What happens to a sample."""

    REUSE = "reuse"
    REGRADE = "regrade"
    RERUN = "rerun"
    RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A recorded attempt with its newest judgement (``judge`` None: it has none)."""

    attempt_id: str
    status: Status
    answer: str | None
    detail: str
    data: str  # fingerprint of the question set, or of the sample of a suite, that it was made with; empty: not recorded
    usage: Mapping[str, float | None]
    confidence: float | None = None
    judge: str | None = None
    value: float | None = None
    score: ScoreStatus = ScoreStatus.UNDECIDED

    @property
    def outcome(self) -> Outcome:
        return Outcome(value=self.value, status=self.status, score=self.score, usage=self.usage, confidence=self.confidence)


@dataclass(slots=True)
class Recorded:
    """Samples by evaluation id and key; by evaluation id what the latest of its runs was measured under."""

    _samples: dict[str, dict[Key, Kept]] = field(default_factory=dict)
    _conditions: dict[str, Comparability] = field(default_factory=dict)

    def conditions(self, evaluation_id: str) -> Comparability:
        """Without parts where no attempt was recorded yet."""
        none = Comparability(parts={})
        return self._conditions.get(evaluation_id, none) if self.samples(evaluation_id) else none

    def under(self, evaluation_id: str, conditions: Comparability) -> None:
        self._conditions[evaluation_id] = conditions

    def samples(self, evaluation_id: str) -> Mapping[Key, Kept]:
        return self._samples.get(evaluation_id, {})

    def sample(self, evaluation_id: str, key: Key) -> Kept | None:
        return self.samples(evaluation_id).get(key)

    def put(self, evaluation_id: str, key: Key, kept: Kept) -> None:
        self._samples.setdefault(evaluation_id, {})[key] = kept


def recorded(run_dir: Path) -> Recorded:
    """Read a run log once; empty where there is none. A later attempt of a sample replaces an earlier one, with its judgement."""
    found = Recorded()
    places: dict[str, tuple[str, Key]] = {}
    data: dict[str, str] = {}
    for event in current_events(run_dir):
        said = event.data
        if event.kind is Kind.EVALUATION:
            data[said["evaluation_id"]] = said.get("data") or ""
            found.under(said["evaluation_id"], Comparability(parts=said.get("comparability_parts") or {}))
        elif event.kind is Kind.ATTEMPT and said["evaluation_id"] is not None:
            evaluation, key = said["evaluation_id"], (said["task_id"], said["index"])
            places[said["attempt_id"]] = (evaluation, key)
            used = {name: said["usage"][name] for name in Outcome.COUNTED if name in said["usage"]}
            kept = Kept(
                attempt_id=said["attempt_id"],
                status=Status(said["status"]),
                answer=said["answer"],
                detail=said["detail"],
                data=said.get("data") or data.get(evaluation, ""),
                usage=used,
                confidence=said.get("confidence"),
            )
            found.put(evaluation, key, kept)
        elif event.kind is Kind.JUDGEMENT and said["attempt_id"] in places:
            evaluation, key = places[said["attempt_id"]]
            judged = {"judge": said["judge"], "value": said["value"], "score": ScoreStatus(said["status"])}
            found.put(evaluation, key, replace(found.samples(evaluation)[key], **judged))
    return found


def resumed_budget(run_dir: Path, limits: Limits) -> Budget:
    """The budget of an evaluation, less what its log says was spent: by attempts that were run again since, too.

    Time counts from the start of a sitting to its end or, where it was killed, to its last attempt; the time between does not.
    """
    tokens, cost, seconds = 0, 0.0, timedelta()
    began: datetime | None = None
    for _, event in read_events(run_dir):
        said, now = event.data, datetime.fromisoformat(event.time)
        if event.kind is Kind.ATTEMPT and said["evaluation_id"] is not None:
            tokens += said["usage"].get("generated_tokens") or 0
            cost += said["usage"].get("cost") or 0.0
        elif event.kind is not Kind.RUN or said.get("command") != "eval":
            continue
        if began is not None and not (event.kind is Kind.RUN and said["phase"] == "started"):
            seconds += now - began
        began = now if event.kind is Kind.ATTEMPT or said["phase"] == "started" else None
    return Budget(limits=limits, tokens=tokens, cost=cost, began=time.monotonic() - seconds.total_seconds())


def fate(kept: Kept | None, *, judge: str, data: str) -> tuple[Fate, str]:
    """What happens to a sample, and why in words."""
    if kept is None:
        return Fate.RUN, "not attempted yet"
    if data and not kept.data:  # a suite's sample in a log of an earlier version: no score is taken for data that may be other data
        return Fate.RERUN, "the log does not say of which data its answer is"
    if kept.data != data:
        return Fate.RERUN, "the question set has changed since"
    if kept.status.is_outage:
        return Fate.RERUN, f"{kept.status}: {kept.detail}" if kept.detail else str(kept.status)
    if kept.judge is None:
        return Fate.REGRADE, "the answer is recorded, its judgement is not"
    if kept.judge != judge:
        return Fate.REGRADE, f"judged by {kept.judge}, now {judge}"
    if kept.value is None and kept.score is not ScoreStatus.UNDECIDED:  # undecided: the same judge would say the same
        return Fate.REGRADE, f"the judge ended in {kept.score}"
    verdict = "undecided" if kept.value is None else f"{kept.value:g}"
    return Fate.REUSE, f"judged {verdict} by {judge}"


def as_attempt(task: Task, kept: Kept) -> Attempt:
    """As much of the recorded attempt as a judge may see."""
    return Attempt(
        id=kept.attempt_id,
        task=task,
        purpose=Purpose.EVAL,
        trajectory=Trajectory(contexts=(), spans=()),
        target=(),
        turns=(),
        status=kept.status,
        answer=kept.answer,
        detail=kept.detail,
    )
