"""Queries of the leaderboard: finished scores, measurements, runs, series, samples. Reads only; rows leave as plain dataclasses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Engine, Select, func, select

from leaderboard.outcomes import bounds
from leaderboard.records import (
    DiagnosticInfo,
    EvaluationInfo,
    GroupInfo,
    RunInfo,
    SampleFilter,
    SampleInfo,
    SubmissionInfo,
    VerdictInfo,
)
from leaderboard.schema import (
    Attempt,
    Credit,
    Diagnostic,
    Evaluation,
    Group,
    Histogram,
    Judgement,
    Run,
    ScoreRow,
    Step,
    Submission,
    Task,
)
from leaderboard.scoring import HEADLINE, MOST_VALUES_OF_A_TAG, unpack
from leaderboard.standings import Column, Measurement, newest
from leaderboard.stats import Verdicts
from leaderboard.unfinished import judged

MOST_COUNTED = 5_000  # beyond it a list says "more than", because an exact count would read every row
IN_CLAUSE = 500  # ids in one SQL list
PURPOSES = ("train", "probe", "eval")


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
        kept = [row for row in rows if (row["step"] or 0) == last[(row["run"], row["benchmark"], row["split"])]]
        return [_with_bounds(row) for row in kept]

    def measurements(self) -> list[Measurement]:
        """What the board shows: the newest finished evaluation of each run and split, with its verdicts and settings.

        Verdicts and configurations are only read for those.
        """
        heads = self._all(select(*_MEASUREMENT_COLUMNS).join(Run, Run.key == Evaluation.run).where(Evaluation.finished))
        chosen = newest([Measurement(**row | {"truncated": row["truncated"].get("", 0.0)}) for row in heads])
        packed: dict[tuple[str, str], bytes] = {}
        for ids in _slices([m.evaluation_id for m in chosen]):
            query = select(Run.run_id, Evaluation.evaluation_id, Evaluation.verdicts).join(Run, Run.key == Evaluation.run)
            rows = self._all(query.where(Evaluation.evaluation_id.in_(ids)))
            packed |= {(row["run_id"], row["evaluation_id"]): row["verdicts"] or b"" for row in rows}
        configs = self._configs({m.entry: m.run_id for m in chosen}.values())
        return [_filled(m, packed.get((m.run_id, m.evaluation_id), b""), configs.get(m.run_id, {})) for m in chosen]

    def parts(self, measurements: Iterable[Measurement], benchmark: str, tag: str | None = None) -> dict[Column, dict[str, str]]:
        """Columns that unfold a benchmark by its tags (or by one of them), each with the tag value of every task id."""
        asked = [m for m in measurements if m.benchmark == benchmark]
        tags = self.tags({task for m in asked for task in m.verdicts})
        found: dict[Column, dict[str, str]] = {}
        for split in sorted({m.split for m in asked}):
            tasks = {t for m in asked if m.split == split for t in m.verdicts}
            for name in sorted({name for t in tasks for name in tags.get(t, {})} if tag is None else {tag}):
                by_task = {t: str(tags[t][name]) for t in sorted(tasks) if name in tags.get(t, {})}
                kinds = sorted(set(by_task.values()))
                if 1 < len(kinds) <= MOST_VALUES_OF_A_TAG:
                    found |= {Column(benchmark=benchmark, split=split, part=f"{name}={kind}"): by_task for kind in kinds}
        return found

    def tags(self, task_ids: Iterable[str]) -> dict[str, Mapping[str, str]]:
        """Tags of tasks by id."""
        found: dict[str, Mapping[str, str]] = {}
        for ids in _slices(sorted(task_ids)):
            found |= {row["task_id"]: row["tags"] for row in self._all(select(Task.task_id, Task.tags).where(Task.task_id.in_(ids)))}
        return found

    def state(self) -> str:
        """A short text that changes whenever evaluations or their scores do: what a cached board was made from."""
        query = select(func.count().label("n"), func.max(Run.updated_at).label("at"), func.sum(Run.log_bytes).label("size"))
        (row,) = self._all(query)
        return f"{row['n']} {row['at']} {row['size']}"

    def runs(
        self, model: str | None = None, method: str | None = None, limit: int | None = None, offset: int = 0, command: str | None = None
    ) -> list[RunInfo]:
        """Runs, the latest first, without their settings (``run`` has them)."""
        query = select(*(c for c in _RUN_COLUMNS if c.key not in _SETTINGS)).order_by(Run.started_at.desc(), Run.key.desc())
        for column, value in ((Run.model, model), (Run.method, method), (Run.command, command)):
            query = query if value is None else query.where(column == value)
        return [RunInfo(**row, **_SETTINGS) for row in self._all(query.limit(limit).offset(offset))]

    def last_scores(self, runs: Sequence[int]) -> dict[int, tuple[str, float]]:
        """Of each run its last headline score, with the benchmark and split that it is of."""
        mine = (ScoreRow.run == Evaluation.run) & (ScoreRow.evaluation_id == Evaluation.evaluation_id)
        query = (
            select(Evaluation.run, Evaluation.benchmark, Evaluation.split, ScoreRow.score)
            .join(ScoreRow, mine & (ScoreRow.part == "") & (ScoreRow.metric == HEADLINE))
            .where(Evaluation.run.in_(runs))
            .order_by(Evaluation.step, Evaluation.at)
        )
        return {row["run"]: (f"{row['benchmark']} {row['split']}".strip(), row["score"]) for row in self._all(query)}

    def run(self, run_id: str) -> RunInfo | None:
        """One run, None if it is unknown."""
        return next((RunInfo(**row) for row in self._all(select(*_RUN_COLUMNS).where(Run.run_id == run_id))), None)

    def submission(self, run_id: str) -> SubmissionInfo | None:
        """The bundle that a run came in, None for a run of this board's own."""
        query = select(Submission.signer, Submission.at).where(Submission.run_id == run_id)
        return next((SubmissionInfo(**row) for row in self._all(query)), None)

    def cursor(self, run: int) -> str | None:
        """How far a run's log has been read."""
        return next((row["cursor"] for row in self._all(select(Run.cursor).where(Run.key == run))), None)

    def groups(self, run: int) -> list[GroupInfo]:
        """Groups of a run in the order of steps."""
        query = select(Group.step, Group.task_id, Group.outcome, Group.level, Group.max_level).where(Group.run == run)
        with self._engine.connect() as connection:  # long lists: no mapping a row
            rows = connection.execute(query.order_by(Group.step, Group.group_id)).all()
        return [GroupInfo(step=s, task_id=t, outcome=o, level=k, max_level=most) for s, t, o, k, most in rows]

    def series(self, run: int) -> dict[str, list[tuple[int, float]]]:
        """Every recorded number of a run by name, as (step, value); steps without a value are left out."""
        found: dict[str, list[tuple[int, float]]] = {}
        query = select(Step.name, Step.step, Step.value).where(Step.run == run)
        with self._engine.connect() as connection:
            for name, step, value in connection.execute(query.order_by(Step.name, Step.step)).all():
                if value is not None:
                    found.setdefault(name, []).append((step, value))
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
        rows = self._all(query)
        with self._engine.connect() as connection:
            so_far = {row["evaluation_id"]: judged(connection, run, row["evaluation_id"]) for row in rows if not row["finished"]}
        return [
            EvaluationInfo(**row | {"truncated": row["truncated"].get("", 0.0), "judged": so_far.get(row["evaluation_id"])}) for row in rows
        ]

    def diagnostics(self, run: int) -> list[DiagnosticInfo]:
        """Diagnostics of a run by name, each the one of the latest weights."""
        query = select(*(getattr(Diagnostic, f.name) for f in fields(DiagnosticInfo))).where(Diagnostic.run == run)
        latest = {row["name"]: row for row in self._all(query.order_by(Diagnostic.name, Diagnostic.step))}
        return [DiagnosticInfo(**{**row, "summary": tuple(row["summary"]), "charts": tuple(row["charts"])}) for row in latest.values()]

    def samples(self, run: int, wanted: SampleFilter, limit: int, offset: int = 0) -> tuple[list[SampleInfo], int]:
        """One page of attempts, and how many match in all, counted up to ``MOST_COUNTED``.

        Which attempts are on the page is settled on the index alone; only they are joined.
        """
        ids = _filtered(select(Attempt.attempt_id).where(Attempt.run == run), wanted)
        if wanted.evaluation is None:
            ids = ids.order_by(Attempt.purpose.desc(), Attempt.step.desc(), Attempt.attempt_id.desc())
        else:
            ids = ids.order_by(Attempt.task_id, Attempt.position)
        (counted,) = self._all(select(func.count().label("total")).select_from(ids.order_by(None).limit(MOST_COUNTED + 1).subquery()))
        page = self._all(ids.limit(limit).offset(offset))
        place = {row["attempt_id"]: i for i, row in enumerate(page)}
        rows = self._all(_sample_query().where(Attempt.run == run, Attempt.attempt_id.in_(place))) if place else []
        return [_sample(row) for row in sorted(rows, key=lambda row: place[row["attempt_id"]])], counted["total"]

    def attempts_at(self, run_id: str, evaluation_id: str, task_ids: Sequence[str]) -> dict[str, SampleInfo]:
        """Attempts of an evaluation at these tasks, by task; of several at one task the first."""
        query = _sample_query().join(Run, Run.key == Attempt.run).where(Run.run_id == run_id, Attempt.evaluation_id == evaluation_id)
        rows = self._all(query.where(Attempt.task_id.in_(task_ids)).order_by(Attempt.position.desc()))
        return {row["task_id"]: _sample(row) for row in rows}

    def sample(self, run: int, attempt_id: str) -> SampleInfo | None:
        """One attempt, None if it is unknown."""
        rows = self._all(_sample_query().where(Attempt.run == run, Attempt.attempt_id == attempt_id))
        return _sample(rows[0]) if rows else None

    def verdicts(self, run: int, attempt_id: str) -> list[VerdictInfo]:
        """Every judge's verdict on an attempt, the current one first."""
        columns = [getattr(Judgement, f.name) for f in fields(VerdictInfo)]
        query = select(*columns).where(Judgement.run == run, Judgement.attempt_id == attempt_id)
        return [VerdictInfo(**row) for row in self._all(query.order_by(Judgement.current.desc(), Judgement.judge))]

    def _configs(self, run_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for ids in _slices(sorted(run_ids)):
            found |= {row["run_id"]: row["config"] for row in self._all(select(Run.run_id, Run.config).where(Run.run_id.in_(ids)))}
        return found

    def _all(self, query: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]


def _with_bounds(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the score's bounds and, where it is that of a whole evaluation, how its attempts ended."""
    cut, ends = row.pop("truncated").get(row["part"], 0.0), row.pop("outcomes")
    unbounded = row["metric"] == "calibration_error"
    share = cut * row["coverage"] / max(row["n"], 1)  # n questions are the covered share
    ranges = None if unbounded else list(bounds(row["score"], row["coverage"], share))
    return row | {"bounds": ranges, "outcomes": {} if row["part"] else ends}


_RUN_COLUMNS = [getattr(Run, f.name) for f in fields(RunInfo)]
_SETTINGS: dict[str, Any] = {"config": {}, "changed": None, "provenance": {}}

_SCORE_COLUMNS = [
    *(Evaluation.model, Evaluation.method, Evaluation.benchmark, Evaluation.split, ScoreRow.metric, ScoreRow.part),
    *(ScoreRow.score, ScoreRow.low, ScoreRow.high, ScoreRow.n, ScoreRow.coverage, ScoreRow.method.label("interval")),
    *(
        Evaluation.outcomes,
        Evaluation.truncated,
        Run.run_id.label("run"),
        Evaluation.seed,
        Evaluation.step,
        Evaluation.judge,
        Evaluation.comparability,
    ),
    Evaluation.comparability_parts,
    *(Evaluation.generated_tokens_total.label("training_tokens"), Evaluation.evaluation_id.label("evaluation")),
]

_MEASUREMENT_COLUMNS = [
    *(Run.run_id, Run.recipe, Evaluation.truncated, Evaluation.evaluation_id, Evaluation.model, Evaluation.method, Evaluation.seed),
    *(Evaluation.benchmark, Evaluation.split, Evaluation.step, Evaluation.n, Evaluation.judge, Evaluation.comparability),
    *(Evaluation.at, Evaluation.comparability_parts.label("code_parts")),
]

_EVALUATION_COLUMNS = [
    *(Evaluation.evaluation_id, Evaluation.benchmark, Evaluation.split, Evaluation.step, Evaluation.n, Evaluation.judge),
    *(Evaluation.comparability, Evaluation.generated_tokens_total, Evaluation.finished, ScoreRow.score, ScoreRow.low, ScoreRow.high),
    *(ScoreRow.coverage, Evaluation.truncated, Evaluation.comparability_parts.label("code_parts")),
]

_SAMPLE_COLUMNS = [
    *(Attempt.attempt_id, Attempt.task_id, Task.question, Task.gold, Task.tags, Attempt.purpose, Attempt.evaluation_id, Attempt.step),
    Evaluation.benchmark,
    *(Attempt.level, Attempt.position, Attempt.status, Attempt.answer, Attempt.turns, Attempt.generated_tokens, Attempt.seconds),
    *(Attempt.place, Attempt.blob, Judgement.value, Judgement.judge, Judgement.status.label("verdict"), Judgement.layer, Judgement.detail),
    *(Credit.advantage, Credit.ratio_mean, Credit.trained),
]


_VERDICT = (Judgement.run == Attempt.run) & (Judgement.attempt_id == Attempt.attempt_id) & Judgement.current


def _sample_query() -> Select[*tuple[Any, ...]]:
    credit = (Credit.run == Attempt.run) & (Credit.attempt_id == Attempt.attempt_id)
    joined = select(*_SAMPLE_COLUMNS).select_from(Attempt).join(Task, Task.key == Attempt.task)
    evaluation = (Evaluation.run == Attempt.run) & (Evaluation.evaluation_id == Attempt.evaluation_id)
    joined = joined.join(Evaluation, evaluation, isouter=True)
    return joined.join(Judgement, _VERDICT, isouter=True).join(Credit, credit, isouter=True)


def _filtered(query: Select[Any], wanted: SampleFilter) -> Select[Any]:
    pairs = (
        (Attempt.purpose, wanted.purpose),
        (Attempt.evaluation_id, wanted.evaluation),
        (Attempt.task_id, wanted.task),
        (Attempt.step, wanted.step),
        (Attempt.level, wanted.level),
    )
    for column, value in pairs:
        query = query if value is None else query.where(column == value)
    if wanted.purpose is None and wanted.step is not None:
        query = query.where(Attempt.purpose.in_(PURPOSES))  # lets the index on run, purpose, step find the step
    if wanted.verdict not in ("right", "wrong", "none"):
        return query
    query = query.join(Judgement, _VERDICT, isouter=True)
    match wanted.verdict:
        case "right":
            return query.where(Judgement.value > 0.5)
        case "wrong":
            return query.where(Judgement.value <= 0.5)
        case _:
            return query.where(Judgement.value.is_(None))


def _filled(m: Measurement, packed: bytes, config: Mapping[str, Any]) -> Measurement:
    name = hashlib.blake2b(packed, digest_size=12).hexdigest()
    return replace(m, verdicts=verdicts_of(packed), verdicts_hash=name, config=config)


@lru_cache(maxsize=4096)
def verdicts_of(packed: bytes) -> Verdicts:
    """Unpacked verdicts, kept for the next look at an evaluation that has not changed; not to be altered."""
    return unpack(packed or None)


def _slices(ids: Iterable[str]) -> Iterator[list[str]]:
    ordered = list(ids)
    for start in range(0, len(ordered), IN_CLAUSE):
        yield ordered[start : start + IN_CLAUSE]


def _sample(row: dict[str, Any]) -> SampleInfo:
    return SampleInfo(**{**row, "gold": None if row["gold"] is None else tuple(row["gold"])})
