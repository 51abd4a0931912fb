"""An endpoint as an engine of token ids: ``POST /completions`` with ids for a prompt, as vLLM's server takes them.

With the model's tokenizer at hand, whatever needs ids or log-probabilities (lm-eval's multiple choice, token-exact trajectories) runs
against a server as it runs in process. It cannot swap weights. Which ids a server may refuse, and retries, are ``Endpoint``'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from harness.engines.base import Capability, Request, Weights
from harness.engines.client import UnreadableError
from harness.engines.http import Endpoint
from harness.errors import EngineError
from harness.types import FinishReason, Ids, Span


class CompletionsEngine:
    """``Engine`` over ``endpoint``, which it closes."""

    capabilities = frozenset({Capability.GENERATE, Capability.SCORE})

    def __init__(self, endpoint: Endpoint) -> None:
        self.version = 0
        self._endpoint = endpoint

    def cost(self, prompt: int, generated: int) -> float | None:
        return self._endpoint.cost(prompt, generated)

    async def generate(self, request: Request) -> Span:
        body = {
            "prompt": request.ids,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed % 2**31,
            "logprobs": 0,
            "return_token_ids": True,
        }
        choice = await self._choice(body)
        ids, logprobs = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
        if not isinstance(ids, list) or not isinstance(logprobs, list) or len(ids) != len(logprobs):
            raise EngineError("the endpoint gives no token ids with their log-probabilities; a vLLM server does (return_token_ids)")
        finish = FinishReason.LENGTH if choice.get("finish_reason") == "length" else FinishReason.STOP
        return Span(ids=tuple(ids), logprobs=tuple(map(float, logprobs)), version=self.version, finish=finish)

    async def score(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        """Only at temperature 1: servers report no other."""
        if temperature != 1.0:
            raise EngineError(f"an endpoint scores at temperature 1 only, got {temperature:g}; use --engine hf or vllm")
        return list(await asyncio.gather(*(self._score(ids) for ids in sequences)))

    async def sync(self, weights: Weights, version: int) -> str:
        raise EngineError("the weights behind an endpoint cannot be swapped; train with --engine hf or vllm")

    async def close(self) -> None:
        await self._endpoint.close()

    async def _score(self, ids: Ids) -> list[float]:
        choice = await self._choice({"prompt": ids, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 0})
        found = (choice.get("logprobs") or {}).get("token_logprobs")
        if not isinstance(found, list) or len(found) < len(ids) or not all(isinstance(p, float | int) for p in found[1 : len(ids)]):
            raise EngineError("the endpoint gives no log-probabilities of a prompt; a vLLM server does (echo with logprobs)")
        return [float(p) for p in found[1 : len(ids)]]

    async def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        return await self._endpoint.ask("/completions", body, _first_choice)


def _first_choice(reply: dict[str, Any], retries: int) -> dict[str, Any]:
    try:
        choice = reply["choices"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise UnreadableError(f"the reply lacks choices[0] ({type(error).__name__})") from error
    if not isinstance(choice, dict):
        raise UnreadableError("choices[0] of the reply is no object")
    return choice
