"""Builds the page about judges: how far each was checked against known answers, and where two of them disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leaderboard.calibrations import calibrate_command
from leaderboard.records import AgreementInfo, JudgeInfo
from leaderboard.stats import wilson
from leaderboard.verdicts import JudgeCounts
from leaderboard.web.compare import win_bar
from leaderboard.web.pages.judges import AgreementLine, JudgeLine, JudgesPage
from leaderboard.web.pages.shared import Link
from leaderboard.web.query import sample_address
from leaderboard.words import percent


def judges_page(counts: JudgeCounts, calibrations: Mapping[str, Mapping[str, Any]]) -> JudgesPage:
    """Every judge that gave a verdict or was calibrated, and every two that judged the same attempts."""
    counted = {judge.judge: judge for judge in counts.judges()}
    names = sorted({*counted, *calibrations})
    return JudgesPage(
        judges=tuple(_judge(name, counted.get(name), calibrations.get(name)) for name in names),
        agreements=tuple(_agreement(counts, found) for found in counts.agreements()),
    )


def kappa(both_right: int, both_wrong: int, only_a: int, only_b: int) -> float | None:
    """Cohen's kappa of two judges: agreement beyond chance. None where both always give one and the same verdict.

    >>> kappa(20, 15, 5, 10)
    0.4
    """
    n = both_right + both_wrong + only_a + only_b
    if n == 0:
        return None
    a, b = (both_right + only_a) / n, (both_right + only_b) / n
    chance = a * b + (1 - a) * (1 - b)
    return None if chance == 1 else round(((both_right + both_wrong) / n - chance) / (1 - chance), 12)


def _judge(name: str, here: JudgeInfo | None, report: Mapping[str, Any] | None) -> JudgeLine:
    decided = here.accepted + here.refused if here is not None else 0
    return JudgeLine(
        name=name,
        verdicts=f"{here.accepted + here.refused + here.undecided:,}" if here is not None else "none here",
        accepted=f"{percent(here.accepted / decided)}%" if here is not None and decided else "",
        undecided=f"{here.undecided:,}" if here is not None else "",
        false_accepts=_rate(report, "false_accepts"),
        false_rejects=_rate(report, "false_rejects"),
        cases="" if report is None else f"{report.get('cases', 0):,}",
        command="" if report is not None else calibrate_command(name),
    )


def _rate(report: Mapping[str, Any] | None, name: str) -> str:
    rate = (report or {}).get(name) or {}
    if rate.get("rate") is None:
        return ""
    return f"{percent(rate['rate'])}% ({percent(rate['low'])} to {percent(rate['high'])})"


def _agreement(counts: JudgeCounts, found: AgreementInfo) -> AgreementLine:
    alike, split = found.both_right + found.both_wrong, found.only_a + found.only_b
    share, beyond = wilson(alike, alike + split), kappa(found.both_right, found.both_wrong, found.only_a, found.only_b)
    interval = "" if share.low is None or share.high is None else f" ({percent(share.low)} to {percent(share.high)})"
    return AgreementLine(
        a=found.a,
        b=found.b,
        n=alike + split,
        both_right=found.both_right,
        both_wrong=found.both_wrong,
        only_a=found.only_a,
        only_b=found.only_b,
        agreement=f"{percent(share.value)}%{interval}",
        kappa="not defined" if beyond is None else f"{beyond:.2f}",
        bar=win_bar(found.only_a, alike, found.only_b),
        examples=tuple(Link(words=attempt, href=sample_address(run, attempt)) for run, attempt in counts.disagreements(found.a, found.b)),
    )
