"""A model behind an OpenAI-compatible endpoint: ``POST /chat/completions``, ``GET /models``. The one door to aiohttp.

Every request is repeated until it is answered, as far as the settings' patience goes: failures of the server or the network, replies that
are no JSON or lack their parts, and silence. A ``Retry-After`` is honoured, for all requests. What remains without an answer is an
``EngineError``, never a wrong answer. A refused key or an unknown model ends the evaluation: no other sample would fare better.

Tools travel in the messages (Hermes format, harness.chat), so any chat model will do; a server that takes calls or thoughts out of the
text has them put back. aiohttp, not httpx: ten times its requests per second at 64 in flight.
The API key comes from an environment variable, goes into one header, and is nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import aiohttp

from harness.config import Section, operational
from harness.engines.base import Capability, ChatReply, ChatRequest
from harness.engines.pace import Pace
from harness.errors import ContextOverflowError, EngineError, HarnessError, UsageError
from harness.types import FinishReason, Usage

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0  # seconds; the bounds of the wait before a retry double from one to the other
_OVERLOADED = frozenset({429, 503, 529})
_PASSING = frozenset({408, 409, 425, 500, 502, 504, 520, 522, 524}) | _OVERLOADED
_HOPELESS = frozenset({401, 402, 403, 404, 405})
_OVERFLOW = re.compile(
    r"context.?length|context.?window|max_model_len|maximum context|too long|max_tokens|max_completion_tokens", re.IGNORECASE
)


class EndpointConfig(Section):
    """Settings of a model behind a URL."""

    concurrency: int = operational(64, ge=1)
    """Requests in flight at most; begins at half of it, and halves when the endpoint says that it is overloaded."""
    timeout: float = operational(600.0, gt=0)
    """Seconds for one whole reply; then the request counts as failed."""
    retries: int = operational(10, ge=0)
    """Times a failed request is sent again. Refusals for overload (429, 503) are not counted; ``patience`` bounds those."""
    patience: float = operational(1800.0, gt=0)
    """Seconds after which a request is not sent again; a longer Retry-After is not waited for."""
    key_variable: str = operational("HARNESS_API_KEY")
    """Environment variable that holds the API key, if the endpoint wants one; the key is never stored or logged."""
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = operational("max_tokens")
    """What the endpoint calls the limit of a reply's tokens."""
    tokenizer: str | None = operational(None)
    """Where the model's tokenizer is (a name of the model table, a directory, a hub id). With it the server is asked for token ids by
    /completions, as vLLM's server answers them: lm-eval's benchmarks need that (null: messages by /chat/completions)."""
    price_prompt: float | None = operational(None, ge=0)
    """Price of a million prompt tokens, in any currency (null: costs are not counted)."""
    price_generated: float | None = operational(None, ge=0)
    """Price of a million generated tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model as ``/models`` lists it; ``context`` is its longest sequence, None where the endpoint does not say."""

    id: str
    context: int | None = None


class _Failed(Exception):
    """One request failed in a way that may pass. ``refused``: unread, for overload. ``after``: seconds that the endpoint asks to wait."""

    def __init__(self, words: str, *, overload: bool = False, refused: bool = False, after: float | None = None) -> None:
        super().__init__(words)
        self.overload, self.refused, self.after = overload, refused, after


