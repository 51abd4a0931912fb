"""The address that takes submissions: ``/api/submissions/<sha256>``, with a token, in parts, within limits. Off unless asked for.

GET says how much is here, PATCH adds a part at ``Upload-Offset`` of ``Upload-Length`` bytes; the part that completes the bundle gets
201 with the run's address, or the reason why it was refused. Every answer is JSON.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harness.errors import HarnessError
from leaderboard.submissions import Inbox, Refused
from leaderboard.tokens import Grant, grant_of

SHA256 = re.compile(r"[0-9a-f]{64}")
PART_BYTES = 4 * 2**20
MOST_CALLERS = 10_000


@dataclass(slots=True, kw_only=True)
class RateLimit:
    """A token bucket a caller: ``burst`` requests at once, ``a_second`` on average. Remembers the last ``MOST_CALLERS`` callers."""

    burst: float = 60.0
    a_second: float = 2.0
    clock: Callable[[], float] = time.monotonic
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait(self, caller: str) -> float:
        """Seconds until this caller may ask again; 0 counts the request."""
        now = self.clock()
        left, at = self._left.pop(caller, (self.burst, now))
        left = min(self.burst, left + (now - at) * self.a_second)
        self._left[caller] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > MOST_CALLERS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self.a_second


class Submissions:
    """The handlers over one inbox."""

    def __init__(self, inbox: Inbox, limit: RateLimit | None = None) -> None:
        self._inbox = inbox
        self._limit = limit or RateLimit()

    def routes(self) -> list[Route]:
        return [Route("/api/submissions/{sha256}", self.answer, methods=["GET", "PATCH"])]

    async def answer(self, request: Request) -> Response:
        """One request; whatever is refused says why and what would be accepted."""
        try:
            wait = self._limit.wait(request.client.host if request.client else "")
            if wait:
                raise Refused(429, f"too many requests; try again in {wait:.0f} s")
            grant, sha256 = await self._grant(request), request.path_params["sha256"]
            if SHA256.fullmatch(sha256) is None:
                raise Refused(404, "a submission is named by the SHA-256 of its bundle, 64 hex digits")
            run_id = await run_in_threadpool(self._inbox.accepted, sha256)
            if run_id is not None:
                return _accepted(run_id, 200)
            if request.method == "GET":
                return JSONResponse({"received": await run_in_threadpool(self._inbox.received, grant, sha256)})
            return await self._take(request, grant, sha256)
        except Refused as refusal:
            headers = {"Retry-After": str(int(wait) + 1)} if refusal.status == 429 else {}
            headers |= {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
            return JSONResponse({"error": str(refusal)}, status_code=refusal.status, headers=headers)

    async def _grant(self, request: Request) -> Grant:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = await run_in_threadpool(grant_of, self._inbox.engine, token) if scheme.lower() == "bearer" and token else None
        if grant is None:
            raise Refused(401, "a token of this board is needed; its operator makes one with `harness leaderboard token create NAME`")
        return grant

    async def _take(self, request: Request, grant: Grant, sha256: str) -> Response:
        offset, length = (_count(request, name) for name in ("upload-offset", "upload-length"))
        if length > self._inbox.most_bytes:
            raise Refused(413, f"a bundle may have {self._inbox.most_bytes} bytes here, this one has {length}")
        part = await _body(request)
        if offset + len(part) > length:
            raise Refused(422, f"{offset + len(part)} bytes were sent of a bundle that has {length}")
        received = await run_in_threadpool(self._inbox.add, grant, sha256, offset, part)
        if received < length:
            return JSONResponse({"received": received}, status_code=202)
        try:
            return _accepted(await run_in_threadpool(self._inbox.finish, grant, sha256), 201)
        except FileNotFoundError as error:
            raise Refused(409, "another request is finishing this submission; ask for it again in a moment") from error
        except HarnessError as error:
            raise error if isinstance(error, Refused) else Refused(422, str(error)) from error


def _accepted(run_id: str, status: int) -> Response:
    return JSONResponse({"run": run_id, "address": f"/runs/{run_id}"}, status_code=status)


def _count(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not text.isdecimal() or len(text) > 15:
        raise Refused(400, f"the header {header} must be a number of bytes, got {text[:40]!r}")
    return int(text)


async def _body(request: Request) -> bytes:
    """At most PART_BYTES, whatever the headers promise."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > PART_BYTES:
            raise Refused(413, f"a part may have {PART_BYTES} bytes; send the bundle in several")
        parts.append(part)
    return b"".join(parts)
