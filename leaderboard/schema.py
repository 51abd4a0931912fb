"""Tables of the leaderboard: narrow rows and aggregates, rebuilt at any time from the run logs, which stay the truth.

Every row is keyed by its run and by the deterministic id of its event, so that ingesting twice changes nothing. Transcripts and
token arrays are not here: an attempt keeps the place of its event in the log and of its blob.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

RUN = "runs.key"


class Base(DeclarativeBase):
    """Registry of every table below."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {int: BigInteger, dict[str, Any]: JSON, list[Any]: JSON}


class Run(Base):
    """One run directory, its settings, and how far its log has been read (``cursor``)."""

    __tablename__ = "runs"
    __table_args__ = (Index("runs_by_model", "model", "command"),)
    key: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(unique=True)
    folder: Mapped[str] = mapped_column(Text)
    cursor: Mapped[str | None] = mapped_column(Text)
    log_bytes: Mapped[int] = mapped_column(default=0)
    command: Mapped[str] = mapped_column(default="")
    model: Mapped[str] = mapped_column(default="")
    method: Mapped[str] = mapped_column(default="")
    seed: Mapped[int | None]
    recipe: Mapped[str] = mapped_column(default="")
    status: Mapped[str] = mapped_column(default="started")
    error: Mapped[str | None] = mapped_column(Text)
    parent: Mapped[str | None]
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    changed: Mapped[dict[str, Any] | None]
    provenance: Mapped[dict[str, Any]] = mapped_column(default=dict)
    started_at: Mapped[str | None]
    updated_at: Mapped[str | None]
    finished_at: Mapped[str | None]


class Provenance(Base):
    """Where a run comes from, as it said when it (last) started; ``config_hash`` is SHA-256 over the canonical JSON of its settings."""

    __tablename__ = "provenance"
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    git_sha: Mapped[str | None]
    config_hash: Mapped[str]
    seed: Mapped[int | None]
    python: Mapped[str | None]
    packages: Mapped[dict[str, Any]]
    hardware: Mapped[dict[str, Any]]


class Model(Base):
    """Weights that were run under a model's name: the name itself, a hub id, or the folder of a checkpoint."""

    __tablename__ = "models"
    name: Mapped[str] = mapped_column(primary_key=True)
    weights: Mapped[str] = mapped_column(primary_key=True)


class Method(Base):
    """One recipe of a method: the settings that repetitions of it share, by their hash (``runs.recipe``)."""

    __tablename__ = "methods"
    recipe: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    settings: Mapped[dict[str, Any]]


class BenchmarkVersion(Base):
    """One version of a benchmark's split: ``data`` fingerprints its questions (empty in logs that did not record it)."""

    __tablename__ = "benchmark_versions"
    benchmark: Mapped[str] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[str] = mapped_column(primary_key=True)
    questions: Mapped[int] = mapped_column(primary_key=True)


class Task(Base):
    """A question, stored once whatever the number of runs; ``key`` hashes its content, so an edited question is another row."""

    __tablename__ = "tasks"
    key: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(index=True)
    question: Mapped[str] = mapped_column(Text)
    web: Mapped[str]
    gold: Mapped[list[Any] | None]
    tags: Mapped[dict[str, Any]]


class Attempt(Base):
    """One episode without its text: ``place`` finds its event in the log, ``blob`` its token arrays.

    ``passed`` repeats what its current verdict says (None: nothing yet), so that lists are filtered on an index.
    """

    __tablename__ = "attempts"
    __table_args__ = (
        Index("attempts_by_step", "run", "purpose", "step"),
        Index("attempts_by_verdict", "run", "passed", "purpose", "step"),
        Index(
            "attempts_by_evaluation",
            *("run", "evaluation_id", "task_id", "position", "passed"),
            sqlite_where=text("evaluation_id IS NOT NULL"),
            postgresql_where=text("evaluation_id IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False},
    )
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    attempt_id: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str]
    task_id: Mapped[str]
    purpose: Mapped[str]
    evaluation_id: Mapped[str | None]
    step: Mapped[int | None]
    level: Mapped[int]
    position: Mapped[int]
    status: Mapped[str]
    answer: Mapped[str | None] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    turns: Mapped[int | None]
    tool_calls: Mapped[int | None]
    tool_errors: Mapped[int | None]
    prompt_tokens: Mapped[int | None]
    generated_tokens: Mapped[int | None]
    seconds: Mapped[float | None]
    place: Mapped[str] = mapped_column(Text)
    blob: Mapped[dict[str, Any] | None]
    confidence: Mapped[float | None]
    passed: Mapped[bool | None]


class Turn(Base):
    """One turn of an attempt in numbers: which tools it called (names joined by commas), and characters it wrote and read."""

    __tablename__ = "turns"
    __table_args__ = ({"sqlite_with_rowid": False},)
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    attempt_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tools: Mapped[str] = mapped_column(Text)
    tool_errors: Mapped[int]
    written: Mapped[int]
    read: Mapped[int]


class Judgement(Base):
    """A verdict on an attempt; a regrade adds one and takes over ``current``."""

    __tablename__ = "judgements"
    __table_args__ = (
        Index("judgements_retired", "run", "attempt_id", sqlite_where=text("current = 0"), postgresql_where=text("NOT current")),
        {"sqlite_with_rowid": False},
    )
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    attempt_id: Mapped[str] = mapped_column(primary_key=True)
    judge: Mapped[str] = mapped_column(primary_key=True)
    current: Mapped[bool]
    value: Mapped[float | None]
    status: Mapped[str]
    layer: Mapped[str]
    detail: Mapped[str] = mapped_column(Text)


class JudgeTally(Base):
    """How often a judge accepted, refused and could not decide in a run; counted whenever its log has been read to the end."""

    __tablename__ = "judge_tallies"
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    judge: Mapped[str] = mapped_column(primary_key=True)
    accepted: Mapped[int]
    refused: Mapped[int]
    undecided: Mapped[int]


class JudgePair(Base):
    """Two judges on the attempts of a run that both decided, counted with ``JudgeTally``."""

    __tablename__ = "judge_pairs"
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    a: Mapped[str] = mapped_column(primary_key=True)
    b: Mapped[str] = mapped_column(primary_key=True)
    both_right: Mapped[int]
    both_wrong: Mapped[int]
    only_a: Mapped[int]
    only_b: Mapped[int]


class Credit(Base):
    """What one attempt earned in training."""

    __tablename__ = "credits"
    __table_args__ = ({"sqlite_with_rowid": False},)
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    attempt_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int]
    advantage: Mapped[float | None]
    tokens: Mapped[int | None]
    guided: Mapped[bool]
    ratio_mean: Mapped[float | None]
    trained: Mapped[bool]


