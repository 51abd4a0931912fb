"""The live web: a search engine (Serper with a key, DuckDuckGo without) and pages as text. The one door to httpx for tools.

What a model writes decides which pages are read, so every connection goes through ``harness.web.addresses``, on redirects too, and is
made to the very address that was checked. Size, time, type and number of redirects are limited. Pages and search results are kept on
disk; failures never, nor a search that found nothing, for what an engine does not find today may be a fault that does not show. A page
that cannot be read is the model's problem (``WebError``); a search engine that stays down after retries is an outage (``OutageError``).

DuckDuckGo says "wait" in several ways that must not pass for "nothing found": any status but 200 (429, 403; 202 with a challenge), and
its challenge to prove oneself human under status 200. ``ddgs.DDGS`` reports all of them as "No results found.", so its DuckDuckGo engine
is used without it: that shows the reply itself, and asks one host where ``DDGS`` may ask eight.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx

from harness.config import Section, operational
from harness.engines.pace import seconds
from harness.errors import HarnessError, MissingDependencyError, OutageError, WebError
from harness.web.addresses import checked_url, public_addresses
from harness.web.base import Hit, Page
from harness.web.cache import DiskCache

SERPER = "https://google.serper.dev/search"
KEY_VARIABLE = "SERPER_API_KEY"
AGENT = "Mozilla/5.0 (compatible; actguide-harness; research)"
_TEXT = ("text/", "application/xhtml+xml", "application/xml", "application/json")
_BUSY = frozenset({429, 500, 502, 503, 504})
_SLEEPS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each retry of a search
_LONGEST_SLEEP = 60.0
_CHALLENGE = re.compile(r"""(?:class|id|action|src)=["'][^"']*(?:anomaly|challenge-form)""")  # attributes: the query stands in the text

Backend = Literal["serper", "duckduckgo"]
Search = Callable[[str, int], Awaitable[list[Hit]]]


class _Failed(Exception):
    """A search that was not answered; ``after``: seconds that the engine asks to wait."""

    def __init__(self, words: str, after: float = 0.0) -> None:
        super().__init__(words)
        self.after = min(after, _LONGEST_SLEEP)


class LiveConfig(Section):
    """Limits of the live web."""

    seconds: float = operational(20.0, gt=0)
    """Time for one page, redirects included."""
    bytes: int = operational(5_000_000, ge=1)
    """Largest page, in bytes after decompression."""
    redirects: int = operational(5, ge=0)
    """Redirects followed for one page."""
    per_host: int = operational(2, ge=1)
    """Requests to one host at a time."""


class LiveWeb:
    """The ``Web`` outside. ``allowed`` is for tests alone: (address, port) pairs that are connected to although they are not public."""

    def __init__(
        self,
        backend: Backend,
        config: LiveConfig | None = None,
        *,
        cache: DiskCache | None = None,
        key: str = "",
        search_url: str = SERPER,
        allowed: frozenset[tuple[str, int]] = frozenset(),
    ) -> None:
        self.name = backend
        self._config = config or LiveConfig()
        self._cache = cache or DiskCache()
        self._key, self._search_url, self._allowed = key, search_url, allowed
        self._hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(self._config.per_host))
        self._search: Search = self._serper if backend == "serper" else self._duckduckgo

    async def search(self, query: str, limit: int) -> list[Hit]:
        """The first ``limit`` results. Raises ``OutageError`` when the engine stays down, ``HarnessError`` when it refuses the key."""
        kept = self._cache.get("search", self.name, query, limit)
        if not kept:
            kept = [[hit.title, hit.url, hit.snippet] for hit in await self._searched(query, limit)]
            if kept:
                self._cache.put(kept, "search", self.name, query, limit)
        return [Hit(title=title, url=url, snippet=snippet) for title, url, snippet in kept]

    async def fetch(self, url: str) -> Page:
        """The main text of a page. Raises ``WebError`` with the reason if it cannot be had."""
        url = self._checked(url)
        kept = self._cache.get("page", url)
        if kept is None:
            kept = await self._page(url)
            self._cache.put(kept, "page", url)
        return Page(url=url, title=kept[0], text=kept[1])

    async def _page(self, url: str) -> list[str]:
        try:
            async with asyncio.timeout(self._config.seconds), self._client() as client:
                kind, body = await self._follow(client, url)
        except TimeoutError as error:
            raise WebError(f"{url} took longer than {self._config.seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise WebError(f"{url} cannot be read ({type(error).__name__})") from error
        title, text = await asyncio.to_thread(page_text, body, kind)
        if not text.strip():
            raise WebError(f"{url} holds no text")
        return [title, text]

    async def _follow(self, client: httpx.AsyncClient, url: str) -> tuple[str, bytes]:
        for _ in range(self._config.redirects + 1):
            async with self._hosts[str(urlsplit(url).hostname)], client.stream("GET", url) as response:
                if not response.has_redirect_location:
                    return await self._body(response, url)
                target = response.headers["location"]
            url = self._checked(urljoin(url, target))
        raise WebError(f"{url}: more than {self._config.redirects} redirects")

    async def _body(self, response: httpx.Response, url: str) -> tuple[str, bytes]:
        if response.status_code != 200:
            raise WebError(f"{url} answered with HTTP status {response.status_code}")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not kind.startswith(_TEXT):
            raise WebError(f"{url} is {kind or 'of no stated type'}; only text and HTML pages can be read")
        body = bytearray()
        async for part in response.aiter_bytes(2**16):
            body += part
            if len(body) > self._config.bytes:
                raise WebError(f"{url} is larger than {self._config.bytes:,} bytes")
        return kind, bytes(body)

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=CheckedTransport(self._allowed), headers={"user-agent": AGENT}, timeout=self._config.seconds, trust_env=False
        )

    def _checked(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            if (parts.hostname, parts.port) in self._allowed and parts.scheme in ("http", "https"):
                return parts._replace(fragment="").geturl()
        except ValueError:
            pass
        return checked_url(url)

    async def _searched(self, query: str, limit: int) -> list[Hit]:
        why = ""
        for sleep in (*_SLEEPS, None):
            try:
                async with self._hosts[self.name]:
                    return await self._search(query, limit)
            except _Failed as failure:
                why, after = str(failure), failure.after
            if sleep is not None:
                await asyncio.sleep(max(sleep, after))
        raise OutageError(f"the search engine did not answer {len(_SLEEPS) + 1} times ({why})")

    async def _serper(self, query: str, limit: int) -> list[Hit]:
        try:
            async with httpx.AsyncClient(timeout=self._config.seconds, trust_env=False) as client:
                asked = {"q": query, "num": limit}
                response = await client.post(self._search_url, json=asked, headers={"X-API-KEY": self._key})
            if response.status_code == 200:
                return _serper_hits(response.json(), limit)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:  # no connection, or a broken reply
            raise _Failed(type(error).__name__) from error
        why = f"HTTP {response.status_code}"
        if response.status_code in (401, 403):
            raise HarnessError(f"Serper refuses the key in {KEY_VARIABLE} ({why}); check it and its quota")
        if response.status_code not in _BUSY:
            raise OutageError(f"the search engine answered with {why}")
        raise _Failed(why, seconds(response.headers.get("retry-after")) or 0.0)

    async def _duckduckgo(self, query: str, limit: int) -> list[Hit]:
        return (await asyncio.to_thread(_duckduckgo_hits, query, self._config.seconds))[:limit]


class CheckedTransport(httpx.AsyncBaseTransport):
    """httpx over a pool whose every connection goes to an address just found public: a name cannot change its mind in between."""

    def __init__(self, allowed: frozenset[tuple[str, int]]) -> None:
        self._pool = httpcore.AsyncConnectionPool(network_backend=_CheckedBackend(allowed))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        inner = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            response = await self._pool.handle_async_request(inner)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise httpx.TransportError(str(error)) from error
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> Any:
        try:
            async for part in self._response.aiter_stream():
                yield part
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise httpx.TransportError(str(error)) from error

    async def aclose(self) -> None:
        await self._response.aclose()


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves and checks a host, then connects to the checked address; TLS still verifies the host's name."""

    def __init__(self, allowed: frozenset[tuple[str, int]]) -> None:
        self._inner = httpcore.AnyIOBackend()
        self._allowed = allowed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = [host] if (host, port) in self._allowed else await public_addresses(host, port)
        return await self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise WebError("sockets of this machine are not on the web")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def page_text(body: bytes, kind: str) -> tuple[str, str]:
    """Title and main text; everything that is not HTML is taken as it is."""
    if "html" not in kind:
        return "", body.decode("utf-8", errors="replace")
    try:
        import trafilatura
    except ModuleNotFoundError as error:
        raise MissingDependencyError("reading live pages needs trafilatura; run `pip install 'actguide-harness[web]'`") from error
    found: Any = trafilatura.bare_extraction(body, include_links=False, include_tables=True, favor_recall=True, with_metadata=True)
    if found is None:
        return "", str(trafilatura.html2txt(body) or "")
    return str(found.title or ""), str(found.text or "")


def live_web(backend: Backend | None = None, config: LiveConfig | None = None) -> LiveWeb:
    """The live web of the command line: Serper where its key is in the environment, else DuckDuckGo."""
    key = os.environ.get(KEY_VARIABLE, "")
    if backend == "serper" and not key:
        raise HarnessError(f"live:serper needs a key in the environment variable {KEY_VARIABLE}; without one use live:duckduckgo")
    return LiveWeb(backend or ("serper" if key else "duckduckgo"), config, key=key)


def _serper_hits(reply: Any, limit: int) -> list[Hit]:
    rows = reply["organic"]
    return [Hit(title=str(row["title"]), url=str(row["link"]), snippet=str(row.get("snippet", ""))) for row in rows[:limit]]


def _duckduckgo_hits(query: str, timeout: float) -> list[Hit]:
    """Everything on the first page of results, advertisements left out. Raises ``_Failed`` for a reply that is no such page."""
    try:
        from ddgs.engines.duckduckgo import Duckduckgo
        from ddgs.exceptions import DDGSException
        from lxml.etree import LxmlError
    except ModuleNotFoundError as error:
        raise MissingDependencyError("search without a key needs ddgs; run `pip install 'actguide-harness[web]'`") from error
    engine = Duckduckgo(timeout=math.ceil(timeout))
    asked = engine.build_payload(query, region="us-en", safesearch="moderate", timelimit=None)
    try:
        reply = engine.http_client.request(engine.search_method, engine.search_url, data=asked)
        if reply.status_code != 200:
            raise _Failed(f"HTTP {reply.status_code}")
        rows = engine.post_extract_results(engine.extract_results(reply.text))
    except (DDGSException, LxmlError) as error:
        raise _Failed(str(error)) from error
    hits = {row.href: Hit(title=row.title, url=row.href, snippet=row.body) for row in rows if row.href}
    if not hits and _CHALLENGE.search(reply.text):
        raise _Failed("it wants a person to prove that this is no program")
    return list(hits.values())
