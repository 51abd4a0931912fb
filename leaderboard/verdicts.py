"""Verdicts counted once for each run, so that the page about judges reads a few rows a run and not every verdict."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, Select, case, cast, delete, func, insert, select, update
from sqlalchemy.orm import aliased

from leaderboard.records import AgreementInfo, JudgeInfo
from leaderboard.schema import Attempt, Judgement, JudgePair, JudgeTally, Run

OLD, NEW = aliased(Judgement), aliased(Judgement)


def count_verdicts(connection: Connection, run: int) -> None:
    """Count the verdicts of a run again: of each judge, and of every two judges of the same attempts."""
    for table, counted in ((JudgeTally, _tallies()), (JudgePair, _pairs())):
        connection.execute(delete(table).where(table.run == run))
        names = [column.name for column in table.__table__.columns]
        judged = Judgement.run if table is JudgeTally else OLD.run
        connection.execute(insert(table).from_select(names, counted.where(judged == run)))


def mark_attempts(connection: Connection, run: int, attempt_ids: Collection[str]) -> None:
    """Repeat at these attempts what their current verdicts say: ``attempts.passed``."""
    mine = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current
    says = select(Judgement.value > 0.5).where(mine).scalar_subquery()
    which = update(Attempt).where(Attempt.run == run, Attempt.attempt_id.in_(attempt_ids))
    connection.execute(which.values(passed=says).execution_options(synchronize_session=False))


class JudgeCounts:
    """Reads what was counted, over all runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def judges(self) -> list[JudgeInfo]:
        """What every judge did, over all runs."""
        sums = (_sum(column) for column in (JudgeTally.accepted, JudgeTally.refused, JudgeTally.undecided))
        query = select(JudgeTally.judge, *sums).group_by(JudgeTally.judge).order_by(JudgeTally.judge)
        return [JudgeInfo(**row) for row in self._all(query)]

    def agreements(self) -> list[AgreementInfo]:
        """Every two judges on the attempts that both decided."""
        cells = (JudgePair.both_right, JudgePair.both_wrong, JudgePair.only_a, JudgePair.only_b)
        query = select(JudgePair.a, JudgePair.b, *(_sum(cell) for cell in cells))
        return [AgreementInfo(**row) for row in self._all(query.group_by(JudgePair.a, JudgePair.b).order_by(JudgePair.a, JudgePair.b))]

    def disagreements(self, a: str, b: str, limit: int = 6) -> list[tuple[str, str]]:
        """Some attempts, as (run id, attempt id), that one of two judges accepted and the other refused."""
        split = (JudgePair.a == a, JudgePair.b == b, JudgePair.only_a + JudgePair.only_b > 0)
        runs = self._all(
            select(Run.key, Run.run_id).join(JudgePair, JudgePair.run == Run.key).where(*split).order_by(Run.run_id).limit(limit)
        )
        unlike = (
            _judge_pairs().with_only_columns(OLD.attempt_id).where((OLD.value > 0.5) != (NEW.value > 0.5), OLD.judge == a, NEW.judge == b)
        )
        found: list[tuple[str, str]] = []
        for run in runs:
            rows = self._all(unlike.where(OLD.run == run["key"]).order_by(OLD.attempt_id).limit(limit - len(found)))
            found += [(run["run_id"], row["attempt_id"]) for row in rows]
            if len(found) == limit:
                break
        return found

    def _all(self, query: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]


def _judge_pairs() -> Select[Any]:
    """A retired verdict beside every other judge's on the same attempt, both decided; each pair once.

    Of two verdicts on one attempt at most one is current.
    """
    same = (NEW.run == OLD.run) & (NEW.attempt_id == OLD.attempt_id)
    once = NEW.current | (OLD.judge < NEW.judge)
    both = OLD.value.is_not(None) & NEW.value.is_not(None)
    return select(OLD).join(NEW, same & (NEW.judge != OLD.judge) & once).where(~OLD.current, both)


def _tallies() -> Select[Any]:
    kinds = (Judgement.value > 0.5, Judgement.value <= 0.5, Judgement.value.is_(None))
    return select(Judgement.run, Judgement.judge, *(_number_of(kind) for kind in kinds)).group_by(Judgement.run, Judgement.judge)


def _pairs() -> Select[Any]:
    a, b = OLD.value > 0.5, NEW.value > 0.5
    cells = (_number_of(a & b), _number_of(~a & ~b), _number_of(a & ~b), _number_of(~a & b))
    return _judge_pairs().with_only_columns(OLD.run, OLD.judge, NEW.judge, *cells).group_by(OLD.run, OLD.judge, NEW.judge)


def _sum(column: Any) -> Any:
    """Of whole numbers a whole number: PostgreSQL's is a decimal."""
    return cast(func.sum(column), BigInteger).label(column.key)


def _number_of(condition: Any) -> Any:
    return func.sum(case((condition, 1), else_=0))
