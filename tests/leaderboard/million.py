"""A database as years of runs would leave it: a million attempts with verdicts, turns, groups, steps and evaluations.

Rows are inserted directly (a log of that size would take an hour to write); the shapes are those of ``leaderboard_logs``. Scores are
made by the harness's own code. Numbers are drawn from a seeded generator.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leaderboard_logs import Recipe, build
from sqlalchemy import select

from leaderboard.database import default_url, open_database
from leaderboard.ingest import ingest_run
from leaderboard.schema import Evaluation, Run
from leaderboard.scoring import score_evaluations
from leaderboard.verdicts import count_verdicts

QUESTIONS = 500
STEPS = 64
EVALUATIONS = 4  # of each training run
PIECE = 8  # attempts a group


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How much: ``attempts`` in all, spread over models that each have a base and three seeds of two trainers."""

    attempts: int = 1_000_000
    models: int = 20

    @property
    def training(self) -> int:
        """Training attempts of one training run."""
        a_model = self.attempts // self.models - QUESTIONS - 6 * EVALUATIONS * QUESTIONS
        return max(a_model // 6 // (STEPS * PIECE), 1) * STEPS * PIECE


def fill(home: Path, shape: Shape) -> list[str]:
    """Make the database of ``home``; returns the ids of its runs, first a small one with a log, whose samples can be opened."""
    real = build(home / "runs", Recipe(model="tiny", method="actguide", steps=8, groups=8, questions=50))
    engine = open_database(default_url(home))
    ingest_run(engine, real)
    raw = sqlite3.connect(home / "leaderboard.sqlite")
    raw.execute("PRAGMA synchronous=OFF")
    rng, runs = random.Random(0), [real.name]
    tags = [(f"q{i:05d}", {"hops": str(2 + i % 3), "level": str(i % 4)}) for i in range(4 * QUESTIONS)]
    insert(raw, "tasks", ((t, t, f"What is {t}?", "w", '["x"]', json.dumps(g)) for t, g in tags))
    for m in range(shape.models):
        recipes = [("base", 0), *((method, seed) for method in ("zero-rl", "actguide") for seed in range(3))]
        for method, seed in recipes:
            key = len(runs) + 100
            run_id = f"model-{m:02d}-{method}-s{seed}"
            runs.append(run_id)
            at = f"2026-{1 + m % 12:02d}-{1 + seed:02d}T00:00:{key % 60:02d}.000Z"
            config = json.dumps({"model": f"model-{m:02d}", "seed": seed, "trainer": method, "filler": {f"k{i}": i for i in range(60)}})
            head = (key, run_id, str(home / "gone" / run_id), None, 0, "run", f"model-{m:02d}", method, seed, f"r{m}{method}", "finished")
            insert(raw, "runs", [(*head, None, None, config, None, "{}", at, at, at)], RUN_COLUMNS)
            skill = {"base": 0.2, "zero-rl": 0.25, "actguide": 0.4}[method] + m * 0.01
            for e in range(1 if method == "base" else EVALUATIONS):
                _evaluation(raw, key, run_id, e * STEPS // EVALUATIONS, (f"model-{m:02d}", method, seed, at), skill, rng)
            if method != "base":
                _training(raw, key, shape.training, skill, rng)
            raw.commit()
    mine = "j.run = attempts.run AND j.attempt_id = attempts.attempt_id"
    raw.execute(f"UPDATE attempts SET passed = (SELECT j.value > 0.5 FROM judgements j WHERE {mine})")
    raw.commit()
    raw.execute("ANALYZE")
    raw.close()
    with engine.begin() as connection:
        found = connection.execute(select(Evaluation.run, Evaluation.evaluation_id).where(Evaluation.verdicts.is_(None))).all()
        for run, evaluation in found:
            score_evaluations(connection, run, [evaluation])
        for run in connection.scalars(select(Run.key)).all():
            count_verdicts(connection, run)
    return runs


RUN_COLUMNS = (
    "key, run_id, folder, cursor, log_bytes, command, model, method, seed, recipe, status, error, parent, config, changed, provenance, "
    "started_at, updated_at, finished_at"
)
ATTEMPT_COLUMNS = (
    "run, attempt_id, task, task_id, purpose, evaluation_id, step, level, position, status, answer, detail, turns, tool_calls, "
    "tool_errors, prompt_tokens, generated_tokens, seconds, place, blob"
)
EVALUATION_COLUMNS = (
    "run, evaluation_id, benchmark, split, step, n, judge, model, method, seed, comparability, generated_tokens_total, finished, at"
)
USAGE = ("answered", "an answer", "", 2, 1, 0, 300, 80, 1.5, "main-0.jsonl:0", None)


def insert(raw: sqlite3.Connection, table: str, rows: Iterator[tuple[object, ...]] | list[tuple[object, ...]], columns: str = "") -> None:
    """Many rows at once; ``columns`` where the table has more than the rows."""
    first, *rest = rows
    places = ", ".join("?" * len(first))
    raw.executemany(f"INSERT INTO {table} {f'({columns})' if columns else ''} VALUES ({places})", [first, *rest])


def _evaluation(
    raw: sqlite3.Connection, key: int, run_id: str, step: int, who: tuple[str, str, int, str], skill: float, rng: random.Random
) -> None:
    model, method, seed, at = who
    evaluation = f"{run_id}/miniweb/test/{step}"
    row = (key, evaluation, "miniweb", "test", step, QUESTIONS, "exact", model, method, seed, "c0ffee", 1000 * step, True, at)
    insert(raw, "evaluations", [row], EVALUATION_COLUMNS)
    ids = [(f"{evaluation}/q{i:05d}/k0/0", f"q{i:05d}") for i in range(QUESTIONS)]
    insert(raw, "attempts", [(key, a, t, t, "eval", evaluation, step, 0, 0, *USAGE) for a, t in ids], ATTEMPT_COLUMNS)
    _judge(raw, key, [a for a, _ in ids], skill, rng)


def _training(raw: sqlite3.Connection, key: int, attempts: int, skill: float, rng: random.Random) -> None:
    a_step = attempts // STEPS
    rows, groups = [], []
    for step in range(STEPS):
        for slot in range(a_step // PIECE):
            task = f"q{(step * 31 + slot * 7) % (4 * QUESTIONS):05d}"
            groups.append((key, f"{step}/{task}/{slot}", step, task, rng.choice(("solved", "rescued", "failed")), 1, 3, "[]", 900))
            for index in range(PIECE):
                guided = int(index >= PIECE // 2)
                purpose = "probe" if guided else "train"
                name = f"{purpose}/{step:06d}/{task}/{slot}/k{guided}/{index}"
                rows.append((key, name, task, task, purpose, None, step, guided, index, *USAGE))
    insert(raw, "attempts", rows, ATTEMPT_COLUMNS)
    insert(raw, "groups", groups)
    _judge(raw, key, [str(row[1]) for row in rows], skill, rng)
    insert(raw, "credits", [(key, row[1], row[6], 0.5, 80, bool(row[7]), 0.9, True) for row in rows])
    names = ("reward/mean", "reward/unguided_mean", "groups/trainable", "policy/kl", "time/step", *(f"more/{i}" for i in range(25)))
    insert(raw, "steps", [(key, name, step, rng.random()) for name in names for step in range(STEPS)])


def _judge(raw: sqlite3.Connection, key: int, attempts: list[str], skill: float, rng: random.Random) -> None:
    verdicts = [(key, a, "exact", True, float(rng.random() < skill), "judged", "exact:alias", "equal") for a in attempts]
    insert(raw, "judgements", verdicts)
    insert(raw, "turns", [(key, a, number, "search", 0, 120, 900) for a in attempts for number in (0, 1)])
