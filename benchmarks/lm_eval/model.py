"""Our engine as a model of lm-eval: requests become token ids here, and nowhere else.

Differences from lm-eval's own back ends, on purpose: a thought that was never closed is no answer (theirs grades it); stop strings apply
to what follows the thought; a prompt that does not fit is an error of that sample instead of a prompt cut from the left; the chat
template's marks are never put in twice. Token for token it agrees with lm-eval's ``HFLM`` otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from harness.chat import Chat
from harness.engines.base import Capability, Engine, Request, request_seed
from harness.errors import EngineError, UsageError
from harness.types import FinishReason, Ids, Span, Usage

OWN_LIMIT = 256  # lm-eval's limit for tasks that name none
_UNDERSTOOD = {"until", "do_sample", "temperature", "max_gen_toks"}
_HARMLESS = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "num_beams": 1}

T = TypeVar("T")

Asked = list[tuple[Ids, asyncio.Future[list[float]]]]
"""Sequences to score, and who waits for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What one request brought: ``value`` is what lm-eval is handed, the rest is for the record."""

    value: Any  # generated text; (log-probability, is greedy); log-probability of a whole text
    prompt: Ids = ()
    span: Span | None = None
    text: str = ""  # what was generated, thought included
    usage: Usage | None = None  # what a chat endpoint counted, instead of prompt and span
    truncated: bool = False  # the limit came before the end, or a thought was never closed

    @property
    def generated(self) -> bool:
        return self.span is not None or self.usage is not None

    @property
    def tokens(self) -> int:
        """Generated ones."""
        return len(self.span.ids) if self.span is not None else self.usage.generated if self.usage is not None else 0


class EngineLM(TemplateLM):  # type: ignore[misc]
    """``respond`` serves our own evaluation; the methods of ``LM`` serve lm-eval's evaluator, from a thread beside the engine's loop."""

    def __init__(
        self,
        engine: Engine,
        chat: Chat,
        *,
        context: int,
        templated: bool,
        answer_tokens: int | None = None,
        thinking_tokens: int = 0,
        seed: int = 0,
        greedy_flags: bool = True,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """``templated``: prompts come out of ``apply_chat_template``. ``greedy_flags``: without them, "is greedy" is always False, at no
        cost; most metrics never look at it."""
        super().__init__()
        self._engine, self._chat, self._templated = engine, chat, templated
        self._context, self._seed, self._greedy_flags = context, seed, greedy_flags
        self._answer_tokens = answer_tokens
        self._thinking_tokens = thinking_tokens if chat.thinks else 0
        self._loop = loop
        self._waiting: dict[str, Asked] = {}  # by document
        self._scoring: set[asyncio.Task[None]] = set()

    async def respond(self, instance: Instance, repeat: int = 0) -> Response:
        """Serve one request. Raises ``EngineError`` if the engine cannot (it does not fit, the engine is down)."""
        document = f"{instance.task_name}/{instance.doc_id}"
        match instance.request_type:
            case "generate_until":
                return await self._generate(instance.args[0], instance.args[1], f"{document}/{repeat}")
            case "loglikelihood":
                return await self._loglikelihood(instance.args[0], instance.args[1], document)
            case "loglikelihood_rolling":
                return await self._rolling(instance.args[0], document)
        raise UsageError(f"lm-eval asks for {instance.request_type!r}, which no engine of ours serves")

    async def _generate(self, prompt: str, arguments: dict[str, Any], name: str) -> Response:
        wanted = normalize_gen_kwargs(arguments, self._answer_tokens or OWN_LIMIT)
        check_sampling(wanted)
        ids = tuple(self.tok_encode(prompt))
        request = Request(
            ids=ids,
            max_tokens=(self._answer_tokens or int(wanted["max_gen_toks"])) + self._thinking_tokens,
            temperature=float(wanted["temperature"]) if wanted["do_sample"] else 0.0,
            seed=request_seed(self._seed, "lm-eval", name),
            session=f"lm-eval/{name}",
        )
        span = await self._engine.generate(request)
        text = self._chat.decode(span.ids)
        shown = after_thought(text, opened=prompt.rstrip().endswith("<think>"))
        answer = "" if shown is None else until(self._chat.without_marks(shown), wanted["until"])
        truncated = span.finish is FinishReason.LENGTH or shown is None
        return Response(value=answer, prompt=ids, span=span, text=text, truncated=truncated)

    async def _loglikelihood(self, context: str, continuation: str, document: str) -> Response:
        if context:
            before, scored = self._encode_pair(context, continuation)
        else:
            before, scored = [self.prefix_token_id], list(self.tok_encode(continuation, add_special_tokens=False))
            if scored and scored[0] == before[0]:
                scored = scored[1:]
        if not scored:
            raise EngineError(f"the continuation {continuation!r} has no token of its own")
        ids = (*before, *scored)
        logprob = sum((await self._score(ids, document))[-len(scored) :])
        greedy = self._greedy_flags and await self._is_greedy(tuple(before), tuple(scored))
        return Response(value=(logprob, greedy), prompt=ids)

    async def _rolling(self, text: str, document: str) -> Response:
        windows = utils.get_rolling_token_windows(
            token_list=list(self.tok_encode(text)), prefix_token=self.prefix_token_id, max_seq_len=self._context - 1, context_len=1
        )
        parts = [utils.make_disjoint_window(window) for window in windows]
        scores = await asyncio.gather(*(self._score((*before, *scored), document) for before, scored in parts))
        return Response(value=sum(sum(row[-len(scored) :]) for row, (_, scored) in zip(scores, parts, strict=True)))

    async def _is_greedy(self, before: Ids, scored: Ids) -> bool:
        span = await self._engine.generate(Request(ids=before, max_tokens=len(scored), temperature=0.0))
        return span.ids == scored

    async def _score(self, ids: Ids, document: str) -> list[float]:
        """The sequences of one document go to the engine as one call: they begin alike, and others would change last bits."""
        if Capability.SCORE not in self._engine.capabilities:
            raise UsageError(
                "this task needs log-probabilities of given text, which this engine cannot give; "
                "use --engine hf or vllm, or an endpoint with echo and logprobs"
            )
        future: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        if document not in self._waiting:
            self._waiting[document] = []
            task = asyncio.create_task(self._score_waiting(document))
            self._scoring.add(task)
            task.add_done_callback(self._scoring.discard)
        self._waiting[document].append((ids, future))
        return await future

    async def _score_waiting(self, document: str) -> None:
        await asyncio.sleep(0)  # the document's other requests come first
        asked = self._waiting.pop(document)
        try:
            rows = await self._engine.score([ids for ids, _ in asked])
        except EngineError:
            await self._score_apart(asked)  # one sequence that does not fit must not fail the others
            return
        for (_, future), row in zip(asked, rows, strict=True):
            if not future.done():
                future.set_result(row)

    async def _score_apart(self, asked: Asked) -> None:
        for ids, future in asked:
            try:
                row = (await self._engine.score([ids]))[0]
            except EngineError as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(row)

    # What lm-eval asks of a model.

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._respond_all(requests)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return self._respond_all(requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self._respond_all(requests)

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        raise UsageError("lm-eval scores token ids only through loglikelihood here")

    def _respond_all(self, requests: list[Instance]) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return [response.value for response in await asyncio.gather(*(self.respond(request) for request in requests))]

        return self._in_loop(all_of_them())

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            raise UsageError("EngineLM needs the event loop of its engine to be driven by lm-eval: pass loop=")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        bare = self._templated if add_special_tokens is None else not add_special_tokens
        return list(self._chat.encode(string) if bare else self._chat.encode_text(string))

    @property
    def eot_token_id(self) -> int:
        return self._chat.end_id

    @property
    def prefix_token_id(self) -> int:
        return self._chat.start_id

    @property
    def tokenizer_name(self) -> str:
        return ""

    def chat_template(self, chat_template: bool | str = False) -> str:
        return ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self._chat.render(chat_history, continued=not add_generation_prompt)


def check_sampling(wanted: dict[str, Any]) -> None:
    """Raise ``UsageError`` for generation arguments that our engines would have to ignore."""
    others = {k: v for k, v in wanted.items() if k not in _UNDERSTOOD and v is not None and v != _HARMLESS.get(k)}
    if others:
        raise UsageError(f"the task samples with {others}, which our engines do not have (they know temperature and stop strings only)")


def after_thought(text: str, *, opened: bool = False) -> str | None:
    """What follows the last thought; None where a thought was never closed. ``opened``: the prompt itself began one.

    >>> after_thought("<think>hm</think> 4")
    '4'
    >>> after_thought("<think>hm, 4") is None
    True
    """
    _, closed, rest = text.rpartition("</think>")
    if (opened and not closed) or rest.lstrip().startswith("<think>"):
        return None
    return rest.lstrip() if closed else rest


def until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    for stop in stops:
        if stop:
            text = text.partition(stop)[0]
    return text
