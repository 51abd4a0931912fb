"""A chat endpoint as a model of lm-eval's generating tasks: its messages travel as they are, and the endpoint's own template renders them.

What needs token ids stays out of reach: log-probabilities of given text, prompts outside the chat template, and answers that the task
begins itself. How an answer is read (thoughts, stop strings) is what ``model`` says of token ids.
"""

from __future__ import annotations

import json
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from benchmarks.lm_eval.model import OWN_LIMIT, Response, after_thought, check_sampling, until
from harness.engines.base import ChatEngine, ChatReply, ChatRequest, request_seed
from harness.errors import UsageError
from harness.types import FinishReason, Message


class ChatLM:
    """Serves ``generate_until``. Answers have the task's own limit; once the model has shown thoughts, thoughts have tokens besides."""

    def __init__(
        self, engine: ChatEngine, *, context: int | None, answer_tokens: int | None = None, thinking_tokens: int = 0, seed: int = 0
    ) -> None:
        """``context``: longest sequence at the endpoint in tokens, None where it does not say."""
        self._engine, self._context, self._seed = engine, context, seed
        self._answer_tokens, self._thinking_tokens = answer_tokens, thinking_tokens
        self._thinks = False

    @staticmethod
    def apply_chat_template(chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages as JSON, for ``respond``. Raises ``UsageError`` where the task writes the beginning of the answer."""
        if not add_generation_prompt:
            raise UsageError("the task begins the answer itself (gen_prefix), which /chat/completions cannot; set endpoint.tokenizer")
        return json.dumps(chat_history, ensure_ascii=False)

    async def respond(self, instance: Instance, repeat: int = 0) -> Response:
        """Serve one request. Raises ``EngineError`` if the endpoint has no answer to it."""
        if instance.request_type != "generate_until":
            raise UsageError(f"lm-eval asks for {instance.request_type!r}, which needs token ids: set endpoint.tokenizer=NAME|DIR")
        wanted = normalize_gen_kwargs(instance.args[1], self._answer_tokens or OWN_LIMIT)
        check_sampling(wanted)
        messages: tuple[Message, ...] = tuple(json.loads(instance.args[0]))
        reply = await self._reply(messages, wanted, f"{instance.task_name}/{instance.doc_id}/{repeat}")
        shown = after_thought(reply.text)
        return Response(
            value="" if shown is None else until(shown, wanted["until"]),
            text=reply.text,
            usage=reply.usage,
            truncated=reply.finish is FinishReason.LENGTH or shown is None,
        )

    async def _reply(self, messages: tuple[Message, ...], wanted: dict[str, Any], name: str) -> ChatReply:
        """Nobody says beforehand whether the model thinks: the reply that was cut over its thought is asked for again with more room."""
        limit = self._answer_tokens or int(wanted["max_gen_toks"])
        roomy = self._thinks
        reply = await self._ask(messages, wanted, name, limit + self._thinking_tokens * roomy)
        cut = reply.finish is FinishReason.LENGTH
        self._thinks = self._thinks or "<think>" in reply.text or "</think>" in reply.text or (cut and not reply.text.strip())
        if roomy or not (cut and self._thinks and self._thinking_tokens):
            return reply
        more = await self._ask(messages, wanted, name, limit + self._thinking_tokens)
        return ChatReply(text=more.text, finish=more.finish, usage=reply.usage.then(more.usage))

    async def _ask(self, messages: tuple[Message, ...], wanted: dict[str, Any], name: str, tokens: int) -> ChatReply:
        return await self._engine.chat(
            ChatRequest(
                messages=messages,
                max_tokens=None if self._context is not None and tokens >= self._context else tokens,  # the endpoint knows what is left
                temperature=float(wanted["temperature"]) if wanted["do_sample"] else 0.0,
                seed=request_seed(self._seed, "lm-eval", name),
                session=f"lm-eval/{name}",
            )
        )