class Group(Base):
    """One cell of the rescue map."""

    __tablename__ = "groups"
    __table_args__ = (Index("groups_by_step", "run", "step"), {"sqlite_with_rowid": False})
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    group_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int]
    task_id: Mapped[str]
    outcome: Mapped[str]
    level: Mapped[int | None]
    max_level: Mapped[int]
    probes: Mapped[list[Any]]
    generated_tokens: Mapped[int]


class Step(Base):
    """One number of one training step; ``value`` is None where the step had nothing to measure."""

    __tablename__ = "steps"
    __table_args__ = ({"sqlite_with_rowid": False},)
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]


class Histogram(Base):
    """One distribution of one training step: ``edges`` has one entry more than ``counts``."""

    __tablename__ = "histograms"
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    edges: Mapped[list[Any]]
    counts: Mapped[list[Any]]


class Evaluation(Base):
    """One pass over a benchmark, with what is counted of its attempts once it has finished.

    ``verdicts`` packs the mean reward of each scored question for paired tests; ``outcomes`` and ``truncated`` as
    ``leaderboard.outcomes`` counts them.
    """

    __tablename__ = "evaluations"
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    evaluation_id: Mapped[str] = mapped_column(primary_key=True)
    benchmark: Mapped[str]
    split: Mapped[str]
    step: Mapped[int | None]
    n: Mapped[int]
    judge: Mapped[str]
    model: Mapped[str]
    method: Mapped[str]
    seed: Mapped[int | None]
    comparability: Mapped[str]
    generated_tokens_total: Mapped[int | None]
    finished: Mapped[bool]
    at: Mapped[str]
    verdicts: Mapped[bytes | None] = mapped_column(LargeBinary)
    comparability_parts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    outcomes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    truncated: Mapped[dict[str, Any]] = mapped_column(default=dict)


class ScoreRow(Base):
    """One aggregate of one evaluation; ``part`` is empty for the whole set, or one tag such as ``hops=3``."""

    __tablename__ = "scores"
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    evaluation_id: Mapped[str] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    part: Mapped[str] = mapped_column(primary_key=True)
    score: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int]
    coverage: Mapped[float]
    method: Mapped[str]


class Diagnostic(Base):
    """A finished diagnostic of the weights before training step ``step``: its summary and charts as ``harness.figures`` writes them."""

    __tablename__ = "diagnostics"
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    summary: Mapped[list[Any]]
    charts: Mapped[list[Any]]
    file: Mapped[str] = mapped_column(Text)
    at: Mapped[str]


class Checkpoint(Base):
    """Weights written by a run, with the hash of each file."""

    __tablename__ = "checkpoints"
    run: Mapped[int] = mapped_column(ForeignKey(RUN, ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    folder: Mapped[str] = mapped_column(Text)
    files: Mapped[dict[str, Any]]


class Token(Base):
    """Who may submit to a shared board: the hash of a token, never the token. Not made from logs, so a rebuild keeps it."""

    __tablename__ = "tokens"
    name: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(unique=True)
    signer: Mapped[str | None]
    model: Mapped[str | None]
    created_at: Mapped[str]
    revoked_at: Mapped[str | None]


class Submission(Base):
    """A bundle that a shared board accepted: its SHA-256, the run in it, who signed it and whose token brought it. Kept by a rebuild."""

    __tablename__ = "submissions"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(unique=True)
    signer: Mapped[str]
    token: Mapped[str]
    at: Mapped[str]


KEPT: tuple[type[Base], ...] = (Token, Submission)
"""Tables that are no view of the run logs."""
