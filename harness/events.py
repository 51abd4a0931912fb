"""The run log: what a run did, appended to files that are never rewritten, and read back in order.

A run directory holds ``events/<writer>-<n>.jsonl`` (one JSON line an event) and ``blobs/<writer>-<n>.bin`` (token ids and
log-probabilities, see harness.blobs). One writer owns its files; many readers may follow them while they grow. A blob is written before
the line that names it, so a complete line means a complete record; only a partial last line is ever cut, and only by its own writer.

Steps: training steps count from 0, so ``step`` 10 is the eleventh update; a checkpoint or evaluation at ``step`` 10 stands before it. The
event ``rewind {"step": N}`` takes back what steps >= N had recorded. ``read_events`` shows the log as written, rewinds included (for
incremental readers, who ask ``takes_back``); ``current_events`` shows what still counts.

Not here: what the payloads mean (their writers and the leaderboard's ingest know) and any database.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.appendfile import Appender, WriterLock, locked
from harness.blobs import HEADER, decode_frame, encode_frame
from harness.errors import RunLogError

SCHEMA_VERSION = 1
ROTATE_BYTES = 64 * 2**20

_FILE = re.compile(r"(?P<writer>[A-Za-z0-9_.-]+)-(?P<n>\d+)\.jsonl")


class Kind(StrEnum):
    """What an event tells of."""

    RUN = "run"
    ATTEMPT = "attempt"
    JUDGEMENT = "judgement"
    GROUP = "group"
    CREDIT = "credit"
    STEP = "step"
    CHECKPOINT = "checkpoint"
    BEST = "best"  # the checkpoint of this step did best on validation tasks so far
    EVALUATION = "evaluation"
    DIAGNOSTIC = "diagnostic"
    REWIND = "rewind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the log. ``id`` depends only on writer, sequence number, kind and data; ``seq`` counts within the writer."""

    id: str
    kind: Kind
    writer: str
    seq: int
    time: str  # ISO 8601, UTC
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the log: bytes consumed of each event file. ``str`` and ``parse`` carry it through a database column."""

    offsets: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return json.dumps(dict(self.offsets), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Cursor:
        return cls(tuple(sorted(json.loads(text).items())))


class Recorder:
    """Appends events and blobs to one run directory; every record has reached the operating system when its call returns.

    One process, one thread, one ``writer`` name: a second recorder of the same name is refused. ``listener`` is told each event
    after it was recorded. Raises ``RunLogError`` when the disk
    takes no more; the log then ends with the last whole record.
    """

    def __init__(
        self,
        run_dir: Path,
        writer: str = "main",
        rotate_bytes: int = ROTATE_BYTES,
        listener: Callable[[Kind, Mapping[str, Any]], None] | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", writer):
            raise RunLogError(f"a writer's name is part of a file name: letters, digits, '_', '.' and '-' only, got {writer!r}")
        self._dir, self._writer, self._listener = run_dir, writer, listener
        self._lock = WriterLock(run_dir / "events" / f"{writer}.lock")
        self._events = Appender(run_dir / "events", writer, "jsonl", rotate_bytes, _whole_lines)
        self._blobs = Appender(run_dir / "blobs", writer, "bin", rotate_bytes, _whole_frames)
        self._seq = _last_seq(run_dir, writer) + 1

    def record(self, kind: Kind, payload: Mapping[str, Any]) -> str:
        """Append one event and return its id. Numbers that JSON lacks (NaN, infinities) are stored as null."""
        data = _to_json(payload, kind)
        digest = hashlib.blake2b(f"{self._writer}\x1f{self._seq}\x1f{kind}\x1f".encode() + data, digest_size=12).hexdigest()
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = f'{{"v":{SCHEMA_VERSION},"seq":{self._seq},"time":"{time}","id":"{digest}","kind":"{kind}","data":'
        self._events.append(head.encode() + data + b"}\n")
        self._seq += 1
        if self._listener is not None:
            self._listener(kind, payload)
        return digest

    def blob(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Append one frame and return its reference, to be named by the event recorded next."""
        frame = encode_frame(data)
        path, offset = self._blobs.append(frame)
        return {"file": f"blobs/{path.name}", "offset": offset, "length": len(frame)}

    def flush(self) -> None:
        """Nothing is held back (see the class): a killed process loses no record. ``sync`` is for power cuts."""

    def sync(self) -> None:
        """Force everything recorded so far onto the disk, blobs before the events that name them."""
        self._blobs.sync()
        self._events.sync()

    def close(self) -> None:
        self.sync()
        self._blobs.close()
        self._events.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def being_written(run_dir: Path) -> bool:
    """Whether a process is at work on a run: it holds the lock of the run's own writer, and loses it however it dies."""
    return locked(run_dir / "events" / "main.lock")


def finished(run_dir: Path) -> bool:
    """Whether the run's log ends with its finish."""
    if not (run_dir / "events").is_dir():
        return False
    phases = [event.data["phase"] for event in current_events(run_dir) if event.kind is Kind.RUN]
    return phases[-1:] == ["finished"]


def read_events(run_dir: Path, after: Cursor | None = None) -> Iterator[tuple[Cursor, Event]]:
    """Each event behind ``after`` with the cursor that stands behind it; ends at a line that is still being written.

    The order within a writer is that of recording; writers are merged by time. Raises ``RunLogError`` for a damaged line.
    """
    offsets = dict(after.offsets) if after else {}
    streams = [_writer_events(files, offsets.copy()) for files in _event_files(run_dir).values()]
    for name, end, event in heapq.merge(*streams, key=lambda item: (item[2].time, item[2].writer, item[2].seq)):
        offsets[name] = end
        yield Cursor(tuple(sorted(offsets.items()))), event


