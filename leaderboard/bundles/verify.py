"""``harness verify BUNDLE``: is it whole, who signed it, and do its records give the numbers that it claims? Works offline."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, HarnessError
from harness.events import Kind
from leaderboard.bundles.container import Bundle, unpack
from leaderboard.bundles.keys import parse_public, public_name, unseal
from leaderboard.bundles.numbers import differences, lines_of, numbers_of
from leaderboard.bundles.records import event_id, payload_of, public_data

MOST_TOLD = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found. ``problems`` empty: the claims follow from the records. ``trusted`` None: nobody said whom to trust."""

    run_id: str
    signer: str
    trusted: bool | None
    claims: Any
    events: int
    transcripts: int | None  # opened and compared; None without the key
    problems: tuple[str, ...]


def verify_file(path: Path, secret: bytes | None = None, trust: Sequence[str] = ()) -> Report:
    """Verify the bundle at ``path``; ``trust`` holds public keys. Raises DataError if it cannot be read at all."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return verify(unpack(content), secret, trust)


def verify(bundle: Bundle, secret: bytes | None = None, trust: Sequence[str] = ()) -> Report:
    """Check hashes, signature and event ids, make every number again, and with ``secret`` compare the transcripts."""
    known = {public_name(parse_public(one)) for one in trust}
    problems, claims, events, opened = list(bundle.problems), bundle.manifest.get("claims"), 0, None
    trusted = bundle.signer in known and not problems if known else None
    if known and bundle.signer not in known:
        problems.append(f"signed by {bundle.signer[:100]}, which is none of the keys that you trust")
    try:
        lines = list(lines_of(bundle.events))
        events = len(lines)
        problems += _changed_events(lines)
        if secret is not None:
            opened, found = _transcripts(bundle, lines, secret)
            problems += found
        with tempfile.TemporaryDirectory() as folder:
            numbers = numbers_of(bundle.events, Path(folder))
        if numbers.run_id != bundle.run_id:
            problems.append(f"run_id: claimed {bundle.run_id!r}, the records are of {numbers.run_id!r}")
        problems += differences(claims, numbers.claims)
    except HarnessError as error:
        problems.append(str(error))
    return Report(
        run_id=bundle.run_id,
        signer=bundle.signer,
        trusted=trusted,
        claims=claims,
        events=events,
        transcripts=opened,
        problems=_shortened(problems),
    )


def _changed_events(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Events shown whole whose id does not fit their content. Attempts, and verdicts on gated questions, are shown in part."""
    problems = []
    for number, line in enumerate(lines, start=1):
        data = line["data"]
        if line["kind"] == Kind.ATTEMPT or (line["kind"] == Kind.JUDGEMENT and data.get("detail") == ""):
            continue
        if not _fits(line):
            problems.append(f"events.jsonl, line {number}: this {str(line['kind'])[:20]} event was changed after it was recorded")
    return problems


def _transcripts(bundle: Bundle, lines: Sequence[dict[str, Any]], secret: bytes) -> tuple[int, list[str]]:
    """Open the transcripts; every sealed event must have its id, and show in the clear exactly what the bundle shows."""
    try:
        text = zlib.decompress(unseal(secret, bundle.transcripts, bundle.run_id.encode())).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"the transcripts cannot be unpacked: {error}") from error
    whole = {json.loads(line)["id"]: line for line in text.split("\n") if line}
    problems, opened, gated = [], 0, set()
    for number, line in enumerate(lines, start=1):
        kind, raw = str(line["kind"]), whole.get(line["id"])
        data = line["data"] if raw is None else json.loads(raw)["data"]
        if kind == Kind.ATTEMPT and data.get("gold") is None:
            gated.add(str(data.get("attempt_id")))
        if raw is None:
            problems += [f"events.jsonl, line {number}: its transcript is missing"] if kind == Kind.ATTEMPT else []
            problems += [] if kind == Kind.ATTEMPT or _fits(line) else [f"events.jsonl, line {number}: changed after it was recorded"]
            continue
        opened += 1
        if event_id(line["writer"], line["seq"], kind, payload_of(raw)) != line["id"]:
            problems.append(f"events.jsonl, line {number}: its transcript was changed after it was recorded")
        if public_data(Kind(kind), data, gated) != line["data"]:
            problems.append(f"events.jsonl, line {number}: what it shows is not what its transcript says")
    return opened, problems


def _fits(line: dict[str, Any]) -> bool:
    """Whether an event shown whole has the id that its recorder gave it; text with half surrogate pairs is recorded as escapes."""
    payloads = (json.dumps(line["data"], ensure_ascii=ascii_only, separators=(",", ":")) for ascii_only in (False, True))
    ids = (event_id(line["writer"], line["seq"], str(line["kind"]), text.encode("utf-8", "surrogatepass")) for text in payloads)
    return line["id"] in ids


def _shortened(problems: Sequence[str]) -> tuple[str, ...]:
    rest = len(problems) - MOST_TOLD
    return (*problems[:MOST_TOLD], f"and {rest} more") if rest > 0 else tuple(problems)
