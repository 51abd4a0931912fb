"""A judging model behind any OpenAI-compatible endpoint. Failures that may pass are tried again, a Retry-After is waited for.

What remains is an ``OutageError``: the caller makes it a transport error, never a verdict. The API key is read from
``HARNESS_JUDGE_API_KEY`` and goes nowhere but into one header.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from harness.errors import HarnessError, OutageError, UsageError
from harness.types import Message
from judges.contract import Contract
from judges.models import Reply, RequestError

KEY_VARIABLE = "HARNESS_JUDGE_API_KEY"
TRIES, PATIENCE, TIMEOUT = 8, 300.0, 120.0  # requests; seconds of waiting in all; seconds a reply may take
IN_FLIGHT = 16
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})

Sleep = Callable[[float], Awaitable[None]]


class EndpointModel:
    """One model at one URL; used and closed within one event loop. ``transport`` and ``sleep`` are seams for tests."""

    def __init__(self, url: str, name: str, *, transport: httpx.AsyncBaseTransport | None = None, sleep: Sleep = asyncio.sleep) -> None:
        self.place, self.name = checked_url(url), name
        self._sleep = sleep
        self._gate = asyncio.Semaphore(IN_FLIGHT)
        self._structured = True
        self._client = httpx.AsyncClient(headers=_headers(), timeout=TIMEOUT, transport=transport)

    async def complete(self, messages: list[Message], contract: Contract) -> Reply:
        """One reply, greedily; in the contract's form where the endpoint can hold a model to one."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(m) for m in messages],
            "temperature": 0,
            "max_tokens": contract.max_tokens,
        }
        async with self._gate:
            if self._structured:
                try:
                    return await self._ask({**body, "response_format": dict(contract.response_format)}, structured=True)
                except RequestError as error:
                    if error.status not in (400, 422):
                        raise
            reply = await self._ask(body, structured=False)
            self._structured = False  # only now is it sure that the form was the trouble
            return reply

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, body: Mapping[str, Any], *, structured: bool) -> Reply:
        waited, trouble = 0.0, ""
        for attempt in range(TRIES):
            asked: float | None = None
            try:
                response = await self._client.post(f"{self.place}/chat/completions", json=body)
            except httpx.HTTPError as error:
                trouble = f"{type(error).__name__} {error}".strip()
            else:
                if response.status_code == 200:
                    try:
                        return _reply(response.json(), structured)
                    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
                        trouble = f"the reply is no chat completion ({type(error).__name__})"
                elif response.status_code in _PASSING:
                    trouble, asked = f"HTTP {response.status_code}", _seconds(response.headers.get("Retry-After"))
                else:
                    raise RequestError(response.status_code, f"{self.place} refused the request: {_words(response)}")
            wait = max(random.uniform(0.5, 1.0) * min(0.5 * 2**attempt, 30.0), asked or 0.0)
            if waited + wait > PATIENCE:
                break
            waited += wait
            await self._sleep(wait)
        raise OutageError(f"{self.place} gave no reply ({trouble}, waited {waited:.0f} s)")


def only_model(url: str, transport: httpx.BaseTransport | None = None) -> str:
    """The one model that an endpoint serves. Raises ``UsageError`` where it serves several, ``HarnessError`` where it is silent."""
    place = checked_url(url)
    try:
        with httpx.Client(headers=_headers(), timeout=10.0, transport=transport) as client:
            response = client.get(f"{place}/models")
            response.raise_for_status()
            found = [str(row["id"]) for row in response.json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(
            f"the judge {place} does not say which model it serves ({error}): start it, or name one with llm:URL#MODEL"
        ) from error
    if len(found) != 1:
        raise UsageError(f"the judge {place} serves {len(found)} models ({', '.join(found[:8])}): name one with llm:URL#MODEL")
    return found[0]


def checked_url(url: str) -> str:
    """The URL without a closing slash. Raises ``UsageError`` for one that is none, or that holds a password or a query: it is stored."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"judge {url!r}: expected llm:http(s)://HOST[:PORT]/v1[#MODEL]")
    if "@" in parts.netloc or parts.query:
        raise UsageError(f"the judge's URL at {parts.hostname} must hold no password and no query; give a key in ${KEY_VARIABLE}")
    return url.rstrip("/")


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


def _reply(data: Mapping[str, Any], structured: bool) -> Reply:
    choice = data["choices"][0]
    message = choice["message"]
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(str(part.get("text", "")) for part in content)
    refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
    return Reply(text=str(message.get("refusal") or content), model=str(data.get("model") or ""), refused=refused, structured=structured)


def _words(response: httpx.Response) -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    said = " ".join(response.text.split())[:300]
    remedy = f" (does ${KEY_VARIABLE} hold its key?)" if response.status_code in (401, 403) else ""
    return f"HTTP {response.status_code} {said.replace(key, '***') if key else said}{remedy}"


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header: seconds, or an HTTP date."""
    try:
        return max(float(retry_after), 0.0) if retry_after else None
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(retry_after or "") - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