def current_events(run_dir: Path) -> Iterator[Event]:
    """The events that still count: those that a later rewind took back are left out, and so are the rewinds themselves."""
    rewinds = [(i, int(e.data["step"])) for i, (_, e) in enumerate(read_events(run_dir)) if e.kind is Kind.REWIND]
    gone: set[str] = set()  # attempts taken back, whose judgements go with them
    for i, (_, event) in enumerate(read_events(run_dir)):
        if event.kind is Kind.REWIND:
            continue
        step = min((step for place, step in rewinds if place > i), default=None)
        attempt = event.data.get("attempt_id")
        taken = step is not None and takes_back(step, event)
        if event.kind is Kind.ATTEMPT:
            (gone.add if taken else gone.discard)(str(attempt))
        if not taken and not (event.kind is Kind.JUDGEMENT and attempt in gone):
            yield event


def takes_back(step: int, earlier: Event) -> bool:
    """Whether ``rewind {"step": step}`` undoes an earlier event. Judgements follow their attempt, which the reader must look up."""
    made_at = earlier.data.get("step")
    if made_at is None:
        return False
    if earlier.kind in (Kind.CHECKPOINT, Kind.BEST, Kind.EVALUATION, Kind.DIAGNOSTIC) or earlier.data.get("purpose") == "eval":
        return int(made_at) > step  # made by the weights that stood before training step `step`
    return earlier.kind in (Kind.ATTEMPT, Kind.GROUP, Kind.CREDIT, Kind.STEP) and int(made_at) >= step


def read_blob(run_dir: Path, ref: Mapping[str, Any]) -> dict[str, Any]:
    """The data behind a blob reference. Raises ``RunLogError`` if its file is missing or the frame is torn or damaged."""
    path = run_dir / ref["file"]
    if path.parent != run_dir / "blobs":
        raise RunLogError(f"a blob reference names a file under blobs/, got {ref['file']!r}")
    where = f"{path} at byte {ref['offset']}"
    try:
        with path.open("rb") as file:
            file.seek(ref["offset"])
            frame = file.read(ref["length"])
    except FileNotFoundError as error:
        raise RunLogError(f"{path} is missing: the run directory was moved in part; copy it again from where the run was made") from error
    return decode_frame(frame, where)


def _event_files(run_dir: Path) -> dict[str, list[Path]]:
    """Event files of each writer, oldest first."""
    folder = run_dir / "events"
    found = sorted(
        (match["writer"], int(match["n"]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _FILE.fullmatch(path.name))
    )
    files: dict[str, list[Path]] = {}
    for writer, _, path in found:
        files.setdefault(writer, []).append(path)
    return files


def _writer_events(files: list[Path], offsets: Mapping[str, int]) -> Iterator[tuple[str, int, Event]]:
    for path in files:
        start = offsets.get(path.name, 0)
        with path.open("rb") as file:
            if file.seek(0, 2) < start:
                raise RunLogError(f"{path} is shorter than what was read of it before ({start} bytes): rebuild from the start of the log")
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end = start + len(line)
                yield path.name, end, _parse_line(line, path, start)
                start = end


def _parse_line(line: bytes, path: Path, offset: int) -> Event:
    try:
        raw = json.loads(line)
        if raw["v"] != SCHEMA_VERSION:
            raise RunLogError(f"{path}: schema version {raw['v']}, this harness reads {SCHEMA_VERSION}; use the one that made the run")
        match = _FILE.fullmatch(path.name)
        writer = match["writer"] if match else path.stem
        return Event(id=raw["id"], kind=Kind(raw["kind"]), writer=writer, seq=raw["seq"], time=raw["time"], data=raw["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunLogError(f"{path} at byte {offset}: not an event ({error}); the file was changed after it was written") from error


def _last_seq(run_dir: Path, writer: str) -> int:
    """Sequence number of the writer's last event, -1 before its first."""
    for path in reversed(_event_files(run_dir).get(writer, [])):
        last = None
        with path.open("rb") as file:
            for last in file:  # noqa: B007 - only the last line is wanted
                pass
        if last is not None:
            return _parse_line(last, path, 0).seq
    return -1


def _whole_lines(path: Path) -> int:
    """Bytes of a file up to the end of its last complete line."""
    content = path.read_bytes()
    return content.rfind(b"\n") + 1


def _whole_frames(path: Path) -> int:
    """Bytes of a file up to the end of its last complete frame."""
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        while len(header := file.read(HEADER.size)) == HEADER.size:
            following = end + HEADER.size + HEADER.unpack(header)[0]
            if following > size:
                break
            end = following
            file.seek(end)
    return end


def _to_json(payload: Mapping[str, Any], kind: Kind) -> bytes:
    try:
        text = _dump(payload)
    except TypeError as error:
        raise RunLogError(f"the payload of a {kind} event must be plain JSON data: {error}") from error
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates from a model's broken bytes: legal as JSON escapes, not as UTF-8
        return json.dumps(json.loads(text), separators=(",", ":")).encode()


def _dump(payload: Mapping[str, Any]) -> str:
    try:
        return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(payload), ensure_ascii=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
