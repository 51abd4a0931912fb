"""``harness judge``: how far a judge can be trusted, before its verdicts become scores and rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from judges.calibration import Calibration, Rate, Report


@click.group()
def judge() -> None:
    """Check judges against answers with known verdicts."""


@judge.command()
@click.option("--judge", "name", required=True, help="Judge to check: exact, gaia, llm:URL[#MODEL], llm:MODEL (harness list judges).")
@click.option(
    "--cases", type=click.Path(path_type=Path), help="JSONL rows of question, gold, answer, correct, kind.  [default: shipped cases]"
)
@click.option("--closed", is_flag=True, help="Treat gold lists as complete, as for closed-answer tasks.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="For people or for programs."
)
def calibrate(name: str, cases: Path | None, closed: bool, form: str) -> None:
    """Count false accepts, false rejects and undecided answers, overall and by kind; the page of judges shows the last report."""
    import asyncio

    from harness.cli.assemble import open_judge
    from harness.config import home
    from judges.base import check_judge, close_judge
    from judges.calibration import SHIPPED_CASES, read_cases
    from judges.calibration import calibrate as measure
    from leaderboard.calibrations import save_calibration

    async def measured() -> Report:
        judge = open_judge(name, closed)
        try:
            await check_judge(judge)
            return await measure(judge, read_cases(cases or SHIPPED_CASES))
        finally:
            await close_judge(judge)

    report = asyncio.run(measured())
    save_calibration(home(), report.to_dict())
    click.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2) if form == "json" else _table(report))


def _table(report: Report) -> str:
    parts = {"all": report.overall, **report.kinds}
    rows = [_row(kind, part) for kind, part in parts.items()]
    header = f"{'kind':<12} {'cases':>5}  {'false accepts':>22}  {'false rejects':>22}  {'undecided':>22}"
    lines = [
        f"judge {report.judge}: share of wrong answers accepted, of decided ones wrongly refused, of all left undecided (95% interval)"
    ]
    lines += ["", header, *rows]
    lines += ["decided by " + ", ".join(f"{layer}: {count}" for layer, count in report.layers.items())] if report.layers else []
    lines += [f"  {reason}: {count}" for reason, count in sorted(report.statuses.items())]
    lines += [
        f"WRONG [{m.layer}] gold {' | '.join(m.case.gold)!r}, answer {m.case.answer[:80]!r}: {m.case.question}" for m in report.mistakes
    ]
    return "\n".join(lines)


def _row(kind: str, part: Calibration) -> str:
    rates = "  ".join(f"{_rate(rate):>22}" for rate in (part.false_accepts, part.false_rejects, part.undecided))
    return f"{kind:<12} {part.cases:>5}  {rates}"


def _rate(rate: Rate) -> str:
    if rate.rate is None or rate.low is None or rate.high is None:
        return "-"
    return f"{rate.count} = {rate.rate:.1%} [{rate.low:.0%}, {rate.high:.0%}]"
