"""What the store hands out: plain rows of runs, groups, evaluations and samples, free of any database session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run without its rows. Times are ISO 8601 in UTC."""

    key: int
    run_id: str
    folder: str
    command: str
    model: str
    method: str
    seed: int | None
    recipe: str
    status: str
    error: str | None
    parent: str | None
    config: Mapping[str, Any] = field(repr=False)
    changed: Mapping[str, Any] | None = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)
    started_at: str | None
    updated_at: str | None
    finished_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionInfo:
    """Who signed the bundle that a run came in, and when the board took it (ISO 8601)."""

    signer: str
    at: str


class GroupInfo(NamedTuple):
    """One group of a run, as the rescue map draws it; read by the thousand, hence a plain tuple."""

    step: int
    task_id: str
    outcome: str
    level: int | None
    max_level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationInfo:
    """One evaluation of a run with its headline score, None while it is not finished."""

    evaluation_id: str
    benchmark: str
    split: str
    step: int | None
    n: int
    judge: str
    comparability: str
    generated_tokens_total: int | None
    finished: bool
    score: float | None
    low: float | None
    high: float | None
    coverage: float | None  # share of the questions with a verdict
    truncated: float  # questions whose answers were cut off and count as wrong
    code_parts: Mapping[str, Any] | None  # what the comparability code hashes, and in words what departs from the published benchmark
    judged: int | None  # questions with a verdict so far; None once it is finished


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosticInfo:
    """One diagnostic of a run; ``charts`` in the plain form of ``harness.figures``."""

    name: str
    step: int
    title: str
    summary: tuple[str, ...]
    charts: tuple[Mapping[str, Any], ...]
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleInfo:
    """One attempt in a list, with its current verdict."""

    attempt_id: str
    task_id: str
    question: str
    gold: tuple[str, ...] | None
    tags: Mapping[str, str]
    purpose: str
    evaluation_id: str | None
    benchmark: str | None
    step: int | None
    level: int
    position: int
    status: str
    answer: str | None
    turns: int | None
    generated_tokens: int | None
    seconds: float | None
    value: float | None
    judge: str | None
    verdict: str | None
    layer: str | None
    detail: str | None
    place: str
    blob: Mapping[str, Any] | None
    advantage: float | None
    ratio_mean: float | None
    trained: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFilter:
    """Which attempts of a run to list; None leaves a criterion open. ``verdict``: right, wrong or none."""

    purpose: str | None = None
    evaluation: str | None = None
    task: str | None = None
    step: int | None = None
    level: int | None = None
    verdict: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictInfo:
    """One judge's verdict on an attempt; ``current`` marks the one that counts."""

    judge: str
    current: bool
    value: float | None
    status: str
    layer: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeInfo:
    """How often a judge accepted, refused and could not decide."""

    judge: str
    accepted: int
    refused: int
    undecided: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementInfo:
    """Two judges on the attempts that both decided."""

    a: str
    b: str
    both_right: int
    both_wrong: int
    only_a: int
    only_b: int
