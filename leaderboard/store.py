"""Queries of the leaderboard: finished scores, measurements, runs, series, samples. Reads only; rows leave as plain dataclasses."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import Engine, Select, func, select

from leaderboard.records import DiagnosticInfo, EvaluationInfo, GroupInfo, RunInfo, SampleFilter, SampleInfo
from leaderboard.schema import Attempt, Credit, Diagnostic, Evaluation, Group, Histogram, Judgement, Run, ScoreRow, Step, Task
from leaderboard.scoring import HEADLINE, MOST_VALUES_OF_A_TAG, unpack
from leaderboard.standings import Column, Measurement


class Store:
    """Read access to one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def scores(
        self, model: str | None = None, method: str | None = None, run: str | None = None, benchmark: str | None = None
    ) -> list[dict[str, Any]]:
        """Rows of ``show --format json``: each run's last finished evaluation of each split, every metric, whole and by tag."""
        query = (
            select(*_SCORE_COLUMNS)
            .join(Evaluation, (Evaluation.run == ScoreRow.run) & (Evaluation.evaluation_id == ScoreRow.evaluation_id))
            .join(Run, Run.key == ScoreRow.run)
            .where(Evaluation.finished)
            .order_by(
                Evaluation.model, Evaluation.method, Evaluation.benchmark, Evaluation.split, Evaluation.at, ScoreRow.metric, ScoreRow.part
            )
        )
        wanted = ((Evaluation.model, model), (Evaluation.method, method), (Run.run_id, run), (Evaluation.benchmark, benchmark))
        for column, value in wanted:
            query = query if value is None else query.where(column == value)
        rows = self._all(query)
        last: dict[tuple[str, str, str], int] = {}
        for row in rows:
            place = (row["run"], row["benchmark"], row["split"])
            last[place] = max(last.get(place, 0), row["step"] or 0)
        return [row for row in rows if (row["step"] or 0) == last[(row["run"], row["benchmark"], row["split"])]]

    def measurements(self) -> list[Measurement]:
        """Every finished evaluation with its verdicts, for the board."""
        query = select(*_MEASUREMENT_COLUMNS).join(Run, Run.key == Evaluation.run).where(Evaluation.finished)
        return [Measurement(**{**row, "verdicts": unpack(row["verdicts"])}) for row in self._all(query)]

    def parts(self, benchmark: str) -> dict[Column, dict[str, str]]:
        """Columns that unfold a benchmark by its tags, each with the tag value of every task id."""
        tagged = (
            select(Evaluation.split, Attempt.task_id, Attempt.task)
            .join(Attempt, (Attempt.run == Evaluation.run) & (Attempt.evaluation_id == Evaluation.evaluation_id))
            .where(Evaluation.benchmark == benchmark, Evaluation.finished)
            .distinct()
        )
        tags = {row["key"]: row["tags"] for row in self._all(select(Task.key, Task.tags))}
        values: dict[tuple[str, str], dict[str, str]] = {}
        for row in self._all(tagged):
            for name, value in tags[row["task"]].items():
                values.setdefault((row["split"], name), {})[row["task_id"]] = str(value)
        found: dict[Column, dict[str, str]] = {}
        for (split, name), by_task in sorted(values.items()):
            kinds = sorted(set(by_task.values()))
            if 1 < len(kinds) <= MOST_VALUES_OF_A_TAG:
                found |= {Column(benchmark=benchmark, split=split, part=f"{name}={kind}"): by_task for kind in kinds}
        return found

    def runs(self) -> list[RunInfo]:
        """All runs, the latest first."""
        return [RunInfo(**row) for row in self._all(select(*_RUN_COLUMNS).order_by(Run.started_at.desc(), Run.key.desc()))]

    def run(self, run_id: str) -> RunInfo | None:
        """One run, None if it is unknown."""
        return next((RunInfo(**row) for row in self._all(select(*_RUN_COLUMNS).where(Run.run_id == run_id))), None)

    def groups(self, run: int) -> list[GroupInfo]:
        """Groups of a run in the order of steps."""
        query = select(*(getattr(Group, f.name) for f in fields(GroupInfo))).where(Group.run == run)
        return [GroupInfo(**row) for row in self._all(query.order_by(Group.step, Group.group_id))]

    def series(self, run: int) -> dict[str, list[tuple[int, float]]]:
        """Every recorded number of a run by name, as (step, value); steps without a value are left out."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self._all(select(Step.name, Step.step, Step.value).where(Step.run == run).order_by(Step.name, Step.step)):
            if row["value"] is not None:
                found.setdefault(row["name"], []).append((row["step"], row["value"]))
        return found

    def histogram(self, run: int, name: str) -> tuple[list[float], list[float]] | None:
        """Edges and counts summed over all steps that share the first step's edges; None if nothing was recorded."""
        query = select(Histogram.edges, Histogram.counts).where(Histogram.run == run, Histogram.name == name)
        rows = self._all(query.order_by(Histogram.step))
        if not rows:
            return None
        edges = rows[0]["edges"]
        alike = [row["counts"] for row in rows if row["edges"] == edges]
        return edges, [sum(column) for column in zip(*alike, strict=True)]

    def evaluations(self, run: int) -> list[EvaluationInfo]:
        """Evaluations of a run in the order of steps."""
        mine = (ScoreRow.run == Evaluation.run) & (ScoreRow.evaluation_id == Evaluation.evaluation_id)
        query = (
            select(*_EVALUATION_COLUMNS)
            .join(ScoreRow, mine & (ScoreRow.part == "") & (ScoreRow.metric == HEADLINE), isouter=True)
            .where(Evaluation.run == run)
            .order_by(Evaluation.step, Evaluation.at)
        )
        return [EvaluationInfo(**row) for row in self._all(query)]

    def diagnostics(self, run: int) -> list[DiagnosticInfo]:
        """Diagnostics of a run by name, each the one of the latest weights."""
        query = select(*(getattr(Diagnostic, f.name) for f in fields(DiagnosticInfo))).where(Diagnostic.run == run)
        latest = {row["name"]: row for row in self._all(query.order_by(Diagnostic.name, Diagnostic.step))}
        return [DiagnosticInfo(**{**row, "summary": tuple(row["summary"]), "charts": tuple(row["charts"])}) for row in latest.values()]

    def samples(self, run: int, wanted: SampleFilter, limit: int, offset: int = 0) -> tuple[list[SampleInfo], int]:
        """One page of attempts, and how many match in all."""
        query = _filtered(_sample_query().where(Attempt.run == run), wanted)
        page = query.order_by(Attempt.step.desc(), Attempt.task_id, Attempt.level, Attempt.position, Attempt.attempt_id)
        (counted,) = self._all(select(func.count().label("total")).select_from(query.subquery()))
        return [_sample(row) for row in self._all(page.limit(limit).offset(offset))], counted["total"]

    def sample(self, run: int, attempt_id: str) -> SampleInfo | None:
        """One attempt, None if it is unknown."""
        rows = self._all(_sample_query().where(Attempt.run == run, Attempt.attempt_id == attempt_id))
        return _sample(rows[0]) if rows else None

    def _all(self, query: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]


