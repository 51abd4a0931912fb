"""How far a judge can be trusted: its verdicts on labelled cases, counted as false accepts, false rejects and undecided.

The shipped cases were written for this project (no benchmark's text): paraphrases, near misses, hedges, empty answers, master
keys, injections, numbers, units, dates and lists, in English and Chinese. A rate's interval is Wilson's at 95%.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.rows import Row, read_rows
from harness.types import ScoreStatus
from judges.base import Judge

SHIPPED_CASES = Path(__file__).with_name("cases.jsonl")
_Z = 1.959963984540054  # 97.5th percentile of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An answer with its true verdict. ``kind`` groups cases in the report."""

    question: str
    gold: tuple[str, ...]
    answer: str
    correct: bool
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """``count`` of ``of``, as a rate with its interval; the three are None where nothing was counted."""

    count: int
    of: int
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """False accepts are counted of all wrong answers, false rejects of all decided ones, undecided of all."""

    cases: int
    decided: int
    false_accepts: Rate
    false_rejects: Rate
    undecided: Rate

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A case that the judge got wrong, with what decided."""

    case: Case
    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``statuses`` counts the outcomes that were no verdict by their reason, ``layers`` the verdicts by what decided (exact, llm)."""

    judge: str
    overall: Calibration
    kinds: dict[str, Calibration]
    statuses: dict[str, int]
    layers: dict[str, int]
    mistakes: tuple[Mistake, ...]

    def to_dict(self) -> dict[str, Any]:
        """The overall figures on top, as ``--format json`` prints them."""
        kinds = {kind: part.to_dict() for kind, part in self.kinds.items()}
        return {
            "judge": self.judge,
            **self.overall.to_dict(),
            "statuses": self.statuses,
            "layers": self.layers,
            "kinds": kinds,
            "mistakes": [asdict(m) for m in self.mistakes],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    case: Case
    accepted: bool | None
    status: ScoreStatus
    layer: str


def read_cases(path: Path = SHIPPED_CASES) -> list[Case]:
    """Cases of a JSONL file: question, gold (a string or a list of accepted ones), answer, correct, kind."""
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: holds no case, expected rows with question, gold, answer, correct, kind.")
    return [_case(row) for row in rows]


async def calibrate(judge: Judge, cases: Sequence[Case], in_flight: int = 8) -> Report:
    """Let the judge score every case, at most ``in_flight`` at a time."""
    room = asyncio.Semaphore(in_flight)

    async def verdict(case: Case) -> _Verdict:
        async with room:
            score = await judge.score(case.question, case.gold, case.answer)
        accepted = None if score.value is None else score.value >= 0.5
        return _Verdict(case=case, accepted=accepted, status=score.status, layer=score.layer)

    verdicts = await asyncio.gather(*map(verdict, cases))
    by_kind: dict[str, list[_Verdict]] = {}
    statuses: dict[str, int] = {}
    for one in verdicts:
        by_kind.setdefault(one.case.kind, []).append(one)
        if one.accepted is None:
            statuses[one.status] = statuses.get(one.status, 0) + 1
    return Report(
        judge=judge.name,
        overall=_calibration(verdicts),
        kinds={kind: _calibration(part) for kind, part in sorted(by_kind.items())},
        statuses=statuses,
        layers=dict(sorted(Counter(one.layer.partition(":")[0] for one in verdicts if one.accepted is not None).items())),
        mistakes=tuple(Mistake(case=v.case, layer=v.layer) for v in verdicts if v.accepted is not None and v.accepted != v.case.correct),
    )


def wilson(count: int, of: int) -> Rate:
    """A rate with Wilson's 95% interval.

    >>> round(wilson(0, 200).high, 4)
    0.0188
    """
    if not of:
        return Rate(count=count, of=of, rate=None, low=None, high=None)
    rate, z2 = count / of, _Z * _Z
    middle = (rate + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z * sqrt(rate * (1 - rate) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Rate(count=count, of=of, rate=rate, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _calibration(verdicts: Sequence[_Verdict]) -> Calibration:
    decided = [v for v in verdicts if v.accepted is not None]
    wrong = [v for v in verdicts if not v.case.correct]
    return Calibration(
        cases=len(verdicts),
        decided=len(decided),
        false_accepts=wilson(sum(v.accepted is True for v in wrong), len(wrong)),
        false_rejects=wilson(sum(v.case.correct and not v.accepted for v in decided), len(decided)),
        undecided=wilson(len(verdicts) - len(decided), len(verdicts)),
    )


def _case(row: Row) -> Case:
    gold = (row.text("gold"),) if isinstance(row.data.get("gold"), str) else row.texts("gold")
    if not gold:
        raise row.error("'gold' is an empty list, expected at least one accepted answer")
    return Case(
        question=row.text("question"),
        gold=gold,
        answer=row.text("answer", blank=True),
        correct=row.flag("correct"),
        kind=row.text("kind"),
    )
