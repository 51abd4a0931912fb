"""The sending side: a bundle goes to a shared board in parts; asked again, it goes on where it stopped, or finds itself there already."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from harness.errors import DataError, HarnessError, UsageError
from leaderboard.bundles.container import digest

PART_BYTES = 4 * 2**20
TRIES = 5
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """Where the run now stands, how many bytes this call sent, and whether it was there before."""

    address: str
    sent: int
    was_there: bool


def submit(
    url: str,
    bundle: Path,
    token: str,
    transport: httpx.BaseTransport | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Submitted:
    """Send a bundle to the board at ``url``. Raises HarnessError with the board's own words where it is refused."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise UsageError(f"{url!r} is no address of a board: expected e.g. https://board.example.org")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UsageError(f"{url} would carry the token in the clear; use https")
    try:
        content = bundle.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {bundle}: {error.strerror}") from error
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url.rstrip("/"), headers=headers, transport=transport, timeout=60.0) as client:
        return _Transfer(client, content, pause).run()


class _Transfer:
    """One bundle on its way; a lost connection is tried again, with pauses that double."""

    def __init__(self, client: httpx.Client, content: bytes, pause: Callable[[float], None]) -> None:
        self._client, self._content, self._pause = client, content, pause
        self._path = f"/api/submissions/{digest(content)}"
        self._sent = 0

    def run(self) -> Submitted:
        failures = 0
        while True:
            before = self._sent
            try:
                return self._send()
            except (httpx.TransportError, _Again) as error:
                failures = 1 if self._sent > before else failures + 1
                if failures == TRIES:
                    raise HarnessError(
                        f"the board could not be reached: {error}. Run the same command again: it goes on where this one stopped."
                    ) from error
                self._pause(2.0**failures / 2)

    def _send(self) -> Submitted:
        answer = self._answer(self._client.get(self._path))
        was_there = "address" in answer
        while "address" not in answer:
            offset = int(answer["received"])
            part = self._content[offset : offset + PART_BYTES]
            headers = {"Upload-Offset": str(offset), "Upload-Length": str(len(self._content))}
            answer = self._answer(self._client.patch(self._path, content=part, headers=headers))
            self._sent += len(part)
        return Submitted(address=str(self._client.base_url).rstrip("/") + answer["address"], sent=self._sent, was_there=was_there)

    def _answer(self, response: httpx.Response) -> dict[str, str]:
        try:
            told = response.json()
        except ValueError:
            told = {"error": f"it answered with status {response.status_code} and no JSON; does it accept submissions?"}
        if response.is_success and isinstance(told, dict) and ("address" in told or "received" in told):
            return told
        why = str(told.get("error", told)) if isinstance(told, dict) else str(told)
        if response.status_code in (409, 429, 502, 503, 504) and "on this board already" not in why:
            raise _Again(why)
        raise HarnessError(f"the board refused the bundle: {why}")


class _Again(Exception):
    """The board asks for another try."""
