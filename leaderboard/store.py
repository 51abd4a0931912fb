"""Queries of the leaderboard: finished scores, measurements, runs, series. Reads only; rows leave as plain dataclasses."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Engine, Select, Text, cast, func, select, tuple_

from leaderboard.outcomes import bounds
from leaderboard.records import (
    DiagnosticInfo,
    EvaluationInfo,
    GroupInfo,
    RunInfo,
    SubmissionInfo,
)
from leaderboard.samples import Samples
from leaderboard.schema import (
    Diagnostic,
    Evaluation,
    Group,
    Histogram,
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

IN_CLAUSE = 500  # ids in one SQL list

Item = TypeVar("Item")


class Store:
    """Read access to one database; attempts are asked for through ``samples``."""

    def __init__(self, engine: Engine) -> None:
        self.samples = Samples(engine)
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

    def names(self) -> list[dict[str, str]]:
        """``model``, ``method``, ``run`` and ``benchmark`` of all evaluations, finished or not."""
        columns = (Evaluation.model, Evaluation.method, Run.run_id.label("run"), Evaluation.benchmark)
        return self._all(select(*columns).join(Run, Run.key == Evaluation.run).distinct())

    def measurements(self) -> list[Measurement]:
        """What the board shows: the newest finished evaluation of each run and split, with its verdicts.

        What is long (verdicts, parts of the code) is only read for those, settings only where they tell recipes apart.
        """
        heads = self._all(select(*_MEASUREMENT_COLUMNS).join(Run, Run.key == Evaluation.run).where(Evaluation.finished))
        keys = {(row["run_id"], row["evaluation_id"]): row.pop("key") for row in heads}
        chosen = newest([Measurement(**row) for row in heads])
        places = [(keys[m.run_id, m.evaluation_id], m.evaluation_id) for m in chosen]
        details = {(row["run"], row["evaluation_id"]): row for ids in _slices(places) for row in self._all(_details(ids))}
        recipes = Counter((model, method) for model, method, _ in {m.entry for m in chosen})
        configs = self._configs({m.entry: m.run_id for m in chosen if recipes[m.model, m.method] > 1}.values())
        return [_filled(m, details[place], configs.get(m.run_id, {})) for m, place in zip(chosen, places, strict=True)]

    def parts(self, measurements: Iterable[Measurement], benchmark: str, tag: str | None = None) -> dict[Column, dict[str, str]]:
        """Columns that unfold a benchmark by its tags (or by one of them), each with the tag value of every task id."""
        asked = [m for m in measurements if m.benchmark == benchmark]
        tags = self.tags(set().union(*(m.verdicts for m in asked)))
        found: dict[Column, dict[str, str]] = {}
        for split in sorted({m.split for m in asked}):
            tasks = set().union(*(m.verdicts for m in asked if m.split == split))
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
            query = select(Task.task_id, cast(Task.tags, Text).label("tags")).where(Task.task_id.in_(ids))
            found |= {row["task_id"]: _parsed(row["tags"]) for row in self._all(query)}
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
        scores = self._headlines(runs)
        query = select(Evaluation.run, Evaluation.evaluation_id, Evaluation.benchmark, Evaluation.split)
        rows = self._all(query.where(Evaluation.run.in_(runs)).order_by(Evaluation.step, Evaluation.at))
        scored = [row for row in rows if (row["run"], row["evaluation_id"]) in scores]
        return {
            row["run"]: (f"{row['benchmark']} {row['split']}".strip(), scores[row["run"], row["evaluation_id"]]["score"]) for row in scored
        }

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
        with self._engine.connect() as connection:
            return [*map(GroupInfo._make, connection.execute(query.order_by(Group.step, Group.group_id)).all())]

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
        scores, unscored = self._headlines([run]), dict.fromkeys(_HEADLINE)
        rows = self._all(select(*_EVALUATION_COLUMNS).where(Evaluation.run == run).order_by(Evaluation.step, Evaluation.at))
        with self._engine.connect() as connection:
            so_far = {row["evaluation_id"]: judged(connection, run, row["evaluation_id"]) for row in rows if not row["finished"]}
        for row in rows:
            row |= scores.get((run, row["evaluation_id"]), unscored)
            row |= {"truncated": row["truncated"].get("", 0.0), "judged": so_far.get(row["evaluation_id"])}
        return [EvaluationInfo(**row) for row in rows]

    def diagnostics(self, run: int) -> list[DiagnosticInfo]:
        """Diagnostics of a run by name, each the one of the latest weights."""
        query = select(*(getattr(Diagnostic, f.name) for f in fields(DiagnosticInfo))).where(Diagnostic.run == run)
        latest = {row["name"]: row for row in self._all(query.order_by(Diagnostic.name, Diagnostic.step))}
        return [DiagnosticInfo(**{**row, "summary": tuple(row["summary"]), "charts": tuple(row["charts"])}) for row in latest.values()]

    def _headlines(self, runs: Sequence[int]) -> dict[tuple[int, str], dict[str, Any]]:
        """Score, bounds and coverage of the evaluations of these runs, by run and evaluation.

        A query of its own: joined to evaluations, SQLite may read the scores of all runs for a Bloom filter.
        """
        query = select(ScoreRow.run, ScoreRow.evaluation_id, *(getattr(ScoreRow, name) for name in _HEADLINE))
        rows = self._all(query.where(ScoreRow.run.in_(runs), ScoreRow.metric == HEADLINE, ScoreRow.part == ""))
        return {(row["run"], row["evaluation_id"]): {name: row[name] for name in _HEADLINE} for row in rows}

    def _configs(self, run_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for ids in _slices(sorted(run_ids)):
            found |= {row["run_id"]: row["config"] for row in self._all(select(Run.run_id, Run.config).where(Run.run_id.in_(ids)))}
        return found

    def _all(self, query: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            result = connection.execute(query)
            names = [*result.keys()]
            return [dict(zip(names, row, strict=True)) for row in result.all()]


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
    *(Evaluation.run.label("key"), Run.run_id, Run.recipe, Evaluation.evaluation_id, Evaluation.model, Evaluation.method, Evaluation.seed),
    *(Evaluation.benchmark, Evaluation.split, Evaluation.step, Evaluation.n, Evaluation.judge, Evaluation.comparability, Evaluation.at),
]

_HEADLINE = ("score", "low", "high", "coverage")
_EVALUATION_COLUMNS = [
    *(Evaluation.evaluation_id, Evaluation.benchmark, Evaluation.split, Evaluation.step, Evaluation.n, Evaluation.judge),
    *(Evaluation.comparability, Evaluation.generated_tokens_total, Evaluation.finished),
    *(Evaluation.truncated, Evaluation.comparability_parts.label("code_parts")),
]


def _details(places: Sequence[tuple[int, str]]) -> Select[*tuple[Any, ...]]:
    columns = (Evaluation.run, Evaluation.evaluation_id, Evaluation.verdicts, Evaluation.truncated, Evaluation.comparability_parts)
    return select(*columns).where(tuple_(Evaluation.run, Evaluation.evaluation_id).in_(places))


def _filled(m: Measurement, row: Mapping[str, Any], config: Mapping[str, Any]) -> Measurement:
    packed, cut, parts = row["verdicts"] or b"", row["truncated"].get("", 0.0), row["comparability_parts"]
    name = hashlib.blake2b(packed, digest_size=12).hexdigest()
    return replace(m, verdicts=verdicts_of(packed), verdicts_hash=name, truncated=cut, code_parts=parts, config=config)


@lru_cache(maxsize=4096)
def _parsed(tags: str) -> Mapping[str, str]:
    """Tags of a task, which many tasks share; not to be altered."""
    found: Mapping[str, str] = json.loads(tags)
    return found


@lru_cache(maxsize=4096)
def verdicts_of(packed: bytes) -> Verdicts:
    """Unpacked verdicts, kept for the next look at an evaluation that has not changed; not to be altered."""
    return unpack(packed or None)


def _slices(ids: Iterable[Item]) -> Iterator[list[Item]]:
    ordered = list(ids)
    for start in range(0, len(ordered), IN_CLAUSE):
        yield ordered[start : start + IN_CLAUSE]
