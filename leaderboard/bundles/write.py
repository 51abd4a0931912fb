"""``harness leaderboard bundle``: one run as a signed file that anyone can check offline."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.errors import HarnessError, RunLogError
from leaderboard.bundles.container import pack
from leaderboard.bundles.keys import seal
from leaderboard.bundles.numbers import numbers_of
from leaderboard.bundles.records import records_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was put into a bundle."""

    run_id: str
    events: int
    sealed: int
    scores: int


def write_bundle(run_dir: Path, out: Path, key: Ed25519PrivateKey, secret: bytes) -> Written:
    """Write the bundle of a run: claims, events in the clear, transcripts sealed with ``secret``, all signed with ``key``."""
    if not (run_dir / "events").is_dir():
        raise RunLogError(f"{run_dir} is no run directory: it holds no events/ folder")
    records = list(records_of(run_dir))
    if not records:
        raise RunLogError(f"{run_dir}: the log is empty, there is nothing to bundle")
    events = "".join(record.public + "\n" for record in records).encode()
    whole = "".join(record.whole for record in records if record.whole is not None).encode()
    with tempfile.TemporaryDirectory() as folder:
        numbers = numbers_of(events, Path(folder))
    manifest = {"run_id": numbers.run_id, "files": _hashes(run_dir), "claims": numbers.claims}
    transcripts = seal(secret, zlib.compress(whole), numbers.run_id.encode())
    partial = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(pack(manifest, events, transcripts, key))
        partial.replace(out)
    except OSError as error:
        raise HarnessError(f"cannot write {out}: {error.strerror}") from error
    sealed = sum(record.whole is not None for record in records)
    return Written(run_id=numbers.run_id, events=len(records), sealed=sealed, scores=len(numbers.claims["scores"]))


def _hashes(run_dir: Path) -> dict[str, Any]:
    """SHA-256 of the run's settings, log and token arrays, so that a bundle names the very files that it was made from."""
    found = [run_dir / "config.json", *sorted((run_dir / "events").glob("*.jsonl")), *sorted((run_dir / "blobs").glob("*.bin"))]
    return {str(path.relative_to(run_dir)): _file_hash(path) for path in found if path.is_file()}


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
