"""Fakes for tests that need no model: an engine with a made-up policy, a learner without a network, a small tokenizer.

Engine and learner share one made-up policy (``logprobs_of``): contexts that differ give other numbers, and the ratio of an unguided row is
exactly 1.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness.chat import Chat
from harness.engines.base import Request, Weights, weights_checksum
from harness.engines.scripted import Reply, ScriptedEngine
from harness.envs.search import SYSTEM, TOOLS
from harness.events import Kind
from harness.tiny.tokenizer import train_tokenizer
from harness.tiny.world import make_tasks, make_world
from harness.types import Action, Ids, Span
from trainers.learner.base import UpdateReport
from trainers.sample import Batch

Say = Callable[[Request, str], str | Ids]
"""(request, its prompt as text) -> what the model says, as text or as ids; the end-of-turn token is put behind it."""

STRIPS_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}"
    "{%- if m.role == 'assistant' and not loop.last and '</think>' in m.content -%}{{ m.content.split('</think>')[-1] }}"
    "{%- else -%}{{ m.content }}{%- endif -%}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template without tool support that drops the thoughts of earlier turns."""


@cache
def tiny_tokenizer() -> Any:
    """The tiny model's tokenizer and template, with a vocabulary of 330."""
    tasks = make_tasks(make_world("tokenizer"), 3, 12, {})
    texts = [f"{SYSTEM}\n{json.dumps(TOOLS)}\n{task.question}" for task in tasks]
    texts += [str(message["content"]) for task in tasks for message in task.demonstration]
    return train_tokenizer(texts, 330)


@cache
def tiny_chat() -> Chat:
    return Chat(tiny_tokenizer())


def chat_with(template: str, eos: str = "<|im_end|>") -> Chat:
    """The same tokenizer under another template."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    tokenizer.eos_token = eos
    return Chat(tokenizer)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{Action(name=name, arguments=arguments).to_json()}\n</tool_call>"


def logprobs_of(ids: Sequence[int]) -> list[float]:
    """The made-up policy: one value in [-1, 0) for every token but the first, fixed by the token and all that stands before it."""
    seen = hashlib.blake2b(digest_size=4)
    values = []
    for token in ids:
        seen.update(b"%d," % token)
        values.append(-(1 + int.from_bytes(seen.digest(), "big")) / 2**32)
    return values[1:]


class PolicyEngine(ScriptedEngine):
    """The shipped fake with ``logprobs_of`` for its policy. ``finished`` holds the requests in the order of completion."""

    def __init__(self, say: Say, chat: Chat | None = None, delay: Callable[[Request], int] = lambda request: 0) -> None:
        chat = chat or tiny_chat()

        def reply(request: Request, turn: int) -> Reply | str:
            said = say(request, chat.decode(request.ids))
            return said if isinstance(said, str) else Reply(ids=said)

        super().__init__(reply, chat.encode, end=chat.end_id)
        self._delay = delay
        self.finished: list[Request] = []

    async def generate(self, request: Request) -> Span:
        span = await super().generate(request)
        for _ in range(self._delay(request)):
            await asyncio.sleep(0)
        self.finished.append(request)
        return replace(span, logprobs=tuple(logprobs_of((*request.ids, *span.ids))[len(request.ids) - 1 :]))

    async def score(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        return [logprobs_of(ids) for ids in sequences]

    async def sync(self, weights: Weights, version: int) -> str:
        self.version = version
        return weights_checksum(weights)


class FakeLearner:
    """One weight: a running digest of every row it was ever given, in order. Batches are kept in ``batches``."""

    def __init__(self) -> None:
        self.version = 0
        self.weight = 0
        self.batches: list[Batch] = []
        self.restarts: list[tuple[str, float | None]] = []  # (folder's parent, lr)

    def update(self, batch: Batch) -> UpdateReport:
        self.batches.append(batch)
        self.version += 1
        seen = repr((self.weight, batch.minibatches)).encode()
        self.weight = int.from_bytes(hashlib.blake2b(seen, digest_size=7).digest(), "big")
        rows = [sample for minibatch in batch.minibatches for sample in minibatch]
        tokens = sum(len(sample.behaviour) for sample in rows)
        return UpdateReport(
            metrics={"tokens/trained": tokens, "policy/loss": 0.5},
            histograms={"ratio/guided": ((0.0, 1.0), (3,))},
            tokens=tokens,
            seconds=0.0,
            version=self.version,
            row_ratios={sample.attempt_id: (1.0,) * len(sample.behaviour) for sample in rows},
        )

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        return [logprobs_of(ids) for ids in sequences]

    def weights(self) -> Weights:
        yield "weight", torch.tensor([self.weight])

    def checksum(self) -> str:
        return weights_checksum(self.weights())

    def save(self, folder: Path) -> None:
        (folder / "hf").mkdir(parents=True)
        (folder / "learner.json").write_text(json.dumps([self.version, self.weight]))

    def load(self, folder: Path) -> None:
        self.version, self.weight = json.loads((folder / "learner.json").read_text())

    def restart(self, directory: Path, lr: float | None = None) -> None:
        assert directory.is_dir()
        self.restarts.append((directory.parent.name, lr))
        self.weight += 1  # a fresh optimiser is another state

    def close(self) -> None:
        return None


class MemoryLog:
    """A run log in a list."""

    def __init__(self) -> None:
        self.events: list[tuple[Kind, Mapping[str, Any]]] = []
        self.blobs: list[Mapping[str, Any]] = []

    def record(self, kind: Kind, payload: Mapping[str, Any]) -> None:
        self.events.append((kind, payload))

    def blob(self, data: Mapping[str, Any]) -> dict[str, Any]:
        self.blobs.append(data)
        return {"file": "blobs/memory.bin", "offset": len(self.blobs) - 1, "length": 1}

    def sync(self) -> None:
        return None

    def of(self, kind: Kind) -> list[Mapping[str, Any]]:
        return [payload for found, payload in self.events if found is kind]
