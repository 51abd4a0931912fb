"""The one client of OpenAI-compatible endpoints, of models and of judges, and the one door to aiohttp.

Every request is repeated until it is answered, as far as patience goes: failures of the server or the network, replies that cannot be
read, and silence. A ``Retry-After`` is honoured, for all requests. What remains without an answer is an ``UnansweredError``, a request
that the server will never serve a ``RefusedError``. A wrong key, URL or model, or a server that has answered nothing yet and fails
everything, is a plain ``HarnessError``: no other request would fare better. What an answer means is the caller's business.

aiohttp, not httpx: ten times its requests per second at 64 in flight. The API key comes from an environment variable, goes into one
header, and is nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from harness.engines.pace import Pace, seconds
from harness.errors import HarnessError, OutageError, UsageError
from harness.wording import plural

_LOG = logging.getLogger(__name__)

T = TypeVar("T")
Read = Callable[[dict[str, Any], int], T]
"""(reply, times that the request had to be sent again) -> what is wanted of it. Raises ``UnreadableError`` for a reply to ask for again."""

FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0  # seconds; the bounds of the wait before a retry double from one to the other
CONNECT = 30.0  # seconds for a connection to be made
UNHEARD = 5.0  # seconds in which every request fails, before that is said
_OVERLOADED = frozenset({429, 503, 529})
_PASSING = frozenset({408, 409, 425, 500, 502, 504, 520, 522, 524}) | _OVERLOADED
_FINAL = frozenset({401, 402, 403, 404, 405})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one request is tried. Refusals for overload (429, 503) and a server that is not there count as no failure: ``seconds``
    bounds those, for a server that is not there from when the first request found it gone."""

    timeout: float  # seconds for one whole reply; then the request counts as failed
    retries: int  # times that a failed request is sent again
    seconds: float  # after which nothing is sent again; a longer Retry-After is not waited for
    first_answer: float = 15.0  # seconds in which a server that fails every request (HTTP 500, no sense) must give its first answer

    def first_look(self) -> Patience:
        """For the first request of a command: whoever waits for its answer is told soon."""
        return replace(self, retries=2, seconds=min(self.seconds, 5.0))


class UnansweredError(OutageError):
    """A request was not answered within patience. ``busy``: the server is there, and refused it for overload."""

    def __init__(self, words: str, *, busy: bool) -> None:
        super().__init__(words)
        self.busy = busy


class RefusedError(HarnessError):
    """The server refused this request for good (another may be served); ``said`` is all of its explanation."""

    def __init__(self, words: str, *, status: int, said: str) -> None:
        super().__init__(words)
        self.status, self.said = status, said


class UnreadableError(Exception):
    """A reply lacks what was asked for; asked again, it may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model as ``/models`` lists it; ``context`` is its longest sequence, None where the endpoint does not say."""

    id: str
    context: int | None = None


class _Failed(Exception):
    """One request failed in a way that may pass. ``busy``: unread, for overload. ``gone``: no connection. ``after``: seconds to wait."""

    def __init__(self, words: str, *, overload: bool = False, busy: bool = False, gone: bool = False, after: float | None = None) -> None:
        super().__init__(words)
        self.overload, self.busy, self.gone, self.after = overload, busy, gone, after


