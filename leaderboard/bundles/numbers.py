"""The numbers of a run, made from a bundle's events alone by the code that makes the board's: scores, intervals, coverage, totals.

A bundle's writer puts them into its claims; whoever verifies it makes them again and compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from harness.errors import DataError
from leaderboard.database import open_database
from leaderboard.ingest import ingest_run
from leaderboard.schema import Attempt, Checkpoint, Evaluation, Group, Judgement, Run, ScoreRow, Step

SCORE = ("score", "low", "high", "n", "coverage", "method")
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
LINE_KEYS = {"v", "seq", "time", "id", "kind", "writer", "data"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """``claims``: facts of the ``run`` (settings included), ``scores`` (a row an evaluation, metric and part) and ``totals``."""

    run_id: str
    claims: Mapping[str, Any]


def numbers_of(events: bytes, folder: Path) -> Numbers:
    """Read a bundle's events into a database of their own inside ``folder`` and take the numbers from it."""
    run_dir = unfold(events, folder / "run")
    engine = open_database(f"sqlite:///{folder / 'numbers.sqlite'}")
    try:
        ingest_run(engine, run_dir)
        with engine.connect() as connection:
            run = connection.execute(select(Run.run_id, Run.model, Run.method, Run.seed, Run.recipe, Run.config)).one()
            mine = (Evaluation.run == ScoreRow.run) & (Evaluation.evaluation_id == ScoreRow.evaluation_id)
            told = (Evaluation.evaluation_id, Evaluation.benchmark, Evaluation.split, Evaluation.step, Evaluation.judge)
            facts = (*told, Evaluation.comparability, Evaluation.generated_tokens_total, ScoreRow.metric, ScoreRow.part)
            columns = (*facts, *(getattr(ScoreRow, name) for name in SCORE))
            query = select(*columns).join(Evaluation, mine).order_by(ScoreRow.evaluation_id, ScoreRow.metric, ScoreRow.part)
            scores = [dict(row._mapping) for row in connection.execute(query)]
            totals = {
                "attempts": connection.scalar(select(func.count()).select_from(Attempt)),
                "judgements": connection.scalar(select(func.count()).select_from(Judgement)),
                "groups": connection.scalar(select(func.count()).select_from(Group)),
                "checkpoints": connection.scalar(select(func.count()).select_from(Checkpoint)),
                "steps": connection.scalar(select(func.count(Step.step.distinct()))),
                "turns": connection.scalar(select(func.sum(Attempt.turns))) or 0,
                "generated_tokens": connection.scalar(select(func.sum(Attempt.generated_tokens))) or 0,
            }
    finally:
        engine.dispose()
    run_facts = {k: v for k, v in run._mapping.items() if k != "run_id"}
    return Numbers(run_id=run.run_id, claims={"run": run_facts, "scores": scores, "totals": totals})


def unfold(events: bytes, run_dir: Path) -> Path:
    """Write a bundle's events as a run directory: a file a writer, lines as in a run log. Raises DataError for a damaged line."""
    (run_dir / "events").mkdir(parents=True, exist_ok=True)
    by_writer: dict[str, list[str]] = {}
    for line in lines_of(events):
        writer = line.pop("writer")
        by_writer.setdefault(writer, []).append(json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n")
    for writer, lines in by_writer.items():
        (run_dir / "events" / f"{writer}-0.jsonl").write_text("".join(lines), encoding="ascii")
    return run_dir


def lines_of(events: bytes) -> Iterator[dict[str, Any]]:
    """Each event of a bundle as a mapping, its shape checked."""
    for number, text in enumerate(events.splitlines(), start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"events.jsonl, line {number}: not JSON ({error})") from error
        if not isinstance(line, dict) or set(line) != LINE_KEYS or not isinstance(line["data"], dict):
            raise DataError(f"events.jsonl, line {number}: not an event")
        writer = line["writer"]
        if not isinstance(writer, str) or not writer or not SAFE.issuperset(writer) or len(writer) > 100:
            raise DataError(f"events.jsonl, line {number}: {str(writer)[:60]!r} is no writer's name")
        yield line


def differences(claimed: Any, found: Any, place: str = "") -> list[str]:
    """Where two trees of numbers differ, in words that name the place; floats may differ by rounding (1e-9)."""
    if isinstance(claimed, Mapping) and isinstance(found, Mapping):
        names = sorted({*claimed, *found}, key=str)
        return [d for name in names for d in differences(claimed.get(name), found.get(name), f"{place}.{name}".lstrip("."))]
    if isinstance(claimed, list) and isinstance(found, list):
        if len(claimed) != len(found):
            return [f"{place}: {len(claimed)} claimed, the records give {len(found)}"]
        pairs = enumerate(zip(claimed, found, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{place}[{_name_of(b, i)}]")]
    number = (int, float)
    if isinstance(claimed, number) and isinstance(found, number) and not isinstance(claimed, bool):
        same = isclose(claimed, found, rel_tol=1e-9, abs_tol=1e-12)
    else:
        same = claimed == found
    return [] if same else [f"{place}: claimed {_short(claimed)}, the records give {_short(found)}"]


def _name_of(row: Any, number: int) -> str:
    """A score row by what it measures, anything else by its place."""
    if not isinstance(row, Mapping) or "metric" not in row:
        return str(number)
    return " ".join(str(row[name]) for name in ("benchmark", "split", "metric", "part") if row.get(name))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) < 80 else text[:77] + "..."
