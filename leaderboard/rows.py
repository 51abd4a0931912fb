"""What each event of a run log becomes: table rows as plain mappings. Pure; it touches neither files nor the database.

Payload keys are the run log's contract (``harness.events``). Transcripts and token arrays stay in the log: an attempt's row only
keeps where to find them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness.events import Event
from leaderboard.legible import legible
from leaderboard.schema import (
    Attempt,
    Base,
    BenchmarkVersion,
    Checkpoint,
    Credit,
    Diagnostic,
    Evaluation,
    Group,
    Histogram,
    Judgement,
    Method,
    Model,
    Provenance,
    Step,
    Task,
    Turn,
)

Row = tuple[type[Base], dict[str, Any]]

NOT_A_RECIPE = frozenset(
    {
        *("seed", "out", "resume", "home", "data", "dry_run"),
        *("device", "threads", "gpu_memory", "cpu_cache_gib", "ranks", "zero_stage", "offload", "microbatch_tokens", "logits_mb"),
        *("replicas", "gradient_checkpointing", "evaluate_every", "checkpoint_every", "keep_checkpoints"),
    }
)
"""Settings, by the last part of their name, that two seeds of one recipe may differ in."""

COMPLETION = {"started": "started", "finished": "finished", "failed": "failed"}


def rows_of(event: Event, place: str) -> Iterable[Row]:
    """Rows of one event, without the run they belong to; ``place`` is where the log holds it."""
    make = MAKERS.get(str(event.kind))
    return () if make is None else ((table, legible(row)) for table, row in make(event, place))


def run_columns(event: Event) -> dict[str, Any]:
    """Columns of ``runs`` that a run event settles; a second ``started`` (a resume) clears what the last end left."""
    data, phase = event.data, COMPLETION[event.data["phase"]]
    columns: dict[str, Any] = {"status": phase, "error": legible(data.get("error")), "updated_at": event.time}
    columns["finished_at"] = None if phase == "started" else event.time
    for name in ("command", "model", "method", "seed", "parent", "config", "provenance"):
        if data.get(name) not in (None, "", {}):  # the closing event may leave out what the opening one said
            columns[name] = legible(data[name])
    if data.get("changed") is not None:
        columns["changed"] = data["changed"]
    if data.get("config"):
        columns["recipe"] = data.get("recipe") or recipe(data["config"])
    if phase == "started":
        columns["started_at"] = event.time
    return columns


def run_rows(event: Event) -> Iterable[Row]:
    """Rows beside ``runs`` that a starting run settles: its provenance, its weights, its recipe. Provenance lacks the run's key."""
    data = legible(event.data)
    config, origin = data.get("config") or {}, data.get("provenance") or {}
    if not config:
        return
    if data.get("model"):
        yield Model, {"name": data["model"], "weights": str(config.get("model") or data["model"])}
    if data.get("method"):
        name = data.get("recipe") or recipe(config)
        yield Method, {"recipe": name, "name": data["method"], "settings": _settings_of_recipe(config)}
    if origin:
        row = {"config_hash": _hash(config), "seed": data.get("seed"), **{k: origin.get(k) for k in ("git_sha", "python")}}
        yield Provenance, row | {k: _mapping(origin.get(k)) for k in ("packages", "hardware")}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def recipe(config: Mapping[str, Any]) -> str:
    """Short hash of the settings without the seed: runs that share it are repetitions of one recipe."""
    return _hash(_settings_of_recipe(config))[:12]


def _settings_of_recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in flatten(config).items() if k.rsplit(".", 1)[-1] not in NOT_A_RECIPE}


