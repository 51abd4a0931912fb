"""A judging model behind any OpenAI-compatible endpoint. How it is asked, retries included: ``harness.engines.client``.

A request without an answer is an ``OutageError``: the caller makes it a transport error, never a verdict. A refused key or an unknown
model is a ``HarnessError``, which ends the command. The API key is read from ``HARNESS_JUDGE_API_KEY``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.engines.client import Client, Patience, RefusedError, Served, UnansweredError, UnreadableError
from harness.errors import HarnessError, OutageError, UsageError
from harness.types import Message
from judges.contract import CHECK, Contract
from judges.models import Reply

KEY_VARIABLE = "HARNESS_JUDGE_API_KEY"
PATIENCE = Patience(timeout=120.0, retries=7, seconds=300.0)
IN_FLIGHT = 16


class EndpointModel:
    """One model at one URL; used and closed within one event loop."""

    def __init__(self, url: str, name: str, *, patience: Patience = PATIENCE) -> None:
        self.name = name
        self._patience = patience
        self._client = _client(url, patience)
        self._structured = True

    @property
    def place(self) -> str:
        return self._client.url

    async def complete(self, messages: list[Message], contract: Contract) -> Reply:
        """One reply, greedily; in the contract's form where the endpoint can hold a model to one."""
        return await self._complete(messages, contract, self._patience)

    async def check(self, contract: Contract) -> None:
        """Ask once, without waiting long. Raises ``HarnessError`` for a judge that cannot be reached or refuses to judge."""
        try:
            await self._complete(contract.messages(*CHECK), contract, self._patience.first_look())
        except UnansweredError as error:
            if error.busy:  # it is there, and will be waited for
                return
            raise HarnessError(f"the judge {self.place} does not answer: {error}. Start it, or name another with --judge") from error
        except OutageError as error:
            raise HarnessError(f"the judge {self.place} will not judge with {self.name!r}: {error}. Name another with --judge") from error

    async def close(self) -> None:
        await self._client.close()

    async def _complete(self, messages: list[Message], contract: Contract, patience: Patience) -> Reply:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(m) for m in messages],
            "temperature": 0,
            "max_tokens": contract.max_tokens,
        }
        if self._structured:
            try:
                return await self._ask({**body, "response_format": dict(contract.response_format)}, patience, structured=True)
            except RefusedError as error:
                if error.status not in (400, 422):
                    raise OutageError(str(error)) from error
        try:
            reply = await self._ask(body, patience, structured=False)
        except RefusedError as error:
            raise OutageError(str(error)) from error
        self._structured = False  # only now is it sure that the form was the trouble
        return reply

    async def _ask(self, body: Mapping[str, Any], patience: Patience, *, structured: bool) -> Reply:
        return await self._client.ask("POST", "/chat/completions", body, lambda data, _: _reply(data, structured), patience)


def only_model(url: str) -> str:
    """The one model that an endpoint serves. Raises ``UsageError`` where it serves several, ``HarnessError`` where it is silent."""
    with ThreadPoolExecutor(1) as thread:  # judges are opened by plain functions, some of them inside an event loop
        found = thread.submit(asyncio.run, _listed(url)).result()
    if len(found) != 1:
        names = ", ".join(served.id for served in found[:8])
        raise UsageError(f"the judge {url} serves {len(found)} models ({names}): name one with llm:URL#MODEL")
    return found[0].id


async def _listed(url: str) -> tuple[Served, ...]:
    client = _client(url, PATIENCE)
    try:
        return await client.models()
    finally:
        await client.close()


def _client(url: str, patience: Patience) -> Client:
    return Client(url, patience=patience, most=IN_FLIGHT, key_variable=KEY_VARIABLE, who="the judge")


def _reply(data: Mapping[str, Any], structured: bool) -> Reply:
    try:
        choice = data["choices"][0]
        message = choice["message"]
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(str(part.get("text", "")) for part in content)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnreadableError(f"the reply is no chat completion ({type(error).__name__})") from error
    refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
    return Reply(text=str(message.get("refusal") or content), model=str(data.get("model") or ""), refused=refused, structured=structured)
