"""The page cache on its own: how old a page may be, what is never kept, and one making for a crowd."""

import asyncio
from typing import Any

from leaderboard.web import cache
from leaderboard.web.cache import PageCache


class Maker:
    """An application that counts how often it makes a page, and can be made to wait."""

    def __init__(self, kind: bytes = b"text/html; charset=utf-8", body: bytes = b"page ", parts: int = 1) -> None:
        self.made, self.kind, self.body, self.parts = 0, kind, body, parts
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.made += 1
        number = self.made
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.kind)]})
        for left in reversed(range(self.parts)):
            await send({"type": "http.response.body", "body": self.body + str(number).encode(), "more_body": bool(left)})


async def ask(app: PageCache, path: str = "/", query: bytes = b"", method: str = "GET") -> bytes:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": []}
    await app(scope, None, send)  # type: ignore[arg-type]
    return b"".join(message.get("body", b"") for message in sent)


def test_a_page_is_served_again_for_two_seconds_and_then_made_anew() -> None:
    async def story() -> None:
        now, maker = [0.0], Maker()
        app = PageCache(maker, clock=lambda: now[0])
        assert [await ask(app), await ask(app)] == [b"page 1", b"page 1"]
        assert await ask(app, query=b"n=1") == b"page 2"
        now[0] = cache.FRESH_SECONDS
        assert await ask(app) == b"page 3"

    asyncio.run(story())


def test_while_one_request_makes_a_page_the_others_get_the_last_one() -> None:
    async def story() -> None:
        now, maker = [0.0], Maker()
        app = PageCache(maker, clock=lambda: now[0])
        await ask(app)
        now[0] = 5.0
        maker.go.clear()
        first = asyncio.create_task(ask(app))
        await asyncio.sleep(0)
        assert await ask(app) == b"page 1" and maker.made == 2
        maker.go.set()
        assert await first == b"page 2" and await ask(app) == b"page 2"
        now[0] = 100.0
        maker.go.clear()
        late = [asyncio.create_task(ask(app)) for _ in range(2)]
        await asyncio.sleep(0)
        maker.go.set()
        assert sorted([await one for one in late]) == [b"page 3", b"page 4"]  # too old to be shown to anybody

    asyncio.run(story())


def test_streams_other_kinds_and_other_methods_are_never_kept() -> None:
    async def story() -> None:
        for maker in (Maker(kind=b"text/event-stream"), Maker(parts=3), Maker(kind=b"application/json")):
            app = PageCache(maker)
            await ask(app)
            await ask(app)
            assert maker.made == 2
        posted = Maker()
        app = PageCache(posted)
        await ask(app, method="POST")
        await ask(app, path="/static/x")
        await ask(app)
        assert posted.made == 3

    asyncio.run(story())


def test_memory_is_bounded_by_forgetting_what_was_asked_for_longest_ago() -> None:
    async def story() -> None:
        maker = Maker(body=bytes(cache.MOST_BYTES // 3 - 10))
        app = PageCache(maker, clock=lambda: 0.0)
        for query in (b"1", b"2", b"1", b"3", b"1", b"4", b"1", b"2"):
            await ask(app, query=query)
        assert maker.made == 5  # only the second page had to be made again

    asyncio.run(story())