def _attempt(event: Event, place: str) -> Iterable[Row]:
    data, usage = event.data, event.data.get("usage") or {}
    question = {k: data.get(k) for k in ("task_id", "question", "web", "gold", "tags")}
    key = _hash(question)[:32]
    yield Task, {"key": key, **question, "web": data.get("web") or "", "tags": data.get("tags") or {}}
    row = {k: data.get(k) for k in ("attempt_id", "task_id", "purpose", "evaluation_id", "step", "answer", "blob")}
    row |= {k: usage.get(k) for k in ("turns", "tool_calls", "tool_errors", "prompt_tokens", "generated_tokens")}
    row |= {"confidence": _number(data.get("confidence"))}
    row |= {"seconds": _number(usage.get("seconds")), "status": data["status"], "detail": data.get("detail") or ""}
    yield Attempt, row | {"task": key, "level": data.get("level") or 0, "position": data.get("index") or 0, "place": place}
    for number, turn in enumerate(data.get("turns") or []):
        tools = ",".join(str(action.get("name")) for action in turn.get("actions") or [])
        read = sum(len(str(seen)) for seen in turn.get("observations") or [])
        counts = {"tool_errors": int(turn.get("tool_errors") or 0), "written": len(turn.get("text") or ""), "read": read}
        yield Turn, {"attempt_id": data["attempt_id"], "number": number, "tools": tools, **counts}


def _judgement(event: Event, place: str) -> Iterable[Row]:
    data = event.data
    row = {"attempt_id": data["attempt_id"], "judge": data.get("judge") or "", "value": _number(data.get("value"))}
    yield Judgement, row | {"status": data["status"], "layer": data.get("layer") or "", "detail": data.get("detail") or ""}


def _credit(event: Event, place: str) -> Iterable[Row]:
    for row in event.data["rows"]:
        columns = {"attempt_id": row["attempt_id"], "step": event.data["step"], "tokens": row.get("tokens")}
        columns |= {k: _number(row.get(k)) for k in ("advantage", "ratio_mean")}
        yield Credit, columns | {"guided": bool(row.get("guided")), "trained": bool(row.get("trained"))}


def _group(event: Event, place: str) -> Iterable[Row]:
    data = event.data
    row = {k: data.get(k) for k in ("group_id", "step", "task_id", "outcome", "level")}
    row |= {"max_level": data.get("max_level") or 0, "probes": data.get("probes") or []}
    yield Group, row | {"generated_tokens": data.get("generated_tokens") or 0}


def _step(event: Event, place: str) -> Iterable[Row]:
    step = event.data["step"]
    for name, value in (event.data.get("metrics") or {}).items():
        yield Step, {"step": step, "name": name, "value": _number(value)}
    for name, bins in (event.data.get("histograms") or {}).items():
        yield Histogram, {"step": step, "name": name, "edges": list(bins["edges"]), "counts": list(bins["counts"])}


def _evaluation(event: Event, place: str) -> Iterable[Row]:
    data = event.data
    row = {k: data.get(k) for k in ("evaluation_id", "benchmark", "step", "seed", "generated_tokens_total")}
    row |= {k: data.get(k) or "" for k in ("split", "judge", "model", "method", "comparability")}
    departs = {"departs": "; ".join(data["departs"])} if data.get("departs") else {}  # kept with the parts: words for the same question
    row |= {"comparability_parts": (data.get("comparability_parts") or {}) | departs}
    yield Evaluation, row | {"n": data.get("n") or 0, "finished": data["phase"] == "finished", "at": event.time}
    version = {"benchmark": data["benchmark"], "split": data.get("split") or "", "questions": data.get("n") or 0}
    yield BenchmarkVersion, version | {"data": str((data.get("comparability_parts") or {}).get("data") or "")}


def _diagnostic(event: Event, place: str) -> Iterable[Row]:
    yield Diagnostic, {**{k: event.data[k] for k in ("name", "step", "title", "summary", "charts", "file")}, "at": event.time}


def _checkpoint(event: Event, place: str) -> Iterable[Row]:
    yield Checkpoint, {k: event.data[k] for k in ("step", "folder", "files")}


MAKERS: Mapping[str, Callable[[Event, str], Iterable[Row]]] = {
    "attempt": _attempt,
    "judgement": _judgement,
    "credit": _credit,
    "group": _group,
    "step": _step,
    "evaluation": _evaluation,
    "checkpoint": _checkpoint,
    "diagnostic": _diagnostic,
}


def _mapping(value: Any) -> dict[str, Any]:
    """``value`` as an object: a machine may be described in words."""
    return dict(value) if isinstance(value, Mapping) else {} if value is None else {"words": str(value)}


def _number(value: Any) -> float | None:
    """A finite float, or None: JSON logs may hold null, and no table or chart has a use for NaN."""
    return float(value) if value is not None and math.isfinite(value) else None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
