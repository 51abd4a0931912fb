"""The receiving side of ``harness leaderboard submit``: parts of a bundle become a file, a verified file becomes a run on the board.

A submission is named by the SHA-256 of its bundle: sending it twice changes nothing, and a broken transfer goes on where it stopped.
Nothing is believed: the bundle must be signed and whole, its numbers must follow from its records, its run's name must be new.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from harness.errors import HarnessError
from leaderboard.bundles.container import Bundle, digest, unpack
from leaderboard.bundles.numbers import unfold
from leaderboard.bundles.verify import verify
from leaderboard.ingest import ingest_run
from leaderboard.schema import Run, Submission
from leaderboard.tokens import Grant

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,149}")
FORGET_SECONDS = 24 * 3600.0  # unfinished submissions that nobody went on with
UNPACKED = 16  # a bundle may unpack to so many times the size that may be sent


class Refused(HarnessError):
    """A submission that the board does not take; the message says why, ``status`` is the HTTP code."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """Where submissions are collected. Sizes in bytes; parts that were not finished count against ``most_partial`` files a token."""

    engine: Engine
    home: Path
    most_bytes: int = 256 * 2**20
    most_partial: int = 4

    def accepted(self, sha256: str) -> str | None:
        """The run that this bundle became, None if it has not been accepted."""
        with self.engine.connect() as connection:
            return connection.scalar(select(Submission.run_id).where(Submission.sha256 == sha256))

    def received(self, grant: Grant, sha256: str) -> int:
        """How many bytes of an unfinished bundle are here."""
        path = self._partial(grant, sha256)
        return path.stat().st_size if path.exists() else 0

    def add(self, grant: Grant, sha256: str, offset: int, part: bytes) -> int:
        """Append a part that starts at ``offset``; returns the bytes now here. Raises Refused where it does not fit on."""
        path = self._partial(grant, sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.iterdir():
            if time.time() - other.stat().st_mtime > FORGET_SECONDS:
                other.unlink(missing_ok=True)
        if not path.exists() and len(list(path.parent.iterdir())) >= self.most_partial:
            raise Refused(429, f"{self.most_partial} unfinished submissions of this token are waiting; finish one of them first")
        if offset + len(part) > self.most_bytes:
            path.unlink(missing_ok=True)
            raise Refused(413, f"a bundle may have {self.most_bytes} bytes here")
        with path.open("ab") as file:
            if file.tell() != offset:
                raise Refused(409, f"this part starts at byte {offset}, {file.tell()} bytes are here; go on from there")
            file.write(part)
            return file.tell()

    def finish(self, grant: Grant, sha256: str) -> str:
        """Verify the complete bundle and put its run on the board; returns the run's name. Raises Refused and forgets it otherwise."""
        path = self._partial(grant, sha256)
        content = path.read_bytes()
        path.unlink()
        if digest(content) != sha256:
            raise Refused(422, f"what arrived has SHA-256 {digest(content)}, announced was {sha256}; send it again")
        try:
            bundle = unpack(content, most=UNPACKED * self.most_bytes)
            report = verify(bundle)
        except HarnessError as error:
            raise Refused(422, str(error)) from error
        if report.problems:
            raise Refused(422, "the bundle does not hold what it claims: " + "; ".join(report.problems))
        self._check_rights(grant, bundle)
        return self._publish(grant, sha256, bundle, content)

    def _check_rights(self, grant: Grant, bundle: Bundle) -> None:
        if grant.signer is not None and bundle.signer != grant.signer:
            raise Refused(403, f"this token takes bundles signed by {grant.signer}; this one is signed by {bundle.signer}")
        model = bundle.manifest["claims"]["run"]["model"]
        if grant.model is not None and model != grant.model:
            raise Refused(403, f"this token takes rows of the model {grant.model!r}; this one is of {model!r}")
        if RUN_ID.fullmatch(bundle.run_id) is None:
            raise Refused(422, "a submitted run's name has letters, digits, '_', '.' and '-' only, at most 150")

    def _publish(self, grant: Grant, sha256: str, bundle: Bundle, content: bytes) -> str:
        """Claim the run's name, then bring the folder into place whole, then read it."""
        run_id, folder = bundle.run_id, self.home / "runs" / f"submitted-{sha256[:16]}"
        at = datetime.now(UTC).isoformat(timespec="seconds")
        row = {"sha256": sha256, "run_id": run_id, "signer": bundle.signer, "token": grant.name, "at": at}
        try:
            with self.engine.begin() as connection:
                if connection.scalar(select(Run.key).where(Run.run_id == run_id)) is not None:
                    raise Refused(409, f"a run {run_id} is on this board already; results are not replaced")
                connection.execute(insert(Submission).values(row))
        except IntegrityError as error:
            raise Refused(409, f"a run {run_id} is on this board already; results are not replaced") from error
        fresh = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        try:
            unfold(bundle.events, fresh)
            (fresh / "bundle.zip").write_bytes(content)
            fresh.rename(folder)
            ingest_run(self.engine, folder)
        except (HarnessError, OSError) as error:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            with self.engine.begin() as connection:
                connection.execute(delete(Submission).where(Submission.sha256 == sha256))
            raise Refused(422, f"the run could not be read: {error}") from error
        return run_id

    def _partial(self, grant: Grant, sha256: str) -> Path:
        """A folder a token; its name may hold anything, so it is hashed."""
        return self.home / "submissions" / digest(grant.name.encode())[:16] / sha256