class Endpoint:
    """One model at one URL. Safe for many coroutines of one event loop; made anywhere, used and closed within the loop."""

    capabilities = frozenset({Capability.CHAT})

    def __init__(self, url: str, model: str, config: EndpointConfig) -> None:
        self.model = model
        self.pace = Pace(config.concurrency)
        self._url = checked_url(url)
        self._config = config
        self._key = os.environ.get(config.key_variable, "").strip()
        self._session: aiohttp.ClientSession | None = None
        self._jitter = random.Random()

    async def chat(self, request: ChatRequest) -> ChatReply:
        body: dict[str, Any] = {"model": self.model, "messages": request.messages, "temperature": request.temperature}
        if request.temperature > 0:
            body["seed"] = request.seed % 2**31  # not every server reads 64 bits
        if request.max_tokens is None:
            return await self.ask("POST", "/chat/completions", body, self._reply)
        try:
            return await self.ask("POST", "/chat/completions", {**body, self._config.tokens_field: request.max_tokens}, self._reply)
        except ContextOverflowError:  # prompt and limit together are too long, which says nothing of the prompt alone: let the server cut
            return await self.ask("POST", "/chat/completions", body, self._reply)

    async def models(self) -> tuple[Served, ...]:
        """What ``/models`` lists. Raises ``HarnessError`` if the endpoint cannot be asked."""
        try:
            return await self.ask("GET", "/models", None, _served)
        except EngineError as error:
            raise HarnessError(f"{self._url}/models: {error}. Is the server up, and should the URL end in /v1?") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[dict[str, Any], int], T]) -> T:
        """Ask until ``read(reply, retries)`` makes sense of the reply. Raises ``EngineError`` when patience ends."""
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        began, failures, retries = time.monotonic(), 0, 0
        while True:
            try:
                async with self.pace.slot() as ticket:
                    try:
                        found = read(await self._once(method, path, data), retries)
                    except _Failed as failure:
                        if failure.overload:
                            self.pace.overloaded(ticket)
                        if failure.after is not None and failure.after <= self._config.patience:
                            self.pace.hold(failure.after)
                        raise
                self.pace.succeeded()
                return found
            except _Failed as failure:
                retries += 1
                failures += not failure.refused
                wait = self._jitter.uniform(0.5, 1.0) * min(FIRST_WAIT * 2 ** min(retries - 1, 20), LONGEST_WAIT)
                wait = max(wait, failure.after or 0.0)
                if failures > self._config.retries or time.monotonic() - began + wait > self._config.patience:
                    raise EngineError(f"{failure} ({retries} tries in {time.monotonic() - began:.0f} s)") from failure
            await asyncio.sleep(wait)

    async def _once(self, method: str, path: str, data: bytes | None) -> dict[str, Any]:
        """One request. Raises ``_Failed`` if another may fare better."""
        if self._session is None:
            headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self._key}"} if self._key else {})}
            connector = aiohttp.TCPConnector(limit=0)  # the pace is the limit
            self._session = aiohttp.ClientSession(connector=connector, headers=headers, trust_env=True)
        try:
            async with (
                asyncio.timeout(self._config.timeout),
                self._session.request(
                    method, self._url + path, data=data, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=None)
                ) as response,
            ):
                content = await response.read()
        except TimeoutError as error:
            raise _Failed(f"no whole reply within {self._config.timeout:g} s (endpoint.timeout)", overload=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"the connection failed: {type(error).__name__} {self._without_key(str(error))}".strip()) from error
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
            return _Failed(words, overload=status in _OVERLOADED, refused=status in _OVERLOADED, after=_seconds(retry_after))
        if status in _HOPELESS or status < 400:
            remedy = f"check the URL, the model's id and ${self._config.key_variable}"
            return HarnessError(f"the endpoint {self._url} will not serve {self.model!r}: {words}; {remedy}")
        return ContextOverflowError(words) if _OVERFLOW.search(said) else EngineError(words)

    def _reply(self, reply: dict[str, Any], retries: int) -> ChatReply:
        try:
            choice = reply["choices"][0]
            text, finish = _text(choice["message"]), choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise _Failed(f"the reply lacks choices[0].message ({type(error).__name__})") from error
        if finish == "content_filter":
            raise EngineError("the endpoint's content filter withheld the reply")
        return ChatReply(
            text=text, finish=FinishReason.LENGTH if finish == "length" else FinishReason.STOP, usage=self._usage(reply, retries)
        )

    def _usage(self, reply: dict[str, Any], retries: int) -> Usage:
        told = reply.get("usage")
        prompt, generated = (told.get(k) for k in ("prompt_tokens", "completion_tokens")) if isinstance(told, dict) else (None, None)
        if not isinstance(prompt, int) or not isinstance(generated, int):
            return Usage(retries=retries, reported=False)
        prices = (self._config.price_prompt, self._config.price_generated)
        cost = None if prices == (None, None) else (prompt * (prices[0] or 0) + generated * (prices[1] or 0)) / 1e6
        return Usage(prompt=prompt, billed_prompt=prompt, generated=generated, retries=retries, cost=cost)

    def _without_key(self, words: str) -> str:
        return words.replace(self._key, "***") if self._key else words


def checked_url(url: str) -> str:
    """The base URL without a closing slash. Raises ``UsageError`` for anything but http(s)://host..., and for a URL that holds a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is no endpoint: expected http(s)://HOST[:PORT]/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        place = f"{parts.scheme}://{parts.hostname}..."
        raise UsageError(
            f"the endpoint's URL {place} must hold no password and no query: settings are stored; give a key by environment variable"
        )
    return url.rstrip("/")


def _text(message: Mapping[str, Any]) -> str:
    """The turn as one text: thoughts and calls that the server took out are put back in their places."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    thought = message.get("reasoning_content") or message.get("reasoning")
    parts = [f"<think>\n{thought}\n</think>\n" if isinstance(thought, str) and thought else "", content or ""]
    for call in message.get("tool_calls") or ():
        function = call["function"]
        body = json.dumps({"name": function["name"], "arguments": function.get("arguments") or {}}, ensure_ascii=False)
        parts.append(f"\n<tool_call>\n{body}\n</tool_call>")
    return "".join(parts)


def _served(reply: dict[str, Any], retries: int) -> tuple[Served, ...]:
    try:
        return tuple(Served(id=str(row["id"]), context=row.get("max_model_len")) for row in reply["data"])
    except (KeyError, TypeError, AttributeError) as error:
        raise _Failed("the reply lists no models under 'data'") from error


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header: seconds, or an HTTP date."""
    if retry_after is None:
        return None
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
