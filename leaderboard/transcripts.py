"""Text and tokens of one attempt, read from its run directory by offset. Everything here is untrusted: a model or a web page wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from harness.cipher import unseal
from harness.errors import DataError, RunLogError
from harness.events import read_blob
from leaderboard.legible import legible


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One sampled token: its id, its text, and the log-probability (nats) that the behaviour policy gave it."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """An attempt as it happened: ``data`` is its event's payload, ``spans`` the tokens of each turn (empty without a blob)."""

    data: Mapping[str, Any]
    spans: tuple[tuple[Token, ...], ...]
    missing: str = ""  # why the tokens cannot be shown, in words


def unsealed(data: Mapping[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    """The question and accepted answers of a set that is written in cipher; None where they were not sealed, or cannot be read."""
    try:
        question, gold = unseal(str(data["task_id"]), data["sealed"]) if data.get("sealed") else (None, ())
    except (DataError, ValueError, TypeError):
        return None
    return None if question is None else (legible(str(question)), tuple(legible(str(answer)) for answer in gold))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCredit:
    """What each sampled token of a trained attempt earned, in the order of sampling: advantage and importance ratio (Eq. 12)."""

    advantages: tuple[float, ...]
    ratios: tuple[float, ...]


MOST_SCANNED = 64 * 2**20  # bytes of log read in search of a step's credit event


def read_token_credit(folder: Path, place: str, attempt_id: str) -> TokenCredit | None:
    """The per-token arrays that the step's credit event names for an attempt (``blob`` in its row); None where it recorded none.

    The credit event follows the attempts of its step, in the same file or in the writer's next, so the search starts at the attempt's
    ``place``.
    """
    try:
        for line in _following(folder / "events", place):
            if b'"kind":"credit"' not in line[:200]:
                continue
            row = next((r for r in json.loads(line)["data"]["rows"] if r["attempt_id"] == attempt_id), None)
            if row is None or not row.get("blob"):
                return None
            arrays = read_blob(folder, row["blob"])
            return TokenCredit(advantages=tuple(arrays.get("advantages") or ()), ratios=tuple(arrays.get("ratios") or ()))
    except (OSError, ValueError, KeyError, RunLogError):
        return None  # the page then shows the attempt's means, which the database holds
    return None


def _following(events: Path, place: str) -> Iterator[bytes]:
    """The lines from ``place`` on, at most ``MOST_SCANNED`` bytes of them, and into the writer's later files."""
    name, _, offset = place.rpartition(":")
    writer, _, number = name.removesuffix(".jsonl").rpartition("-")
    start, scanned = int(offset), 0
    for n in count(int(number)):
        path = events / f"{writer}-{n}.jsonl"
        if not path.is_file():
            return
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                yield line
                scanned += len(line)
                if scanned >= MOST_SCANNED:
                    return
        start = 0


def read_transcript(folder: Path, place: str, blob: Mapping[str, Any] | None) -> Transcript:
    """The attempt whose event starts at ``place`` (``file:byte``). Raises RunLogError if the run directory is gone or changed."""
    name, _, offset = place.rpartition(":")
    path = folder / "events" / name
    try:
        with path.open("rb") as file:
            file.seek(int(offset))
            data = legible(json.loads(file.readline())["data"])
    except FileNotFoundError as error:
        raise RunLogError(
            f"{path} is missing: the run directory was moved or deleted; bring it back or run `harness leaderboard rebuild`"
        ) from error
    except (ValueError, KeyError) as error:
        raise RunLogError(f"{path} at byte {offset}: no event starts here; run `harness leaderboard rebuild`") from error
    if blob is None:
        return Transcript(data=data, spans=(), missing="no token arrays were recorded")
    try:
        return Transcript(data=data, spans=_spans(read_blob(folder, blob)))
    except RunLogError as error:
        return Transcript(data=data, spans=(), missing=str(error))


def _spans(arrays: Mapping[str, Any]) -> tuple[tuple[Token, ...], ...]:
    spans = arrays.get("spans") or []
    pieces = arrays.get("pieces") or [[f"[{i}]" for i in span["ids"]] for span in spans]
    return tuple(
        tuple(Token(id=i, text=legible(t), logprob=p) for i, t, p in zip(span["ids"], texts, span["logprobs"], strict=False))
        for span, texts in zip(spans, pieces, strict=False)
    )
