"""Evaluations that have not come to their end: shown with what they have so far, and never on the board."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select

from harness.events import being_written
from harness.wording import plural
from leaderboard.schema import Attempt, Evaluation, Run
from leaderboard.words import method_title

SHOWN = 5
CONTINUE = {"eval": "continue it with the same command and --out {}", "run": "continue it with the same command and --resume --out {}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """One evaluation that was begun and not closed; ``judged`` of its ``n`` questions have a verdict. ``running``: its process lives."""

    run_id: str
    folder: str
    command: str
    model: str
    method: str
    benchmark: str
    split: str
    n: int
    judged: int
    running: bool
    error: str | None

    def words(self) -> str:
        """``eval-x: tiny base on xbench test stopped, 7 of 12 questions judged (503); continue it with ...``."""
        what = f"{self.run_id}: {self.model} {method_title(self.method).removeprefix('+ ')} on {self.benchmark} {self.split}".rstrip()
        said = f"{what} {'is running' if self.running else 'stopped'}, {self.judged} of {self.n} {plural(self.n, 'question')} judged"
        if self.running:
            return said
        why = f" ({self.error if len(self.error) <= 160 else self.error[:157] + '...'})" if self.error else ""
        return said + why + ("; " + CONTINUE[self.command].format(self.folder) if self.command in CONTINUE else "")


def unfinished(engine: Engine) -> list[Unfinished]:
    """The newest of each run, model, method, benchmark and split, unless the same was finished since; the latest first."""
    what = (Evaluation.model, Evaluation.method, Evaluation.benchmark, Evaluation.split)
    columns = (Evaluation.run, Evaluation.evaluation_id, *what, Evaluation.n, Run.run_id, Run.folder, Run.command, Run.error)
    begun = select(*columns, Evaluation.at).join(Run, Run.key == Evaluation.run).where(~Evaluation.finished)
    with engine.connect() as connection:
        ended = {
            tuple(row[:4]): row[4]
            for row in connection.execute(select(*what, func.max(Evaluation.at)).where(Evaluation.finished).group_by(*what))
        }
        newest = {(*row[2:6], row.run_id): row for row in connection.execute(begun.order_by(Evaluation.at))}
        rows = [row for row in newest.values() if row.at > ended.get(tuple(row[2:6]), "")]
        return [
            Unfinished(
                run_id=row.run_id,
                folder=row.folder,
                command=row.command or "",
                model=row.model,
                method=row.method,
                benchmark=row.benchmark,
                split=row.split,
                n=row.n,
                judged=judged(connection, row.run, row.evaluation_id),
                running=being_written(Path(row.folder)),
                error=row.error,
            )
            for row in sorted(rows, key=lambda row: row.at, reverse=True)
        ]


def judged(connection: Connection, run: int, evaluation_id: str) -> int:
    """Questions of an evaluation with a verdict so far."""
    mine = (Attempt.run == run, Attempt.evaluation_id == evaluation_id, Attempt.passed.is_not(None))
    return connection.scalar(select(func.count(func.distinct(Attempt.task_id))).where(*mine)) or 0


def lines(
    found: Sequence[Unfinished],
    *,
    model: str | None = None,
    method: str | None = None,
    run: str | None = None,
    benchmark: str | None = None,
) -> list[str]:
    """What to print below a board that is narrowed in the same way; empty where nothing is left."""
    wanted: Collection[tuple[str, str | None]] = (("model", model), ("method", method), ("run_id", run), ("benchmark", benchmark))
    kept = [one for one in found if all(value in (None, getattr(one, name)) for name, value in wanted)]
    more = [f"and {len(kept) - SHOWN} more"] if len(kept) > SHOWN else []
    return (
        ["Not finished, so neither shown above nor ranked:", *(f"  {each}" for each in [*(k.words() for k in kept[:SHOWN]), *more])]
        if kept
        else []
    )
