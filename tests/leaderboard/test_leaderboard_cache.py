"""The page cache on its own: when a page is made anew, who waits for it, and what is kept."""

import asyncio
import threading
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from leaderboard.web import cache
from leaderboard.web.cache import PageCache


class Maker:
    """Counts how often it makes a page, and can be made to wait."""

    def __init__(self, body: str = "page ") -> None:
        self.made, self.body, self.state = 0, body, "one"
        self.go = threading.Event()
        self.go.set()

    def __call__(self, request: Request) -> str:
        self.made += 1
        number = self.made
        assert self.go.wait(30)
        if request.url.path == "/nothing":
            raise HTTPException(404, "not here")
        return f"{self.body}{number}"


class Site:
    """One cached address with a clock that stands still unless it is told otherwise."""

    def __init__(self, maker: Maker) -> None:
        self.maker, self.now = maker, 0.0
        self.endpoint = PageCache(clock=lambda: self.now).kept(maker, lambda: maker.state)

    async def answer(self, query: bytes = b"", path: str = "/", known: str = "", control: str = "") -> Response:
        headers = [(b"if-none-match", known.encode())] if known else []
        headers += [(b"cache-control", control.encode())] if control else []
        scope: Any = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": headers}
        return await self.endpoint(Request(scope))

    async def ask(self, query: bytes = b"") -> str:
        return bytes((await self.answer(query)).body).decode()


def test_a_page_is_made_anew_when_the_state_has_changed_and_only_then() -> None:
    async def story() -> None:
        site = Site(Maker())
        assert [await site.ask(), await site.ask()] == ["page 1", "page 1"] and await site.ask(b"n=1") == "page 2"
        site.now = 3600.0  # long unasked, yet nothing has changed
        assert await site.ask() == "page 1"
        site.maker.state = "two"
        assert await site.ask() == "page 1"  # known to be right less than two seconds ago
        site.now += cache.FRESH_SECONDS
        assert await site.ask() == "page 3"

    asyncio.run(story())


def test_readers_wait_a_moment_for_a_slow_page_and_then_get_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PATIENCE_SECONDS", 0.01)

    async def story() -> None:
        site = Site(Maker())
        await site.ask()
        site.now, site.maker.state = 5.0, "two"
        site.maker.go.clear()
        assert [await site.ask() for _ in range(3)] == ["page 1"] * 3 and site.maker.made == 2  # one making for all
        reload = [asyncio.create_task(site.answer(control=words)) for words in ("max-age=0", "no-cache")]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in reload)  # who asks for the newest page waits for it
        site.now = cache.STALE_SECONDS
        late = [asyncio.create_task(site.ask()) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in late)  # too old to be shown to anybody
        site.maker.go.set()
        assert [await one for one in late] == ["page 2", "page 2"] and await site.ask() == "page 2"
        assert [bytes((await one).body) for one in reload] == [b"page 2"] * 2

    asyncio.run(story())


def test_a_quick_page_is_never_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PATIENCE_SECONDS", 30.0)

    async def story() -> None:
        site = Site(Maker())
        await site.ask()
        site.now, site.maker.state = 5.0, "two"
        assert [await one for one in [asyncio.create_task(site.ask()) for _ in range(4)]] == ["page 2"] * 4

    asyncio.run(story())


def test_what_a_page_raises_is_raised_and_never_kept() -> None:
    async def story() -> None:
        site = Site(Maker())
        for made in (1, 2):
            with pytest.raises(HTTPException):
                await site.answer(path="/nothing")
            assert site.maker.made == made

    asyncio.run(story())


def test_a_browser_that_has_the_page_is_told_so() -> None:
    async def story() -> None:
        site = Site(Maker())
        first = await site.answer()
        again = await site.answer(known=first.headers["etag"])
        assert (first.status_code, again.status_code, again.body) == (200, 304, b"") and again.headers["etag"] == first.headers["etag"]

    asyncio.run(story())


def test_memory_is_bounded_by_forgetting_what_was_asked_for_longest_ago() -> None:
    async def story() -> None:
        site = Site(Maker(body="x" * (cache.MOST_BYTES // 3 - 10)))
        for query in (b"1", b"2", b"1", b"3", b"1", b"4", b"1", b"2"):
            await site.ask(query)
        assert site.maker.made == 5  # only the second page had to be made again

    asyncio.run(story())