_RUN_COLUMNS = [getattr(Run, f.name) for f in fields(RunInfo)]

_SCORE_COLUMNS = [
    *(Evaluation.model, Evaluation.method, Evaluation.benchmark, Evaluation.split, ScoreRow.metric, ScoreRow.part),
    *(ScoreRow.score, ScoreRow.low, ScoreRow.high, ScoreRow.n, ScoreRow.coverage, ScoreRow.method.label("interval")),
    *(Run.run_id.label("run"), Evaluation.seed, Evaluation.step, Evaluation.judge, Evaluation.comparability),
    *(Evaluation.generated_tokens_total.label("training_tokens"), Evaluation.evaluation_id.label("evaluation")),
]

_MEASUREMENT_COLUMNS = [
    *(Run.run_id, Run.recipe, Run.config, Evaluation.evaluation_id, Evaluation.model, Evaluation.method, Evaluation.seed),
    *(Evaluation.benchmark, Evaluation.split, Evaluation.step, Evaluation.n, Evaluation.judge, Evaluation.comparability),
    *(Evaluation.at, Evaluation.verdicts),
]

_EVALUATION_COLUMNS = [
    *(Evaluation.evaluation_id, Evaluation.benchmark, Evaluation.split, Evaluation.step, Evaluation.n, Evaluation.judge),
    *(Evaluation.comparability, Evaluation.generated_tokens_total, Evaluation.finished, ScoreRow.score, ScoreRow.low, ScoreRow.high),
]

_SAMPLE_COLUMNS = [
    *(Attempt.attempt_id, Attempt.task_id, Task.question, Task.gold, Task.tags, Attempt.purpose, Attempt.evaluation_id, Attempt.step),
    *(Attempt.level, Attempt.position, Attempt.status, Attempt.answer, Attempt.turns, Attempt.generated_tokens, Attempt.seconds),
    *(Attempt.place, Attempt.blob, Judgement.value, Judgement.judge, Judgement.status.label("verdict"), Judgement.layer, Judgement.detail),
    *(Credit.advantage, Credit.ratio_mean, Credit.trained),
]


def _sample_query() -> Select[*tuple[Any, ...]]:
    verdict = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current
    credit = (Credit.run == Attempt.run) & (Credit.attempt_id == Attempt.attempt_id)
    joined = select(*_SAMPLE_COLUMNS).select_from(Attempt).join(Task, Task.key == Attempt.task)
    return joined.join(Judgement, verdict, isouter=True).join(Credit, credit, isouter=True)


def _filtered(query: Select[*tuple[Any, ...]], wanted: SampleFilter) -> Select[Any]:
    pairs = (
        (Attempt.purpose, wanted.purpose),
        (Attempt.evaluation_id, wanted.evaluation),
        (Attempt.task_id, wanted.task),
        (Attempt.step, wanted.step),
        (Attempt.level, wanted.level),
    )
    for column, value in pairs:
        query = query if value is None else query.where(column == value)
    match wanted.verdict:
        case "right":
            return query.where(Judgement.value > 0.5)
        case "wrong":
            return query.where(Judgement.value <= 0.5)
        case "none":
            return query.where(Judgement.value.is_(None))
    return query


def _sample(row: dict[str, Any]) -> SampleInfo:
    return SampleInfo(**{**row, "gold": None if row["gold"] is None else tuple(row["gold"])})