class Client:
    """Requests to one endpoint. Safe for many coroutines of one event loop; made anywhere, used and closed within the loop."""

    def __init__(self, url: str, *, patience: Patience, most: int, key_variable: str, who: str = "the endpoint") -> None:
        """``most``: requests in flight; ``who``: what messages call it."""
        self.pace = Pace(most)
        self.url = checked_url(url, who, key_variable)
        self._who, self._patience, self._key_variable = who, patience, key_variable
        self._key = os.environ.get(key_variable, "").strip()
        self._session: aiohttp.ClientSession | None = None
        self._jitter = random.Random()
        self._gone_since: float | None = None  # when the server was first found gone, None while it is there
        self._answered = False  # any request for work; a list of models proves nothing
        self._failing_since: float | None = None  # when the first of the failures came that no answer has followed
        self._said = False  # that it fails everything
        self._fresh = 0  # requests that are sent for the first time, their outcome open

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None, read: Read[T], patience: Patience | None = None) -> T:
        """Ask until ``read`` makes sense of the reply. Raises as the module's docstring says."""
        patience = patience or self._patience
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        began, failures, retries = time.monotonic(), 0, 0
        while True:
            try:
                async with self.pace.slot() as ticket:
                    self._fresh += not retries
                    try:
                        found = read(await self._once(method, path, data, patience.timeout), retries)
                    except UnreadableError as error:
                        raise _Failed(str(error)) from error
                    except _Failed as failure:
                        if failure.gone and self._gone_since is None:
                            self._gone_since = time.monotonic()
                            _LOG.warning("%s %s is not there; waiting for it up to %g s", self._who, self.url, patience.seconds)
                        if failure.overload:
                            self.pace.overloaded(ticket)
                        if failure.after is not None and failure.after <= patience.seconds:
                            self.pace.hold(failure.after)
                        raise
                    finally:
                        self._fresh -= not retries
                self.pace.succeeded()
                self._answered = self._answered or method == "POST"
                self._failing_since, self._said = None, False
                return found
            except _Failed as failure:
                retries += 1
                failures += not (failure.busy or failure.gone)
                wait = self._jitter.uniform(0.5, 1.0) * min(FIRST_WAIT * 2 ** min(retries - 1, 20), LONGEST_WAIT)
                wait = max(wait, failure.after or 0.0)
                now = time.monotonic()
                since = min(began, self._gone_since or began) if failure.gone else began
                if failures > patience.retries or now - since + wait > patience.seconds:
                    raise UnansweredError(
                        f"{failure} ({retries} {plural(retries, 'try', 'tries')} in {now - since:.0f} s)", busy=failure.busy
                    ) from failure
                if not (failure.overload or failure.gone):
                    self._fails_everything(failure, patience, now, wait)
            await asyncio.sleep(wait)

    def _fails_everything(self, failure: _Failed, patience: Patience, now: float, wait: float) -> None:
        """Note a failure of the server itself. Raises ``HarnessError`` where it has never done anything else, and was given its time."""
        if self._failing_since is None:
            self._failing_since = now
        failing = now - self._failing_since
        if not self._answered and not self._fresh and failing + wait > patience.first_answer:
            raise HarnessError(
                f"{self._who} {self.url} lists its models and answers no request: {failure} (all that was sent in {failing:.0f} s). "
                "See what its own log says; once it answers, give the same command again"
            )
        if failing >= UNHEARD and not self._said:
            self._said = True
            again = f"each request is sent again up to {patience.retries} {plural(patience.retries, 'time')}"
            _LOG.warning("%s %s has failed every request for %.0f s: %s; %s", self._who, self.url, failing, failure, again)

    async def models(self) -> tuple[Served, ...]:
        """What ``/models`` lists; not waited for long. Raises ``HarnessError`` if the endpoint cannot be asked."""
        patience = replace(self._patience.first_look(), timeout=min(self._patience.timeout, CONNECT))
        try:
            return await self.ask("GET", "/models", None, _served, patience)
        except (UnansweredError, RefusedError) as error:
            raise HarnessError(
                f"{self._who} {self.url} does not list its models: {error}. Is it up, and should the URL end in /v1?"
            ) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _once(self, method: str, path: str, data: bytes | None, timeout: float) -> dict[str, Any]:
        """One request. Raises ``_Failed`` if another may fare better."""
        if self._session is None:
            headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self._key}"} if self._key else {})}
            connector = aiohttp.TCPConnector(limit=0)  # the pace is the limit
            # Not trust_env: aiohttp then asks a thread for proxy and netrc at every request, which costs more than the request.
            patient = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
            self._session = aiohttp.ClientSession(connector=connector, headers=headers, proxy=proxy_of(self.url), timeout=patient)
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(method, self.url + path, data=data, allow_redirects=False) as response,
            ):
                content = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Failed(f"no connection: {self._told(error)}", gone=True) from error
        except TimeoutError as error:
            raise _Failed(f"no whole reply within {timeout:g} s", overload=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"the connection failed: {self._told(error)}") from error
        self._gone_since = None
        if response.status != 200:
            raise self._refusal(response.status, content, response.headers.get("Retry-After"))
        try:
            reply = json.loads(content)
        except ValueError as error:
            raise _Failed(f"the reply is not JSON ({len(content)} bytes)") from error
        if not isinstance(reply, dict):
            raise _Failed("the reply is not a JSON object")
        return reply

    def _refusal(self, status: int, content: bytes, retry_after: str | None) -> Exception:
        said = self._without_key(content.decode("utf-8", "replace"))
        words = f"HTTP {status}: {' '.join(said.split())[:300]}"
        if status in _PASSING:
            return _Failed(words, overload=status in _OVERLOADED, busy=status in _OVERLOADED, after=seconds(retry_after))
        if status in _FINAL or status < 400:
            return HarnessError(
                f"{self._who} {self.url} serves no request: {words}; check the URL, the model's id and ${self._key_variable}"
            )
        return RefusedError(words, status=status, said=said)

    def _told(self, error: Exception) -> str:
        return self._without_key(f"{type(error).__name__} {error}".strip())

    def _without_key(self, words: str) -> str:
        return words.replace(self._key, "***") if self._key else words


def checked_url(url: str, who: str, key_variable: str) -> str:
    """The base URL without a closing slash. Raises ``UsageError`` for anything but http(s)://host..., and for a URL that holds a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{who}: {url!r} is no URL of one, expected http(s)://HOST[:PORT]/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        place = f"{parts.scheme}://{parts.hostname}..."
        raise UsageError(
            f"{who}: the URL {place} must hold no password and no query, for settings are stored; give a key in ${key_variable}"
        )
    return url.rstrip("/")


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), None for none."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def _served(reply: dict[str, Any], retries: int) -> tuple[Served, ...]:
    try:
        return tuple(Served(id=str(row["id"]), context=row.get("max_model_len")) for row in reply["data"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableError("the reply lists no models under 'data'") from error
