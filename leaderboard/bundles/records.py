"""Which part of a run's log a bundle shows, and which part it seals. Pure.

In the clear: settings, provenance, which tasks were tried, every verdict, training numbers. Sealed, because published questions and
answers end up in training data and gated ones may not be published at all: questions, accepted answers, answers, hints and
turns, and what a judge wrote about a gated question. Token arrays (ids, log-probabilities, ratios) stay with the run: ids are the
sealed text in other words, and they are many times the size of all the rest. After a submit the sample page therefore shows an
attempt's advantage and mean ratio, which its credit event holds, and not each token's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.events import SCHEMA_VERSION, Cursor, Event, Kind, read_events

SEALED_TEXT = "(in the bundle's sealed transcripts)"
SEALED_FIELDS: Mapping[str, Any] = {
    "question": SEALED_TEXT,
    "gold": None,
    "sealed": None,
    "answer": None,
    "detail": "",
    "turns": [],
    "hint": None,
    "blob": None,
}
"""Fields of an attempt that are sealed, and what stands in their place."""
SEALED_OF_A_GATED_VERDICT: Mapping[str, Any] = {"detail": "", "evidence": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event as a bundle shows it (``public``, a JSON line) and as the run wrote it (``whole``; None where nothing was sealed)."""

    public: str
    whole: str | None


def records_of(run_dir: Path) -> Iterator[Record]:
    """Every event of a run's log, in the order in which it is read."""
    gated: set[str] = set()
    before = Cursor()
    for after, event in read_events(run_dir):
        line = _line_at(run_dir, before, after)
        before = after
        if event.kind is Kind.ATTEMPT and event.data.get("gold") is None:
            gated.add(str(event.data["attempt_id"]))
        data = public_data(event.kind, event.data, gated)
        yield Record(public=public_line(event, data), whole=None if data == event.data else line)


def public_data(kind: Kind, data: Mapping[str, Any], gated: set[str]) -> Mapping[str, Any]:
    """The part of a payload that is shown; ``gated`` holds the ids of attempts at questions whose answers are not."""
    if kind is Kind.ATTEMPT:
        return {**data, **{name: value for name, value in SEALED_FIELDS.items() if name in data}}
    if kind is Kind.JUDGEMENT and str(data.get("attempt_id")) in gated:
        return {**data, **{name: value for name, value in SEALED_OF_A_GATED_VERDICT.items() if name in data}}
    return data


def public_line(event: Event, data: Mapping[str, Any]) -> str:
    """An event as a line of the bundle: like the log's, with its writer."""
    row = {"v": SCHEMA_VERSION, "seq": event.seq, "time": event.time, "id": event.id, "kind": event.kind, "writer": event.writer}
    return json.dumps({**row, "data": data}, ensure_ascii=True, separators=(",", ":"))


def event_id(writer: str, seq: int, kind: str, payload: bytes) -> str:
    """The id that ``harness.events.Recorder`` gives an event of this payload (its JSON as written)."""
    return hashlib.blake2b(f"{writer}\x1f{seq}\x1f{kind}\x1f".encode() + payload, digest_size=12).hexdigest()


def payload_of(line: str) -> bytes:
    """The payload's JSON inside a line of a run log, byte for byte."""
    return line.rstrip("\n").partition('"data":')[2].encode()[:-1]


def _line_at(run_dir: Path, before: Cursor, after: Cursor) -> str:
    """The log's own line between two neighbouring cursors."""
    seen = dict(before.offsets)
    name, end = next((name, end) for name, end in after.offsets if seen.get(name, 0) != end)
    with (run_dir / "events" / name).open("rb") as file:
        file.seek(seen.get(name, 0))
        return file.read(end - seen.get(name, 0)).decode()
