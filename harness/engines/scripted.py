"""The shipped fake: an engine that says what a script tells it to, for tests of everything that talks to an engine.

It needs no model and no torch. Log-probabilities, versions, delays and failures come from the script, too. It never samples.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.engines.base import Capability, EngineConfig, Request, Weights
from harness.errors import EngineError, UsageError
from harness.types import FinishReason, Ids, Span
from harness.wording import plural

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One turn. ``logprob`` is that of every token unless ``logprobs`` gives one each; ``error`` makes the request fail."""

    text: str = ""
    ids: Ids | None = None  # instead of text
    logprob: float = -0.5
    logprobs: tuple[float, ...] | None = None
    delay: float = 0.0  # seconds
    error: str | None = None


Turns = Sequence[Reply | str]
Script = Callable[[Request, int], Reply | str] | Mapping[str, Turns] | Turns
"""A function of request and turn number, or turns per session, or turns that every session goes through."""


class ScriptedEngine:
    """Answers by script. A turn is the number of requests that its session has made before."""

    capabilities = frozenset({Capability.GENERATE, Capability.SCORE, Capability.SYNC})

    def __init__(self, script: Script, encode: Encode, end: int | None = None) -> None:
        """``end``: id put after every reply that is not cut by ``max_tokens``, as a model ends its turn."""
        self.version = 0
        self.requests: list[Request] = []  # all that were made, in order
        self._script = script
        self._encode = encode
        self._end = end
        self._turns: Counter[str] = Counter()
        self._closed = False

    async def generate(self, request: Request) -> Span:
        """The next scripted reply of the request's session."""
        if self._closed:
            raise EngineError("the engine was closed")
        turn = self._turns[request.session]
        self._turns[request.session] += 1
        self.requests.append(request)
        reply = self._reply(request, turn)
        await asyncio.sleep(reply.delay)
        if reply.error is not None:
            raise EngineError(reply.error)
        return self._span(reply, request.max_tokens)

    async def score(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        """-0.5 for every token."""
        return [[-0.5] * (len(ids) - 1) for ids in sequences]

    async def sync(self, weights: Weights, version: int) -> str:
        """Takes the version and forgets the weights; the checksum names the version."""
        for _ in weights:  # a learner's generator must run to its end
            pass
        self.version = version
        return f"scripted-{version}"

    async def close(self) -> None:
        self._closed = True

    def _reply(self, request: Request, turn: int) -> Reply:
        if callable(self._script):
            reply = self._script(request, turn)
        else:
            turns = self._script.get(request.session, ()) if isinstance(self._script, Mapping) else self._script
            if turn >= len(turns):
                raise EngineError(
                    f"the script of session {request.session!r} ends after {len(turns)} {plural(len(turns), 'turn')}; give it one more"
                )
            reply = turns[turn]
        return Reply(text=reply) if isinstance(reply, str) else reply

    def _span(self, reply: Reply, max_tokens: int) -> Span:
        ids = tuple(self._encode(reply.text)) if reply.ids is None else reply.ids
        if self._end is not None and ids[-1:] != (self._end,):
            ids = (*ids, self._end)
        logprobs = reply.logprobs or (reply.logprob,) * len(ids)
        finish = FinishReason.STOP if len(ids) <= max_tokens else FinishReason.LENGTH
        return Span(ids=ids[:max_tokens], logprobs=logprobs[:max_tokens], version=self.version, finish=finish)


def open_script(directory: str | Path, config: EngineConfig | None = None) -> ScriptedEngine:
    """The engine of the command line: every session goes through the turns (a list of strings) of ``script.json`` in ``directory``."""
    from transformers import AutoTokenizer

    path = Path(directory) / "script.json"
    if not path.is_file():
        raise UsageError(
            f"the scripted engine says what {path} holds (a JSON list of turns), and there is none; write it, or use --engine hf"
        )
    turns = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise UsageError(f"{path} must hold a JSON list of strings, one per turn")
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    return ScriptedEngine(turns, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], end=tokenizer.eos_token_id)
