"""One cache of rendered pages, each kept with the state of the database that it shows.

A page is served again for two seconds without a question, and after that for as long as the state has not changed. When it has, one
thread makes the page anew, whatever the number of readers; they wait a moment for it, and get the page before if it takes longer.
So a change that is slow to draw delays nobody, and a page that is quick to draw is never old. A reload waits for the new page. Every
page has an ETag.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock

from starlette.requests import Request
from starlette.responses import Response

FRESH_SECONDS = 2.0
PATIENCE_SECONDS = 0.06  # how long a reader of an outdated page waits for the new one
STALE_SECONDS = 30.0  # a page that was right longer ago than this is not served: its reader waits for the new one
MOST_BYTES = 64 * 2**20
MAKERS = 4  # threads that make pages

Key = tuple[str, bytes]
"""Path and query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One rendered page, the state of the database that it shows, and when (s) it was last known to be right."""

    body: bytes
    etag: str
    state: str
    right_at: float


class PageCache:
    """Makes, keeps and serves the pages of one application."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pages: OrderedDict[Key, Page] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._making: dict[Key, Future[Page]] = {}
        self._makers = ThreadPoolExecutor(MAKERS, thread_name_prefix="pages")

    def kept(self, make: Callable[[Request], str], state: Callable[[], str]) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that answers with the HTML of ``make``; equal values of ``state`` mean an equal page. What they raise is raised."""

        async def endpoint(request: Request) -> Response:
            key = (request.scope["path"], request.scope["query_string"])  # not request.url, which drops newlines and splits at "?"
            with self._lock:
                page = self._pages.get(key)
                if page is not None:
                    self._pages.move_to_end(key)
            age = float("inf") if page is None else self._clock() - page.right_at
            if page is None or age >= FRESH_SECONDS:
                making = asyncio.wrap_future(self._renewed(key, request, make, state))
                if page is None or age >= STALE_SECONDS or _insists(request):
                    page = await asyncio.shield(making)
                else:
                    making.add_done_callback(_seen)
                    await asyncio.wait({making}, timeout=PATIENCE_SECONDS)
                    page = making.result() if making.done() else page
            return _answer(page, request.headers.get("if-none-match"))

        return endpoint

    def _renewed(self, key: Key, request: Request, make: Callable[[Request], str], state: Callable[[], str]) -> Future[Page]:
        """The making of this page that is under way, else a new one."""
        with self._lock:
            if key not in self._making:
                self._making[key] = self._makers.submit(self._renew, key, request, make, state)
            return self._making[key]

    def _renew(self, key: Key, request: Request, make: Callable[[Request], str], state: Callable[[], str]) -> Page:
        try:
            now_state, at, before = state(), self._clock(), self._pages.get(key)
            if before is not None and before.state == now_state:
                page = replace(before, right_at=at)
            else:
                body = make(request).encode()
                etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
                page = Page(body=body, etag=etag, state=now_state, right_at=at)
            self._keep(key, page)
            return page
        finally:
            with self._lock:
                del self._making[key]

    def _keep(self, key: Key, page: Page) -> None:
        """Remember a page; those longest unasked for make room."""
        with self._lock:
            before = self._pages.pop(key, None)
            self._bytes += len(page.body) - (0 if before is None else len(before.body))
            self._pages[key] = page
            while self._bytes > MOST_BYTES:
                self._bytes -= len(self._pages.popitem(last=False)[1].body)


def _insists(request: Request) -> bool:
    """Whether the reader asks for the newest page, as a reload does and the script that follows a run."""
    wanted = request.headers.get("cache-control", "")
    return "no-cache" in wanted or "max-age=0" in wanted


def _seen(making: asyncio.Future[Page]) -> None:
    """A making that fails after its readers have gone is no news: the next reader's is tried again, and raises."""
    if not making.cancelled():
        making.exception()


def _answer(page: Page, known: str | None) -> Response:
    """The page, or 304 to a browser that has it. ``no-cache``: kept by browsers, but asked about each time."""
    headers = {"ETag": page.etag, "Cache-Control": "no-cache"}
    if known is not None and page.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(page.body, headers=headers, media_type="text/html; charset=utf-8")
