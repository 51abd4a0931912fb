"""Pages that were just made are served again: for two seconds, and to whoever asks while one request makes a page anew.

A lone visitor therefore never sees a page older than the pace at which logs are read; a crowd costs one page in two seconds per
address. Every page has an ETag, so a browser that has it gets 304. Only whole HTML pages of plain GETs are kept, in memory.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FRESH_SECONDS = 2.0
STALE_SECONDS = 30.0  # an older page is not served even while a new one is being made
MOST_BYTES = 64 * 2**20

Key = tuple[str, bytes, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer as it was sent, with its ETag and the time (s) when it was made."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    etag: str
    at: float


class PageCache:
    """ASGI middleware; one per application."""

    def __init__(self, app: ASGIApp, fresh_seconds: float = FRESH_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._pages: OrderedDict[Key, Page] = OrderedDict()
        self._bytes = 0
        self._making: set[Key] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].startswith(("/static/", "/api/")):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key = (scope["path"], scope["query_string"], headers.get("hx-request", ""))
        page, age = self._pages.get(key), 0.0
        if page is not None:
            self._pages.move_to_end(key)
            age = self._clock() - page.at
        if page is not None and (age < self._fresh_seconds or (key in self._making and age < STALE_SECONDS)):
            await _send_page(page, headers.get("if-none-match"), send)
            return
        self._making.add(key)
        try:
            await self._app(scope, receive, _Copy(self, key, headers.get("if-none-match"), send))
        finally:
            self._making.discard(key)

    def keep(self, key: Key, headers: list[tuple[bytes, bytes]], body: bytes) -> Page:
        """Remember an answer; the pages longest unasked for make room."""
        etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        page = Page(headers=tuple(headers), body=body, etag=etag, at=self._clock())
        before = self._pages.pop(key, None)
        self._bytes += len(body) - (0 if before is None else len(before.body))
        self._pages[key] = page
        while self._bytes > MOST_BYTES:
            self._bytes -= len(self._pages.popitem(last=False)[1].body)
        return page


class _Copy:
    """Passes an answer on; one that is a whole HTML page is kept and sent with its ETag."""

    def __init__(self, cache: PageCache, key: Key, known: str | None, send: Send) -> None:
        self._cache, self._key, self._known, self._send = cache, key, known, send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_page(message):
            self._start = message
            return
        if self._start is None:
            await self._send(message)
        elif message.get("more_body"):  # streamed: too long or too live to keep
            start, self._start = self._start, None
            await self._send(start)
            await self._send(message)
        else:
            page = self._cache.keep(self._key, self._start["headers"], message.get("body", b""))
            await _send_page(page, self._known, self._send)


def _is_page(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    return start["status"] == 200 and headers.get("content-type", "").startswith("text/html") and "set-cookie" not in headers


async def _send_page(page: Page, known: str | None, send: Send) -> None:
    """The page, or 304 to a browser that has it. ``no-cache``: kept by browsers, but asked about each time."""
    unchanged = known is not None and page.etag in known
    start: Message = {"type": "http.response.start", "status": 304 if unchanged else 200, "headers": list(page.headers)}
    headers = MutableHeaders(scope=start)
    headers["ETag"] = page.etag
    headers["Cache-Control"] = "no-cache"
    if unchanged:
        del headers["content-length"]
    await send(start)
    await send({"type": "http.response.body", "body": b"" if unchanged else page.body})
