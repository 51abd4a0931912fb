"""``harness regrade``: judge a finished run again, without running its agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from harness.config import Section, build, home, merge, parse_assignment
from harness.errors import UsageError
from judges.attempts import OutageConfig


class RegradeConfig(Section):
    """Settings of ``harness regrade``."""

    outage: OutageConfig = OutageConfig()


@click.command(short_help="Judge a finished run again, without running agents.")
@click.argument("run")
@click.option("--judge", "name", required=True, help="exact, gaia, llm:URL[#MODEL] or llm:MODEL (harness list judges).")
@click.option("--closed/--open", default=None, help="Whether the gold lists every accepted answer.  [default: as it was judged before]")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting, e.g. outage.pause=60; may be repeated.")
def regrade(run: str, name: str, closed: bool | None, assignments: tuple[str, ...]) -> None:
    """Judge every evaluated answer of RUN (a run's id or its folder) with another judge; the board then shows the new scores.

    Nothing is overwritten: judgements are appended, and the old ones stay in the log. A judge that goes down is waited for; one that stays
    down stops the command, and the same command later asks only for what is missing.
    """
    config = build(RegradeConfig, merge(*map(parse_assignment, assignments)))
    for line in asyncio.run(_regrade(_folder(run), name, closed, config.outage)):
        click.echo(line)


async def _regrade(folder: Path, name: str, closed: bool | None, outages: OutageConfig) -> list[str]:
    from benchmarks.regrade import WRITER, closed_before
    from benchmarks.regrade import regrade as judge_again
    from harness.cli.assemble import open_judge
    from harness.cli.board import put_on_board
    from harness.cli.progress import Notices
    from harness.events import Recorder
    from judges.base import check_judge, close_judge

    judge = open_judge(name, closed_before(folder) if closed is None else closed)
    try:
        await check_judge(judge)
        notice = Notices(lambda words: click.echo(words, err=True))
        with Recorder(folder, writer=WRITER) as log:
            found = await judge_again(folder, judge, log, _tenths, outages=outages, notice=notice)
    finally:
        await close_judge(judge)
    put_on_board(folder)
    return [one.words() for one in found]


def _tenths(finished: int, total: int) -> None:
    """A line for each tenth of the answers."""
    if finished * 10 // total > (finished - 1) * 10 // total:
        click.echo(f"judged {finished}/{total}", err=True)


def _folder(run: str) -> Path:
    for folder in (Path(run), home() / "runs" / run):
        if (folder / "events").is_dir():
            return folder
    raise UsageError(f"no run {run!r}: expected the id of a run under {home() / 'runs'}, or a folder that holds events/")
