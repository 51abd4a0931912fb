"""A model behind an OpenAI-compatible endpoint as an engine of messages: ``POST /chat/completions``. How it is asked: ``client``.

Tools travel in the messages (Hermes format, harness.chat), so any chat model will do; a server that takes calls or thoughts out of the
text has them put back. A request without an answer is an ``EngineError``, never a wrong answer. A refused key or an unknown model ends
the evaluation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from harness.config import Section, operational
from harness.engines.base import Capability, ChatReply, ChatRequest
from harness.engines.client import Client, Patience, Read, RefusedError, Served, UnansweredError, UnreadableError
from harness.errors import ContextOverflowError, EngineError
from harness.types import FinishReason, Usage

T = TypeVar("T")

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
    """Times a failed request is sent again (the default: for one to two minutes). Neither refusals for overload (429, 503) nor a server
    that is not there are counted; ``patience`` bounds those. A server that fails everything from the start ends the command after 15 s."""
    patience: float = operational(1800.0, gt=0)
    """Seconds after which a request is not sent again, and for which a server that went away in the middle is waited for; a longer
    Retry-After is not waited for."""
    key_variable: str = operational("HARNESS_API_KEY")
    """Environment variable that holds the API key, if the endpoint wants one; the key is never stored or logged."""
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = operational("max_tokens")
    """What the endpoint calls the limit of a reply's tokens."""
    tokenizer: str | None = operational(None)
    """Where the model's tokenizer is (a name of the model table, a directory, a hub id). With it the server is asked for token ids by
    /completions, as vLLM's server answers them: what of lm-eval scores given texts needs that (null: messages by /chat/completions)."""
    price_prompt: float | None = operational(None, ge=0)
    """Price of a million prompt tokens, in any currency (null: costs nothing; costs are counted where either price is set). Every request
    pays for its whole prompt. lm-eval's requests by token ids are not priced."""
    price_generated: float | None = operational(None, ge=0)
    """Price of a million generated tokens."""

    def cost(self, prompt: int, generated: int) -> float | None:
        """What one request of so many tokens costs; None without prices."""
        if self.price_prompt is None and self.price_generated is None:
            return None
        return (prompt * (self.price_prompt or 0.0) + generated * (self.price_generated or 0.0)) / 1e6


class Endpoint:
    """One model at one URL. Safe for many coroutines of one event loop; made anywhere, used and closed within the loop."""

    capabilities = frozenset({Capability.CHAT})

    def __init__(self, url: str, model: str, config: EndpointConfig) -> None:
        self.model = model
        self.cost = config.cost
        self._config = config
        patience = Patience(timeout=config.timeout, retries=config.retries, seconds=config.patience)
        self._client = Client(url, patience=patience, most=config.concurrency, key_variable=config.key_variable)

    async def chat(self, request: ChatRequest) -> ChatReply:
        body: dict[str, Any] = {"messages": request.messages, "temperature": request.temperature}
        if request.temperature > 0:
            body["seed"] = request.seed % 2**31  # not every server reads 64 bits
        if request.max_tokens is None:
            return await self.ask("/chat/completions", body, self._reply)
        try:
            return await self.ask("/chat/completions", {**body, self._config.tokens_field: request.max_tokens}, self._reply)
        except ContextOverflowError:  # prompt and limit together are too long, which says nothing of the prompt alone: let the server cut
            return await self.ask("/chat/completions", body, self._reply)

    async def models(self) -> tuple[Served, ...]:
        """What ``/models`` lists. Raises ``HarnessError`` if the endpoint cannot be asked."""
        return await self._client.models()

    async def ask(self, path: str, body: Mapping[str, Any], read: Read[T]) -> T:
        """Ask this model until ``read`` makes sense of the reply. Raises ``EngineError`` where there is no answer to this request."""
        try:
            return await self._client.ask("POST", path, {"model": self.model, **body}, read)
        except UnansweredError as error:
            raise EngineError(str(error)) from error
        except RefusedError as error:
            raise (ContextOverflowError if _OVERFLOW.search(error.said) else EngineError)(str(error)) from error

    async def close(self) -> None:
        await self._client.close()

    def _reply(self, reply: dict[str, Any], retries: int) -> ChatReply:
        try:
            choice = reply["choices"][0]
            text, finish = _text(choice["message"]), choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise UnreadableError(f"the reply lacks choices[0].message ({type(error).__name__})") from error
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
        return Usage(prompt=prompt, billed_prompt=prompt, generated=generated, retries=retries, cost=self.cost(prompt, generated))


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
