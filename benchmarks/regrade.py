"""Judging a finished run again, without running an agent: new judgements are appended, the old ones stay in the log.

Every recorded attempt of an evaluation is judged from its record alone: status, question, gold, extracted answer. Then each evaluation is
closed again under the new judge's name and code, which is what the board shows. Attempts that this judge has judged already are not paid
for twice. Training attempts keep the rewards that they were trained with.

Nothing is appended before the judge has been asked about every attempt, so that no score is ever half of one judge and half of another. A
judge that goes down is waited for and then ends the regrading; its verdicts until then are in its cache, and are not asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.base import OWN_RULES
from benchmarks.comparability import Comparability, short_hash
from benchmarks.departures import judged_by
from benchmarks.evaluate import first_of
from harness.errors import HarnessError, OutageError
from harness.events import Kind, current_events
from harness.metrics import bounds
from harness.records import judgement_record, question_and_gold
from harness.types import Score, ScoreStatus, Status
from harness.wording import plural
from judges.attempts import Log, OutageConfig, OutageWatch, judged_patiently, lost_to_outage
from judges.base import Judge, score_answer
from judges.llm import for_benchmark

IN_FLIGHT = 32
WRITER = "regrade"
"""Name under which judgements are appended: beside the run's own files, never into them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regraded:
    """One evaluation, before and after, as values by attempt (None: no verdict). ``judged`` were newly asked for, ``truncated`` cut off."""

    evaluation_id: str
    judges: tuple[str, str]
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]
    judged: int
    truncated: frozenset[str] = frozenset()

    def words(self) -> str:
        """``xbench/test: 41.0% by exact -> 44.0% by llm:m@1f; coverage 60% -> 99%, so between 43.6% and 44.6% of 100 attempts``."""
        old, new = self.judges
        low, high = bounds(None if key in self.truncated else value for key, value in self.after.items())
        return (
            f"{self.evaluation_id}: {_mean(self.before)} by {old} -> {_mean(self.after)} by {new}; coverage {_coverage(self.before)} -> "
            f"{_coverage(self.after)}, so between {low:.1%} and {high:.1%} "
            f"of {len(self.after)} {plural(len(self.after), 'attempt')}; {self.judged} judged now"
        )


def closed_before(run_dir: Path) -> bool:
    """Whether the run's evaluations were judged as closed tasks, whose gold lists every accepted form."""
    named = (str(e.data["judge"]) for e in current_events(run_dir) if e.kind is Kind.EVALUATION)
    judges = [judge for judge in named if not judge.startswith(OWN_RULES)]
    return bool(judges) and judges[0].startswith("exact-closed")


async def regrade(
    run_dir: Path,
    judge: Judge,
    log: Log,
    progress: Callable[[int, int], None] = lambda finished, total: None,
    *,
    outages: OutageConfig | None = None,
    notice: Callable[[str], None] = lambda words: None,
) -> list[Regraded]:
    """Judge every evaluated attempt of a run with ``judge``, as that is used on its benchmark; ``notice`` is told when it is down and will
    be asked again.

    Raises ``HarnessError`` if no evaluation of the run was finished or the judge refuses to serve, ``OutageError`` where it went down and
    stayed down for longer than ``outages`` allows; the log is then as it was.
    """
    record = _read(run_dir)
    if not record.finished:
        raise HarnessError(
            f"{run_dir} holds no finished evaluation; there is nothing to judge again (harness eval finishes one; what "
            "lm-eval's own rules score is not judged)"
        )
    if record.own_rules:
        notice(f"left as they are, for no judge replaces lm-eval's own rules: {', '.join(record.own_rules)}")
    judges = {name: for_benchmark(judge, str(said["benchmark"])) for name, said in record.finished.items()}
    used = {key: judges[attempt["evaluation_id"]] for key, attempt in record.attempts.items()}
    todo = [attempt for key, attempt in record.attempts.items() if record.judged_by(key, used[key].name) is None]
    config = outages or OutageConfig(retries=0)
    watch = OutageWatch(config=config, saved="The run keeps the scores that it had, and the judge's cache the verdicts until now")
    scores: dict[str, Score] = {}
    left = iter(todo)

    async def work() -> None:
        for attempt in left:  # one iterator for all workers
            question, gold = question_and_gold(attempt)
            status, answer, detail = Status(attempt["status"]), attempt["answer"], attempt["detail"]
            ask = partial(score_answer, used[attempt["attempt_id"]], status, question, gold, answer, detail)
            score = scores[attempt["attempt_id"]] = await judged_patiently(ask, config, notice)
            watch.saw(lost_to_outage(Status.ANSWERED, score))  # what the agent lost long ago is no outage of now
            progress(len(scores), len(todo))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(IN_FLIGHT, len(todo))):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise first_of(errors) from errors
    watch.check()
    _refuse_dead_judge(scores.values())
    for attempt_id, score in scores.items():
        log.record(Kind.JUDGEMENT, judgement_record(attempt_id, used[attempt_id].name, score))
    values = {attempt_id: score.value for attempt_id, score in scores.items()}
    return [_close(record, said, judges[name].name, values, log) for name, said in record.finished.items()]


