"""A judging model behind any OpenAI-compatible endpoint. How it is asked, retries included: ``harness.engines.client``.

A request without an answer is an ``OutageError``: the caller makes it a transport error, never a verdict. A refused key or an unknown
model is a ``HarnessError``, which ends the command. The API key is read from ``HARNESS_JUDGE_API_KEY``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from harness.engines.client import Client, Patience, RefusedError, Served, UnansweredError, UnreadableError
from harness.errors import HarnessError, OutageError, UsageError
from harness.types import Message
from judges.contract import CHECK, Contract
from judges.models import Reply

KEY_VARIABLE = "HARNESS_JUDGE_API_KEY"
PATIENCE = Patience(timeout=120.0, retries=7, seconds=300.0)
IN_FLIGHT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """What an endpoint lets itself be asked. Some refuse a form of reply, newer ones ``max_tokens``, reasoning models a temperature."""

    structured: bool = True
    tokens: str = "max_tokens"
    greedy: bool = True

    def fields(self, contract: Contract) -> dict[str, Any]:
        form = {"response_format": dict(contract.response_format)} if self.structured else {}
        return {self.tokens: contract.max_tokens, **({"temperature": 0} if self.greedy else {}), **form}

    def after(self, refusal: RefusedError) -> _Dialect | None:
        """How to ask after a refusal: without what it names, else without a form; None where nothing is left to leave out."""
        if refusal.status not in (400, 422):
            return None
        if self.tokens == "max_tokens" and "max_tokens" in refusal.said:
            return replace(self, tokens="max_completion_tokens")
        if self.greedy and "temperature" in refusal.said:
            return replace(self, greedy=False)
        return replace(self, structured=False) if self.structured else None


class EndpointModel:
    """One model at one URL; used and closed within one event loop."""

    def __init__(self, url: str, name: str, *, patience: Patience = PATIENCE) -> None:
        self.name = name
        self._patience = patience
        self._client = _client(url, patience)
        self._dialect = _Dialect()

    @property
    def place(self) -> str:
        return self._client.url

    async def complete(self, messages: list[Message], contract: Contract) -> Reply:
        """One reply, greedily where the endpoint allows it; in the contract's form where it can hold a model to one."""
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
        first = dialect = self._dialect
        while True:
            body: dict[str, Any] = {"model": self.name, "messages": [dict(m) for m in messages], **dialect.fields(contract)}
            try:
                reply = await self._ask(body, patience, dialect)
            except RefusedError as error:
                milder = dialect.after(error)
                if milder is None:
                    raise OutageError(str(error)) from error
                dialect = milder
            else:
                if dialect != first:  # only now is it sure what the trouble was
                    self._dialect = dialect
                return reply

    async def _ask(self, body: Mapping[str, Any], patience: Patience, dialect: _Dialect) -> Reply:
        return await self._client.ask("POST", "/chat/completions", body, lambda data, _: _reply(data, dialect), patience)


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


def _reply(data: Mapping[str, Any], dialect: _Dialect) -> Reply:
    try:
        choice = data["choices"][0]
        message = choice["message"]
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(str(part.get("text", "")) for part in content)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnreadableError(f"the reply is no chat completion ({type(error).__name__})") from error
    refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
    return Reply(
        text=str(message.get("refusal") or content),
        model=str(data.get("model") or ""),
        refused=refused,
        structured=dialect.structured,
        greedy=dialect.greedy,
    )