def _refuse_dead_judge(scores: Collection[Score]) -> None:
    """A judge that could not be asked even once takes no verdict away."""
    asked = [
        s for s in scores if s.status in (ScoreStatus.TRANSPORT_ERROR, ScoreStatus.PARSE_ERROR, ScoreStatus.REFUSED) or s.layer == "llm"
    ]
    if asked and all(s.status is ScoreStatus.TRANSPORT_ERROR for s in asked):
        raise OutageError(
            f"the judge answered none of {len(asked)} {plural(len(asked), 'request')} ({asked[0].detail}); nothing was recorded: mend it, "
            "then give the same command again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What a log holds of its evaluations; judgements by attempt, then by judge, in the order they were made.

    ``own_rules`` names the finished evaluations that a suite scored by rules of its own; ``finished`` and ``attempts`` leave them out.
    """

    attempts: Mapping[str, Mapping[str, Any]]
    judgements: Mapping[str, Mapping[str, Mapping[str, Any]]]
    finished: Mapping[str, Mapping[str, Any]]
    own_rules: tuple[str, ...]

    def judged_by(self, attempt_id: str, judge: str) -> float | None:
        """The verdict of that judge, None where it has reached none: it may now."""
        judgement = self.judgements.get(attempt_id, {}).get(judge)
        return float(judgement["value"]) if judgement and judgement["status"] == ScoreStatus.JUDGED else None


def _read(run_dir: Path) -> _Record:
    attempts: dict[str, Mapping[str, Any]] = {}
    judgements: dict[str, dict[str, Mapping[str, Any]]] = {}
    finished: dict[str, Mapping[str, Any]] = {}
    for event in current_events(run_dir):
        if event.kind is Kind.ATTEMPT and event.data.get("evaluation_id"):
            attempts[event.data["attempt_id"]] = event.data
            judgements.pop(event.data["attempt_id"], None)  # tried anew: what was judged is gone
        elif event.kind is Kind.JUDGEMENT and event.data["attempt_id"] in attempts:
            judgements.setdefault(event.data["attempt_id"], {})[event.data["judge"]] = event.data
        elif event.kind is Kind.EVALUATION and event.data["phase"] == "finished":
            finished[event.data["evaluation_id"]] = event.data
    own_rules = tuple(name for name, said in finished.items() if str(said["judge"]).startswith(OWN_RULES))
    finished = {name: said for name, said in finished.items() if name not in own_rules}
    kept = {key: attempt for key, attempt in attempts.items() if attempt["evaluation_id"] in finished}
    return _Record(attempts=kept, judgements=judgements, finished=finished, own_rules=own_rules)


def _close(record: _Record, evaluation: Mapping[str, Any], judge: str, values: Mapping[str, float | None], log: Log) -> Regraded:
    mine = [key for key, attempt in record.attempts.items() if attempt["evaluation_id"] == evaluation["evaluation_id"]]
    before = {key: _value_by(record, key, str(evaluation["judge"])) for key in mine}
    after = {key: values[key] if key in values else record.judged_by(key, judge) for key in mine}
    for key in mine:
        if key not in values:  # judged by this judge before, by another since: say it again, so that it is the latest word
            log.record(Kind.JUDGEMENT, record.judgements[key][judge])
    log.record(Kind.EVALUATION, {**evaluation, "judge": judge, **_code(evaluation, judge), **_departs(evaluation, judge)})
    judges = (str(evaluation["judge"]), judge)
    judged = sum(key in values for key in mine)
    cut = frozenset(key for key in mine if record.attempts[key]["status"] == Status.TRUNCATED)
    return Regraded(evaluation_id=str(evaluation["evaluation_id"]), judges=judges, before=before, after=after, judged=judged, truncated=cut)


def _value_by(record: _Record, attempt_id: str, judge: str) -> float | None:
    judgement = record.judgements.get(attempt_id, {}).get(judge)
    return None if judgement is None else judgement["value"]


def _code(evaluation: Mapping[str, Any], judge: str) -> dict[str, Any]:
    parts = evaluation.get("comparability_parts")
    if parts:
        renewed = Comparability(parts=parts).judged_by(judge)
        return {"comparability": renewed.code, "comparability_parts": dict(renewed.parts)}
    return {"comparability": short_hash([evaluation["comparability"], judge], 6)}  # a log from before the parts were kept


def _departs(evaluation: Mapping[str, Any], judge: str) -> dict[str, Any]:
    departs = evaluation.get("departs")
    return {} if departs is None else {"departs": list(judged_by(judge, departs))}


def _mean(values: Mapping[str, float | None]) -> str:
    known = [v for v in values.values() if v is not None]
    return f"{sum(known) / len(known):.1%}" if known else "no score"


def _coverage(values: Mapping[str, float | None]) -> str:
    return f"{sum(v is not None for v in values.values()) / max(len(values), 1):.0%}"
